"""The real `defectd run`: its life as systemd sees it, and what is on disk afterwards. No broker is needed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time

import pytest

pytest.importorskip("torch", reason="needs torch: make setup")
pytest.importorskip("cv2", reason="needs OpenCV: make setup")

from support.audit import read_outbox
from support.brokers import free_port
from support.coded_pictures import misjudged, write_pictures
from support.models import save
from support.station import (
    DaemonProcess,
    defectd,
    environment,
    merged,
    wait_until,
    workers_of,
    write_config,
)

UNITS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model") / "model.torchscript")


@pytest.fixture
def settings(tmp_path, model):
    return {
        "station": {"site": "plant1", "area": "smt", "line": "line1", "station": "aoi1"},
        "mqtt": {"port": free_port()},
        "model": {"path": model, "device": "cpu", "threads": 1},
        "camera": [
            {"name": "top", "kind": "replay", "path": write_pictures(tmp_path / "pictures", UNITS), "rate_hz": 20.0}
        ],
        "inspection": {
            "deadline_ms": 5000,
            "defect": [{"class_name": "open", "code": "PCB-OPEN", "min_confidence": 0.5}],
        },
        "state": {"directory": tmp_path / "state"},
    }


@pytest.fixture
def start(tmp_path):
    started = []

    def start(settings):
        daemon = DaemonProcess(write_config(tmp_path, settings))
        started.append(daemon)
        daemon.start()
        return daemon

    yield start
    for daemon in started:
        daemon.end()


def inspections(settings):
    path = settings["state"]["directory"] / "outbox.db"
    return [row.event for row in read_outbox(path) if row.event["schema"] == "defectd.inspection/1.2"]


def serve_all(daemon, settings, count=UNITS):
    daemon.wait_ready()
    wait_until(lambda: len(inspections(settings)) >= count, 60, f"{count} inspections\n{daemon.log()[-2000:]}")
    assert daemon.terminate() < 10
    assert daemon.exit_code == 0, daemon.log()


def test_every_picture_gets_its_own_right_verdict_without_any_broker(start, settings):
    serve_all(start(settings), settings)
    events = inspections(settings)
    assert [event["unit_id"] for event in events] == [f"unit-{number:04d}" for number in range(1, UNITS + 1)]
    assert [event["seq"] for event in events] == list(range(1, UNITS + 1))
    assert [event["frame"]["trigger"] for event in events] == list(range(1, UNITS + 1))
    assert not [why for event in events if (why := misjudged(event))]


def test_systemd_is_told_ready_once_and_progress_and_a_line_for_people(start, settings):
    daemon = start(settings)
    daemon.wait_ready()
    before = [notice.text for notice in daemon.notices].index("READY=1")
    assert "engine: torchscript-fp32-cpu" in daemon.log(), "READY came before the engine was warm"
    assert any(notice.text.startswith("STATUS=warming up") for notice in daemon.notices[:before])
    wait_until(lambda: any("units:" in notice.text for notice in daemon.notices), 15, "a STATUS with counts")
    wait_until(lambda: any(notice.text == "WATCHDOG=1" for notice in daemon.notices[before:]), 15, "WATCHDOG=1")
    daemon.terminate()
    texts = [notice.text for notice in daemon.notices]
    assert texts.count("READY=1") == 1 and "STOPPING=1" in texts


def test_pictures_of_failed_units_are_on_disk_with_the_hash_that_the_event_says(start, settings):
    serve_all(start(settings), settings)
    failed = [event for event in inspections(settings) if event["verdict"] == "failed"]
    images = [image for event in failed for image in event["images"]]
    assert {image["role"] for image in images} == {"raw", "annotated"}
    for image in images:
        data = (settings["state"]["directory"] / "evidence" / image["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == image["sha256"] and len(data) == image["bytes"]
    passed = [event for event in inspections(settings) if event["verdict"] == "passed"]
    assert passed and not any(event["images"] for event in passed)


def test_a_second_run_begins_anew_and_trigger_numbers_and_seq_go_on(start, settings):
    for runs in (1, 2):
        serve_all(start(settings), settings, runs * UNITS)
    events = inspections(settings)
    assert [event["frame"]["trigger"] for event in events] == list(range(1, 2 * UNITS + 1))
    assert [event["seq"] for event in events] == list(range(1, 2 * UNITS + 1))
    assert len({event["epoch"] for event in events}) == 1 and len({event["boot_id"] for event in events}) == 2


def test_in_free_run_the_newest_frame_wins_and_every_other_one_is_counted(start, settings):
    camera = {
        "name": "web", "kind": "simulated", "mode": "free_run", "rate_hz": 100.0, "units": 400,
        "width_px": 192, "height_px": 192,
    }  # fmt: skip
    daemon = start(merged(settings, {"camera": [camera]}))
    daemon.wait_ready()
    [engine] = daemon.workers("engine")
    os.kill(engine, signal.SIGSTOP)  # on any machine slower than the line
    time.sleep(0.5)
    os.kill(engine, signal.SIGCONT)
    wait_until(lambda: "no more units" in daemon.log(), 60, "the end of the line")
    assert daemon.terminate() < 10
    events = inspections(settings)
    dropped = sum(event["frame"]["dropped_before"] for event in events)
    assert dropped > 0 and len(events) + dropped == 400, "every frame was inspected, or told as dropped"
    triggers = [event["frame"]["trigger"] for event in events]
    holes = [later - earlier - 1 for earlier, later in zip(triggers, triggers[1:])]
    assert holes == [event["frame"]["dropped_before"] for event in events[1:]]


def test_two_cameras_share_the_engine_and_each_counts_its_own_triggers(start, settings, tmp_path):
    bottom = {"name": "bottom", "kind": "replay", "path": write_pictures(tmp_path / "bottom", 7), "rate_hz": 15.0}
    settings = merged(settings, {"camera": [*settings["camera"], bottom]})
    serve_all(start(settings), settings, UNITS + 7)
    by_camera = {"top": [], "bottom": []}
    for event in inspections(settings):
        by_camera[event["frame"]["camera"]].append(event)
    assert [event["frame"]["trigger"] for event in by_camera["bottom"]] == list(range(1, 8))
    assert [event["frame"]["trigger"] for event in by_camera["top"]] == list(range(1, UNITS + 1))
    assert not [why for events in by_camera.values() for event in events if (why := misjudged(event))]


def test_a_unit_whose_engine_hangs_gets_its_error_before_the_deadline(start, settings):
    settings = merged(settings, {"inspection": {"deadline_ms": 400}, "model": {"hang_s": 1.0}})
    settings["camera"][0].update(loop=True, rate_hz=5.0)
    daemon = start(settings)
    daemon.wait_ready()
    wait_until(lambda: len(inspections(settings)) >= 3, 30, "units")
    os.kill(daemon.workers("engine")[0], signal.SIGSTOP)
    wait_until(lambda: any(event["verdict"] == "error" for event in inspections(settings)), 30, "an error verdict")
    stuck = len(inspections(settings))
    wait_until(lambda: [e["verdict"] for e in inspections(settings)[stuck:]].count("error") < len(
        inspections(settings)[stuck:]), 60, "inspecting again")  # fmt: skip
    daemon.terminate()
    errors = [event for event in inspections(settings) if event["verdict"] == "error"]
    assert {event["error"] for event in errors} <= {"deadline_exceeded", "engine_unavailable", "engine_failed"}
    assert all(event["timing_ms"]["capture_to_verdict"] <= 400 + 100 for event in errors), "100 ms for a noisy machine"


def test_a_stop_of_the_whole_service_lets_the_unit_in_the_engine_finish(start, settings):
    settings["camera"][0].update(loop=True, rate_hz=50.0)
    daemon = start(settings)
    daemon.wait_ready()
    wait_until(lambda: len(inspections(settings)) >= 5, 30, "units")
    for pid in workers_of(daemon.pid):
        os.kill(pid, signal.SIGTERM)  # as systemd does it without KillMode=mixed
    daemon.terminate()
    assert {event["verdict"] for event in inspections(settings)} <= {"passed", "failed", "aborted"}
    faults = [row.event for row in read_outbox(settings["state"]["directory"] / "outbox.db")]
    assert not [fault for fault in faults if fault.get("component", "").startswith(("engine", "camera"))]


def test_a_stuck_loop_gets_no_watchdog_sign(start, settings):
    """The daemon itself stopped: nothing speaks, and systemd would restart it."""
    daemon = start(settings)
    daemon.wait_ready()
    os.kill(daemon.pid, signal.SIGSTOP)
    time.sleep(1)
    count = len(daemon.notices)
    time.sleep(6)
    assert len(daemon.notices) == count
    os.kill(daemon.pid, signal.SIGCONT)
    daemon.terminate()


def run(settings, tmp_path, command="run"):
    config = write_config(tmp_path, settings)
    line = defectd(command, "--config", config)
    return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def test_cuda_where_there_is_none_refuses_to_start_and_says_what_was_found(settings, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    ended = run(merged(settings, {"model": {"device": "cuda"}}), tmp_path)
    assert ended.returncode == 3 and "CUDA" in ended.stderr


def test_the_fallback_to_the_cpu_is_a_published_fault(start, settings):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    settings = merged(settings, {"model": {"device": "auto"}})
    serve_all(start(settings), settings)
    faults = [row.event for row in read_outbox(settings["state"]["directory"] / "outbox.db")]
    assert ("engine", "cpu_fallback", "raised") in [(f.get("component"), f.get("code"), f.get("state")) for f in faults]


def test_check_prints_effective_settings_and_everything_that_is_wrong(settings, tmp_path):
    good = run(settings, tmp_path, "check")
    assert good.returncode == 0 and '"deadline_ms": 5000' in good.stdout
    wrong = merged(settings, {"model": {"path": tmp_path / "none.torchscript"}})
    wrong["camera"] = [{**settings["camera"][0], "path": tmp_path / "nowhere"}]
    bad = run(wrong, tmp_path, "check")
    assert bad.returncode == 2
    assert "model.path" in bad.stderr and "camera[1].path" in bad.stderr


def test_a_class_that_the_model_lacks_is_told_with_those_it_has(settings, tmp_path):
    wrong = merged(settings, {"inspection": {"defect": [{"class_name": "scratch", "code": "X"}]}})
    ended = run(wrong, tmp_path)
    assert ended.returncode == 2
    assert "no class 'scratch'; expected one of open, short, spur" in ended.stderr


def test_a_state_directory_that_is_a_file_is_told(settings, tmp_path):
    (tmp_path / "file").write_text("")
    ended = run(merged(settings, {"state": {"directory": tmp_path / "file"}}), tmp_path)
    assert ended.returncode == 2 and "state.directory" in ended.stderr
