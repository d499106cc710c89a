"""What Prometheus reads, parsed back by the reference parser."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from defectd.clock import NS_PER_S
from defectd.inspection.events import FrameInfo, TimingMs
from defectd.inspection.rollout_wire import ModelRef, RolloutReport
from defectd.telemetry.sample import DeviceSample, Frequency, ThrottleSigns
from defectd.web.metrics import Metrics
from unit.watch.wire_events import MODEL, NOW, inspection

SERVED = {"camera": "top", "model": "boards", "version": "1", "runtime": "torchscript-fp32-cpu"}


def read(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of one series, None if there is none."""
    values = [sample.value for sample in samples(metrics) if sample.name == name and sample.labels == labels]
    assert len(values) < 2, f"{name} {labels} is there twice"
    return values[0] if values else None


def samples(metrics: Metrics) -> list[Any]:
    page = metrics.exposition().decode()
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def rollout(state: str, target: ModelRef | None = None) -> RolloutReport:
    return RolloutReport(
        request_id="r", seq=1, action="deploy", state=state, successful=False, finished=False, code="", detail="",
        waits_for=None, percent=None, attempts=1, target=target, gates={}, received_at=NOW, changed_at=NOW,
    )  # fmt: skip


def frame(camera: str = "top", dropped_before: int = 0) -> FrameInfo:
    return FrameInfo(
        camera=camera, trigger=1, frame_id=None, width_px=None, height_px=None, dropped_before=dropped_before
    )


def test_units_are_counted_by_camera_and_verdict():
    metrics = Metrics(["top", "side"])
    for verdict in ("passed", "passed", "failed"):
        metrics.inspected(inspection(verdict=verdict))
    assert read(metrics, "defectd_units_total", camera="top", verdict="passed") == 2
    assert read(metrics, "defectd_units_total", camera="top", verdict="failed") == 1
    assert read(metrics, "defectd_units_total", camera="side", verdict="passed") == 0


def test_an_error_is_counted_by_its_reason_and_every_reason_begins_at_0():
    metrics = Metrics(["top"])
    assert read(metrics, "defectd_unit_errors_total", camera="top", reason="camera_lost") == 0
    metrics.inspected(inspection(verdict="error", error="camera_lost", model=None))
    assert read(metrics, "defectd_unit_errors_total", camera="top", reason="camera_lost") == 1
    assert read(metrics, "defectd_unit_errors_total", camera="top", reason="engine_failed") == 0


def test_frames_that_gave_way_are_counted_with_the_unit_that_tells_of_them():
    metrics = Metrics(["top"])
    metrics.inspected(inspection(frame=frame(dropped_before=3)))
    metrics.inspected(inspection(frame=frame(dropped_before=2)))
    assert read(metrics, "defectd_frames_dropped_total", camera="top") == 5


def test_latencies_are_histograms_in_seconds_by_camera_and_model():
    metrics = Metrics()
    metrics.inspected(inspection(latency_ms=27.0))
    metrics.inspected(inspection(latency_ms=260.0))
    name = "defectd_capture_to_verdict_seconds"
    assert read(metrics, f"{name}_count", **SERVED) == 2
    assert read(metrics, f"{name}_sum", **SERVED) == pytest.approx(0.287)
    assert read(metrics, f"{name}_bucket", le="0.02", **SERVED) == 0
    assert read(metrics, f"{name}_bucket", le="0.03", **SERVED) == 1
    assert read(metrics, f"{name}_bucket", le="0.3", **SERVED) == 2
    assert read(metrics, "defectd_inference_seconds_sum", **SERVED) == pytest.approx(0.024)


def test_a_late_unit_counts_in_the_latency_and_has_no_inference():
    metrics = Metrics()
    timing = TimingMs(queue=None, preprocess=None, inference=None, postprocess=None, capture_to_verdict=240.0)
    metrics.inspected(inspection(verdict="error", error="deadline_exceeded", timing_ms=timing))
    assert read(metrics, "defectd_capture_to_verdict_seconds_count", **SERVED) == 1
    assert read(metrics, "defectd_inference_seconds_count", **SERVED) is None


@pytest.mark.parametrize("verdict", ["aborted", "skipped"])
def test_units_that_nobody_judged_say_nothing_about_latency(verdict):
    metrics = Metrics()
    metrics.inspected(inspection(verdict=verdict, latency_ms=9000.0))
    assert read(metrics, "defectd_capture_to_verdict_seconds_count", **SERVED) is None


def test_a_model_that_has_not_served_for_long_gives_way_so_that_the_page_is_bounded():
    metrics = Metrics()
    without_inference = TimingMs(queue=None, preprocess=None, inference=None, postprocess=None, capture_to_verdict=1.0)
    metrics.inspected(inspection(model=MODEL.model_copy(update={"version": "gone"}), timing_ms=without_inference))
    for version in range(100):
        metrics.inspected(inspection())
        metrics.inspected(inspection(model=MODEL.model_copy(update={"version": f"v{version}"})))
    counts = [each for each in samples(metrics) if each.name == "defectd_inference_seconds_count"]
    assert len(counts) == 64
    assert read(metrics, "defectd_inference_seconds_count", **SERVED) == 100
    assert read(metrics, "defectd_capture_to_verdict_seconds_count", **{**SERVED, "version": "gone"}) is None
    assert read(metrics, "defectd_units_total", camera="top", verdict="passed") == 201


def test_the_machine_is_told_in_base_units():
    metrics = Metrics(now_ns=lambda: 12 * NS_PER_S)
    sample = DeviceSample(
        at_ns=10 * NS_PER_S,
        temps_c={"gpu-thermal": 61.5},
        hottest_c=61.5,
        gpu=Frequency(current_mhz=1020.0, max_mhz=1300.5, hardware_max_mhz=1300.5),
        emc_mhz=3199.0,
        power_w={"VDD_GPU_SOC": 7.25},
        mem_available_mb=2.0,
        clock_synced=False,
        power_mode="MODE_30W",
        throttle=ThrottleSigns(oc_events={"oc1": 3}),
        rss_mb={"engine": 1.5},
    )
    metrics.sampled(sample, throttled=True)
    assert read(metrics, "defectd_device_temperature_celsius", zone="gpu-thermal") == 61.5
    assert read(metrics, "defectd_device_hottest_celsius") == 61.5
    assert read(metrics, "defectd_device_clock_hertz", clock="gpu") == 1.02e9
    assert read(metrics, "defectd_device_clock_limit_hertz", clock="gpu") == 1.3005e9
    assert read(metrics, "defectd_device_clock_hertz", clock="emc") == 3.199e9
    assert read(metrics, "defectd_device_power_watts", rail="VDD_GPU_SOC") == 7.25
    assert read(metrics, "defectd_device_memory_available_bytes") == 2 * 1024 * 1024
    assert read(metrics, "defectd_device_clock_synchronized") == 0
    assert read(metrics, "defectd_device_power_mode_info", mode="MODE_30W") == 1
    assert read(metrics, "defectd_device_over_current_events_total", counter="oc1") == 3
    assert read(metrics, "defectd_worker_resident_memory_bytes", worker="engine") == 1.5 * 1024 * 1024
    assert read(metrics, "defectd_device_throttled") == 1
    assert read(metrics, "defectd_device_sample_age_seconds") == 2


def test_what_the_machine_does_not_tell_has_no_series():
    metrics = Metrics(now_ns=lambda: 0)
    metrics.sampled(DeviceSample(at_ns=0))
    told = {each.name for each in samples(metrics) if each.name.startswith("defectd_device")}
    assert told == {"defectd_device_sample_age_seconds", "defectd_device_uptime_seconds"}


def test_a_zone_that_vanishes_takes_its_series_with_it():
    metrics = Metrics(now_ns=lambda: 0)
    metrics.sampled(DeviceSample(at_ns=0, temps_c={"gpu": 50.0, "cpu": 51.0}))
    metrics.sampled(DeviceSample(at_ns=0, temps_c={"cpu": 52.0}))
    assert read(metrics, "defectd_device_temperature_celsius", zone="gpu") is None
    assert read(metrics, "defectd_device_temperature_celsius", zone="cpu") == 52.0


def test_a_sample_that_is_too_old_tells_only_its_age():
    now_ns = [0]
    metrics = Metrics(now_ns=lambda: now_ns[0])
    metrics.sampled(DeviceSample(at_ns=0, hottest_c=50.0), throttled=False)
    now_ns[0] = 31 * NS_PER_S
    assert read(metrics, "defectd_device_hottest_celsius") is None
    assert read(metrics, "defectd_device_throttled") is None
    assert read(metrics, "defectd_device_sample_age_seconds") == 31


def test_the_outbox_tells_what_waits_and_what_was_lost():
    metrics = Metrics()
    metrics.set_outbox(pending=12, oldest_s=3.5, size_bytes=4096, dropped=2, dead_letters=1)
    assert read(metrics, "defectd_outbox_pending_events") == 12
    assert read(metrics, "defectd_outbox_oldest_pending_seconds") == 3.5
    assert read(metrics, "defectd_outbox_size_bytes") == 4096
    assert read(metrics, "defectd_outbox_dropped_events_total") == 2
    assert read(metrics, "defectd_outbox_dead_letter_events") == 1


def test_the_rollout_has_one_state_at_a_time():
    metrics, target = Metrics(), ModelRef(name="boards", version="2", release_seq=2, manifest_sha256="ab" * 32)
    metrics.set_rollout(rollout("downloading"))
    metrics.set_rollout(rollout("shadow", target))
    told = [each.labels for each in samples(metrics) if each.name == "defectd_rollout_info"]
    assert told == [{"action": "deploy", "state": "shadow", "model": "boards", "version": "2"}]
    metrics.set_rollout(None)
    assert not [each for each in samples(metrics) if each.name == "defectd_rollout_info"]


def test_exits_of_workers_are_counted_by_worker_and_reason():
    metrics = Metrics()
    metrics.set_worker_exits("camera/top", {"silent": 1})
    metrics.set_worker_exits("engine", {"hung": 1, "signal_9": 2})
    metrics.set_worker_exits("engine", {"hung": 2, "signal_9": 2})
    assert read(metrics, "defectd_worker_exits_total", worker="camera/top", reason="silent") == 1
    assert read(metrics, "defectd_worker_exits_total", worker="engine", reason="hung") == 2


def test_names_that_are_no_proper_text_do_not_break_the_page():
    metrics = Metrics(now_ns=lambda: 0)
    metrics.sampled(DeviceSample(at_ns=0, temps_c={"\udcff": 1.0, 'a"b\\c\nd': 2.0}))
    assert read(metrics, "defectd_device_temperature_celsius", zone="?") == 1.0
    assert read(metrics, "defectd_device_temperature_celsius", zone='a"b\\c\nd') == 2.0


def test_no_series_tells_when_it_was_created():
    metrics = Metrics(["top"])
    metrics.inspected(inspection())
    assert not [each.name for each in samples(metrics) if each.name.endswith("_created")]


def test_two_daemons_in_one_process_do_not_share_counts():
    one, other = Metrics(), Metrics()
    one.inspected(inspection())
    assert read(one, "defectd_units_total", camera="top", verdict="passed") == 1
    assert read(other, "defectd_units_total", camera="top", verdict="passed") is None


def test_a_unit_without_a_model_has_a_latency_too():
    metrics = Metrics()
    metrics.inspected(inspection(model=None, verdict="error", error="engine_unavailable"))
    none = {"camera": "top", "model": "", "version": "", "runtime": ""}
    assert read(metrics, "defectd_capture_to_verdict_seconds_count", **none) == 1
