"""From what was measured to what a person reads: disk, cameras, pauses, certificates, service, runtimes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from defectd.camera_settings import OpencvSettings
from defectd.doctor.asking import Told
from defectd.doctor.checks.broker import expiry_finding
from defectd.doctor.checks.cameras import camera_finding
from defectd.doctor.checks.disk import existing, file_system_of, space_finding, sync_finding, wear_finding
from defectd.doctor.checks.model import runtime_findings
from defectd.doctor.checks.pauses import pause_finding
from defectd.doctor.checks.rollouts import directory_finding, last_finding, root_findings
from defectd.doctor.checks.service import configuration_of, service_findings
from defectd.doctor.patient import Occupancy, Patient
from defectd.doctor.report import Finding, Level
from defectd.engine.choice import BuildOptions, Candidate, Choice, Judgement
from defectd.models.trust import Root
from defectd.rollout.ledger import Rollout
from defectd.rollout.states import State
from defectd.rollout_settings import RolloutSource
from defectd.telemetry.sample import Board, DeviceSample
from support.bundles import make_root

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
CONFIG = Path("/etc/defectd/station.toml")


# -- disk --------------------------------------------------------------------------------------------------------


def test_space_is_held_against_what_outbox_and_evidence_may_still_grow_by():
    assert space_finding("/var", 9_000, 30_000, 2_500, 1000).level is Level.OK
    assert space_finding("/var", 2_000, 30_000, 2_500, 1000).level is Level.WARNING
    assert space_finding("/var", 100, 30_000, 0, 1000).level is Level.ERROR
    assert "no more files" in space_finding("/var", 9_000, 30_000, 0, 0).found


def test_one_fsync_that_hangs_is_worth_a_warning_as_a_slow_median_is():
    assert sync_finding([1.0] * 20).level is Level.OK
    assert sync_finding([1.0] * 19 + [900.0]).level is Level.WARNING
    assert sync_finding([80.0] * 20).level is Level.WARNING
    assert "while it is stopped" in sync_finding([80.0] * 5, beside_a_line=True).remedy


def test_worn_flash_is_told_before_it_fails():
    assert wear_finding(0.2).level is Level.OK
    assert wear_finding(0.9).level is Level.WARNING


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path):
    (tmp_path / "self").mkdir()
    mounts = f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n/dev/x {tmp_path}x xfs rw 0 0\n"
    (tmp_path / "self/mounts").write_text(mounts)
    assert file_system_of(tmp_path, tmp_path) == "tmpfs"
    assert file_system_of(Path("/"), tmp_path) == "ext4"
    assert file_system_of(Path("/"), tmp_path / "absent") is None
    assert existing(tmp_path / "a/b") == tmp_path


# -- cameras -----------------------------------------------------------------------------------------------------


def told_of_camera(**facts: Any) -> Finding:
    camera = OpencvSettings(name="top", kind="opencv", source=0, width_px=1920, height_px=1200)
    picture = {"opened_ms": 300.0, "picture_ms": 40.0, "size": [1920, 1200], "brightness": 90.0}
    return camera_finding(camera, Told({**picture, **facts}))


def test_a_picture_is_judged_by_size_and_light():
    assert told_of_camera().level is Level.OK
    assert "black" in told_of_camera(brightness=0.4).found
    assert "white" in told_of_camera(brightness=255.0).found
    assert "asked for 1920x1200" in told_of_camera(size=[640, 480]).found
    too_large = told_of_camera(size=[8000, 6000])
    assert (too_large.level, too_large.remedy) == (Level.ERROR, "set max_pixels = 48000000 of this camera")


def test_a_camera_without_a_trigger_is_no_error():
    camera = OpencvSettings(name="top", kind="opencv", source=0)
    assert camera_finding(camera, Told({"opened_ms": 1.0, "silent_s": 8.0})).level is Level.WARNING
    assert camera_finding(camera, Told({"trouble": "/dev/video0: cannot open"})).level is Level.ERROR
    hanging = camera_finding(camera, Told(trouble="the probe took longer than 28 s"))
    assert "driver hangs" in hanging.remedy


# -- pauses ------------------------------------------------------------------------------------------------------


def told_of_pauses(busy_ms: float, rested_ms: float, device: str = "cuda", is_jetson: bool = True) -> Finding:
    facts = {
        "runtime": "tensorrt-fp16-cuda", "device": device, "device_name": "Orin",
        "busy_ms": [busy_ms] * 60, "rested_ms": [rested_ms] * 6,
    }  # fmt: skip
    return pause_finding(facts, 2.0, 250.0, is_jetson=is_jetson)


def test_clocks_that_sleep_are_told_with_their_price_and_the_command():
    told = told_of_pauses(8.0, 21.0)
    assert told.level is Level.WARNING
    assert "clocks that sleep cost 13.0 ms" in told.found
    assert "sudo jetson_clocks" in told.remedy
    assert "nvidia-smi" in told_of_pauses(8.0, 21.0, is_jetson=False).remedy
    assert "cpupower" in told_of_pauses(8.0, 21.0, device="cpu", is_jetson=False).remedy


def test_a_little_slower_after_a_pause_is_nothing():
    assert told_of_pauses(8.0, 9.0).level is Level.OK
    assert told_of_pauses(1.0, 2.5).level is Level.OK
    assert told_of_pauses(9.0, 8.0).level is Level.OK


def test_a_model_that_cannot_keep_the_deadline_is_told():
    assert "every unit would be an error" in told_of_pauses(400.0, 410.0).found


# -- certificates ------------------------------------------------------------------------------------------------


def test_a_certificate_is_renewed_before_it_ends():
    levels = [expiry_finding("CA", NOW + timedelta(days=days), NOW, "renew").level for days in (400, 10, -1)]
    assert levels == [Level.OK, Level.WARNING, Level.ERROR]
    assert "clock" in expiry_finding("CA", NOW - timedelta(days=1), NOW, "renew").remedy


# -- service -----------------------------------------------------------------------------------------------------

GOOD = {
    "LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0",
    "WatchdogUSec": "20s", "StatusText": "inspecting",
    "ExecStart": f"{{ path=/opt/d ; argv[]=/opt/d run --config {CONFIG} ; ignore_errors=no ; }}",
}  # fmt: skip


def told_of_service(occupied: bool = False, config: Path = CONFIG, **changes: str) -> list[Finding]:
    patient = Patient(config, Board("pc"), DeviceSample(0), occupancy=Occupancy(occupied))
    return list(service_findings({**GOOD, **changes}, config, patient))


def test_a_service_that_runs_under_a_watchdog_is_fit():
    assert [one.level for one in told_of_service()] == [Level.OK, Level.OK]


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"LoadState": "not-found"}, Level.WARNING, "is not installed"),
        ({"ActiveState": "failed", "Result": "exit-code"}, Level.ERROR, "has failed (exit-code)"),
        ({"ActiveState": "inactive"}, Level.WARNING, "is stopped: no unit is inspected"),
        ({"ActiveState": "activating"}, Level.WARNING, "is starting: inspecting"),
        ({"UnitFileState": "disabled"}, Level.WARNING, "does not start with the machine"),
        ({"NRestarts": "7"}, Level.WARNING, "7 times"),
        ({"WatchdogUSec": "0"}, Level.WARNING, "stays hung"),
    ],
)
def test_what_a_service_lacks_is_told(changes, level, words):
    assert [one.level for one in told_of_service(**changes) if words in one.found] == [level]


def test_a_daemon_beside_the_service_is_told():
    assert any("nobody restarts that one" in one.found for one in told_of_service(True, ActiveState="inactive"))


def test_the_service_may_run_with_another_configuration():
    told = told_of_service(config=Path("/home/me/station.toml"))
    assert told[-1].remedy == f"defectd doctor --config {CONFIG}"
    assert configuration_of("argv[]=defectd run --config=/etc/a.toml ;") == Path("/etc/a.toml")
    assert configuration_of("argv[]=defectd demo ;") is None


# -- runtimes ----------------------------------------------------------------------------------------------------


def candidate(runtime: str, obstacle: str | None = None) -> Candidate:
    return Candidate(runtime, "fp16", "auto", None, "", False, "f", True, BuildOptions(), obstacle)


def test_runtimes_are_told_with_what_each_lacks():
    found = [candidate("torchscript"), candidate("tensorrt", "tensorrt is not installed")]
    told = list(runtime_findings(found, None, "auto"))
    assert [one.level for one in told] == [Level.OK, Level.SKIPPED, Level.OK]
    assert told[1].found == "not tensorrt fp16: tensorrt is not installed"
    assert "until trials" in told[2].found
    assert next(iter(runtime_findings(found[1:], None, "auto"))).level is Level.ERROR


def test_the_choice_is_told_with_its_reason():
    judgement = Judgement("tensorrt", "fp16", 4.0, 5.0, True, "chosen: p99 5.00 ms")
    told = list(runtime_findings([candidate("tensorrt")], Choice("tensorrt", "fp16", True, (judgement,)), "auto"))
    assert told[-1].found == "tensorrt fp16: p99 5.00 ms"
    none = Choice(None, None, True, (Judgement("tensorrt", "fp16", None, None, False, "crashed"),))
    assert list(runtime_findings([candidate("tensorrt")], none, "auto"))[-1].level is Level.WARNING


def test_a_choice_that_was_interrupted_is_not_called_a_failure_of_the_runtimes():
    stopped = Choice(None, None, False, (Judgement("tensorrt", "fp16", None, None, False, "was told to stop"),))
    told = list(runtime_findings([candidate("tensorrt")], stopped, "auto"))[-1]
    assert told.level is Level.WARNING and "interrupted: tensorrt fp16: was told to stop" in told.found
    assert "tried again" in told.remedy and "export" not in told.remedy


# -- rollouts ----------------------------------------------------------------------------------------------------


def test_a_root_tells_who_commands_and_until_when(tmp_path):
    path = tmp_path / "root.json"
    now = datetime.now(timezone.utc)
    for days, level in ((None, None), (400, Level.OK), (3, Level.WARNING), (-3, Level.ERROR)):
        expires = None if days is None else now + timedelta(days=days)
        names, *expiry = root_findings(make_root(expires=expires), path)
        assert names.level is Level.OK and "one ops key" in names.found
        assert [one.level for one in expiry] == ([] if level is None else [level])
    nobody = make_root()
    without = Root(1, None, nobody.keys, {name: role for name, role in nobody.roles.items() if name != "ops"})
    assert [one.level for one in root_findings(without, path)] == [Level.ERROR]


def test_a_stick_that_is_not_plugged_in_is_a_warning(tmp_path):
    assert directory_finding(RolloutSource(alias="usb", directory=tmp_path)).level is Level.OK
    absent = directory_finding(RolloutSource(alias="usb", directory=tmp_path / "absent"))
    assert absent.level is Level.WARNING and "plug the stick in" in absent.remedy


@pytest.mark.parametrize(
    ("state", "code", "level", "words"),
    [
        (State.COMMITTED, "", Level.OK, "deploy of boards 1.5, 2026-"),
        (State.SHADOW, "", Level.OK, "under way, shadow"),
        (State.CANCELLED, "", Level.OK, "cancelled"),
        (State.ROLLED_BACK, "p99", Level.WARNING, "rolled back: p99: too slow"),
    ],
)
def test_the_last_rollout_is_told_with_its_end(state, code, level, words):
    rollout = Rollout(
        "request-1", 1, "deploy", "ab" * 32, 5, state, 1, 3, code, "too slow" if code else "", {}, b"", "", NOW, NOW
    )
    told = last_finding(rollout, "boards 1.5", "station.toml")
    assert told.level is level and words in told.found
    assert level is Level.OK or "defectd rollout history --config station.toml --request request-1" in told.remedy
    assert last_finding(None, "", "station.toml").level is Level.OK
