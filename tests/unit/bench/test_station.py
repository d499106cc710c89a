"""The measured station's configuration, and what is read from its processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectd.bench.measure import outbox_figures
from defectd.bench.procfs import CoreTime, peak_of
from defectd.bench.station import Plan, chosen_layout, station_toml
from defectd.configuration import load_settings
from defectd.errors import StartupError


def test_the_measured_station_is_configured_as_planned(tmp_path: Path) -> None:
    plan = Plan(Path("/m/a.torchscript"), ("open", 'sh"ort'), Path("/pictures"), units=5, evidence=False)
    config = tmp_path / "station.toml"
    config.write_text(station_toml(plan, 1884, tmp_path / "state"))
    settings = load_settings(config)
    camera = settings.camera[0]
    assert camera.kind == "replay"
    assert (camera.path, camera.loop, camera.rate_hz) == (Path("/pictures"), True, 1000.0)
    assert [defect.class_name for defect in settings.inspection.defect] == ["open", 'sh"ort']
    assert (settings.mqtt.port, settings.evidence.enabled, settings.model.device) == (1884, False, "cpu")


def test_the_layout_is_taken_from_the_engines_own_words() -> None:
    log = "INFO engine ready: {'notes': ['layout channels_last (channels_last 16.6 ms, contiguous 21.5 ms)']}"
    assert chosen_layout(log) == "channels_last (channels_last 16.6 ms, contiguous 21.5 ms)"
    assert chosen_layout("nothing") == "unknown"


def test_peak_memory_is_read_in_megabytes() -> None:
    assert peak_of("Name:\tpython\nVmPeak:\t  99 kB\nVmHWM:\t   62500 kB\n") == 64.0
    with pytest.raises(ValueError, match="has ended"):
        peak_of("Name:\tpython\nState:\tZ (zombie)\n")


def test_processor_time_of_others_is_what_is_left() -> None:
    before = CoreTime({"daemon": 1.0, "engine": 10.0}, machine_s=100.0)
    used = CoreTime({"daemon": 1.5, "engine": 12.0}, machine_s=104.0).since(before)
    assert used.process_s == {"daemon": 0.5, "engine": 2.0}
    assert used.others_s == 1.5


def test_a_worker_that_ended_meanwhile_used_no_time_that_we_know_of() -> None:
    before = CoreTime({"daemon": 1.0, "engine": 10.0}, machine_s=100.0)
    assert CoreTime({"daemon": 1.5}, machine_s=104.0).since(before).process_s == {"daemon": 0.5}


def test_the_outbox_benchmark_is_understood() -> None:
    figures = outbox_figures(
        "accepted and committed: 21,108 events/s, made and put by one thread\n"
        "memory with 100,000 queued: 37.2 MB before, 43.4 MB after\n"
        "drained: 12,075 events/s over MQTT 5, 46.6 MB\n"
    )
    assert (figures.drained_hz, figures.before_mb, figures.queued_mb) == (12075.0, 37.2, 43.4)
    with pytest.raises(StartupError, match="does not understand"):
        outbox_figures("fast enough")
