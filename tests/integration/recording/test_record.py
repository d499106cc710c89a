"""`defectd record` as a person runs it: its own process, a real camera worker, real files; and the replay of them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess

import numpy as np
import pytest

from defectd.camera.recorded import INDEX, read_recording
from defectd.camera.replay import ReplaySource
from defectd.errors import CameraError
from support.station import defectd, environment, wait_until, write_config

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")

LINE = {"name": "top", "kind": "simulated", "rate_hz": 20.0, "width_px": 256, "height_px": 192, "max_pixels": 256 * 192}
RAW_BYTES = 256 * 192 * 3


@pytest.fixture
def config(tmp_path):
    def config(**camera):
        return write_config(
            tmp_path,
            {
                "station": {"site": "s", "area": "a", "line": "l", "station": "aoi1"},
                "model": {"path": "unused.torchscript"},
                "state": {"directory": str(tmp_path / "state")},
                "inspection": {"defect": [{"class_name": "open", "code": "OPEN"}]},
                "camera": [{**LINE, **camera}],
            },
        )

    return config


def command(config, out, *arguments):
    return defectd("record", "--config", config, "--camera", "top", "--out", out, *map(str, arguments))


def record(config, out, *arguments):
    return subprocess.run(
        command(config, out, *arguments), env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


def replayed(folder, **changes):
    """[(Arrival, picture or None)] of the whole folder, as a camera worker has them."""
    settings = {"rate_hz": 1000.0, "loop": False, "first": 1, "number": 1, **changes}
    source, found = ReplaySource(folder, **settings), []
    for number in range(1, len(read_recording(folder)) + 1):
        arrival, pictures = source.wait(number, 5.0), []

        def allocate(height_px, width_px, pictures=pictures):
            pictures.append(np.zeros((height_px, width_px, 3), np.uint8))
            return pictures[-1]

        if arrival.lost is None:
            source.fetch(allocate)
        found.append((arrival, pictures[0] if pictures else None))
    return found


@pytest.mark.parametrize("ending", ["bmp", "png"])
def test_a_recording_has_every_picture_without_loss_and_is_replayed_with_its_ids(config, tmp_path, ending):
    from defectd.camera.boards import BoardLine

    done = record(config(units=6), tmp_path / "out", "--format", ending)
    assert done.returncode == 0, done.stderr
    assert "6 picture(s)" in done.stdout and "no more units" in done.stdout
    line = BoardLine(7, 256, 192, 0.45)
    for number, (arrival, picture) in enumerate(replayed(tmp_path / "out"), 1):
        assert (arrival.unit_id, arrival.frame_id) == (f"board-{number:08d}", number)
        assert np.array_equal(picture, line.board(number).image)


def test_the_header_says_what_was_recorded(config, tmp_path):
    record(config(units=1), tmp_path / "out")
    header = json.loads((tmp_path / "out" / INDEX).read_text().splitlines()[0])
    assert header["format"] == "defectd.recording/1" and header["station"] == "aoi1"
    assert header["camera"]["name"] == "top" and header["camera"]["rate_hz"] == 20.0


def test_the_recorded_rhythm_is_the_rhythm_of_the_replay(config, tmp_path):
    record(config(units=5, rate_hz=8.0), tmp_path / "out")
    arrivals = [arrival.captured_ns / 1e6 for arrival, _ in replayed(tmp_path / "out", pace="recorded")]
    offsets = [unit.offset_ms for unit in read_recording(tmp_path / "out")]
    assert arrivals[4] - arrivals[1] >= offsets[4] - offsets[1] - 30 > 250


@pytest.mark.parametrize(
    ("bound", "said"), [(("--frames", 3), "3 pictures were asked for"), (("--seconds", 0.5), "0.5 s were asked for")]
)
def test_it_ends_where_it_was_told_to(config, tmp_path, bound, said):
    done = record(config(), tmp_path / "out", *bound)
    assert said in done.stdout, done.stderr
    units = read_recording(tmp_path / "out")
    assert 1 <= len(units) <= 12 and all(unit.file for unit in units)
    if bound[0] == "--frames":
        assert len(units) == 3


def test_it_never_takes_more_room_than_it_may(config, tmp_path):
    done = record(config(), tmp_path / "out", "--max-mb", 5 * RAW_BYTES / 1e6)
    assert "would exceed" in done.stdout
    taken = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert 3 * RAW_BYTES < taken <= 5 * RAW_BYTES


def begun(process, out):
    wait_until(lambda: process.poll() is not None or len(list(out.glob("*.bmp"))) >= 3, 30, "three pictures")
    assert process.poll() is None, process.communicate()[1]


def start(config, out):
    return subprocess.Popen(
        command(config, out), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_ctrl_c_ends_it_cleanly(config, tmp_path):
    out = tmp_path / "out"
    process = start(config(), out)
    begun(process, out)
    process.send_signal(signal.SIGINT)
    said, complaints = process.communicate(timeout=20)
    assert process.returncode == 0 and "stopped" in said, complaints
    units = read_recording(out)
    assert {unit.file for unit in units} == {file.name for file in out.iterdir()} - {INDEX}
    assert [unit.trigger for unit in units] == list(range(1, len(units) + 1))


def test_after_kill_minus_nine_what_has_its_name_is_whole_and_can_be_replayed(config, tmp_path):
    out = tmp_path / "out"
    process = start(config(), out)
    begun(process, out)
    process.kill()
    process.communicate()
    sizes = {file.stat().st_size for file in out.glob("*.bmp")}
    assert len(sizes) == 1, "every picture has all its bytes"
    assert all(picture.shape == (192, 256, 3) for _, picture in replayed(out))


def test_units_that_passed_while_the_camera_worker_was_dead_are_in_the_index_without_a_picture(config, tmp_path):
    out = tmp_path / "out"
    process = start(config(units=40), out)
    begun(process, out)
    children = subprocess.check_output(["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], text=True)
    (worker,) = [int(line.split()[0]) for line in children.splitlines() if "defectd.camera.worker" in line]
    os.kill(worker, signal.SIGKILL)
    said, complaints = process.communicate(timeout=30)
    assert "camera_lost" in said and "signal_9" in complaints
    units = read_recording(out)
    assert [unit.trigger for unit in units] == list(range(1, 41)), "every board is accounted for"
    lost = [arrival.unit_id for arrival, picture in replayed(out) if picture is None]
    assert lost == [unit.unit_id for unit in units if unit.lost == "camera_lost"] != []


def test_a_folder_that_is_not_empty_is_left_alone(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dear.txt").write_text("mine")
    done = record(config(), tmp_path / "out")
    assert done.returncode == 4 and "is not empty" in done.stderr


def test_a_camera_that_is_not_configured_is_named_with_those_that_are(config, tmp_path):
    arguments = ["record", "--config", config(), "--camera", "side", "--out", tmp_path / "out"]
    done = subprocess.run(defectd(*arguments), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "got 'side', expected one of top" in done.stderr


def test_a_running_daemon_that_holds_the_device_is_named(config, tmp_path):
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        camera = {"kind": "opencv", "source": 0, **dict.fromkeys(("width_px", "height_px"), 64)}
        done = record(config(**camera), tmp_path / "out")
    assert done.returncode == 3 and f"a daemon (process {os.getpid()}) runs" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_camera_that_never_can_deliver_is_an_error_in_its_own_words(config, tmp_path):
    camera = {"kind": "replay", "path": "none", "width_px": None, "height_px": None}
    done = record(config(**camera), tmp_path / "out")
    assert done.returncode == 3 and "none: does not exist" in done.stderr


def test_pictures_that_the_station_would_reject_are_recorded_all_the_same(config, tmp_path):
    unfit = {"health": {"min_focus": 1e9, "reject": True, "after": 1}, "frozen_after": 2}
    record(config(units=4, defect_rate=0.0, **unfit), tmp_path / "out")
    assert [unit.lost for unit in read_recording(tmp_path / "out")] == [None] * 4


def test_a_camera_that_waits_for_messages_is_told_to_shoot(config, tmp_path):
    done = record(config(trigger="message"), tmp_path / "out", "--frames", 4, "--every-ms", 100)
    units = read_recording(tmp_path / "out")
    assert len(units) == 4, done.stderr
    assert [unit.unit_id for unit in units] == [f"top-{number:08d}" for number in range(1, 5)]
    assert units[-1].offset_ms > 250


def test_a_full_disk_is_said_and_what_was_written_is_whole(config, tmp_path):
    out = tmp_path / "small"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(out)], check=False)
    if mounted.returncode != 0:
        pytest.skip("may not mount a small disk here")
    try:
        done = record(config(), out)
        assert "of the disk free" in done.stdout, done.stderr
        assert all(picture is not None for _, picture in replayed(out))
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_the_recorded_rhythm_needs_a_recording(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(CameraError, match=r"no recording\.jsonl"):
        ReplaySource(tmp_path, 4.0, False, 1, 1, "recorded")


def test_a_replay_that_is_told_to_shoot_gives_the_next_picture_at_once(config, tmp_path):
    record(config(units=3), tmp_path / "out")
    source = ReplaySource(tmp_path / "out", 0.001, False, 1, 1)
    source.wait(1, 1.0)
    source.shoot()
    assert source.wait(2, 1.0).unit_id == "board-00000002"
    source.idle()
    assert source.wait(3, 0.01) is None
