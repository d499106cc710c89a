"""Real camera workers over a real ring: folders, videos, the simulated line, and what is wrong with files."""

from __future__ import annotations

import os
import signal
import struct
import time
import zlib

import numpy as np
import pytest

from support import camera_station

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")


@pytest.fixture
def station():
    stations = []

    def station(kind, **options):
        stations.append(camera_station.station(kind, **options))
        return stations[-1]

    yield station
    for each in stations:
        each.feed.worker.stop()
        each.feed.worker.reap(2.0)


@pytest.fixture
def folder(tmp_path):
    """Six pictures, each a flat grey of its own."""
    for index in range(6):
        cv2.imwrite(str(tmp_path / f"unit{index}.png"), np.full((48, 64, 3), 10 * index, np.uint8))
    return tmp_path


def ended(station):
    return station.ended


def test_a_folder_gives_each_picture_once_in_the_order_of_names(station, folder):
    seen = station("replay", path=str(folder), rate_hz=200, loop=False).run(ended)
    assert [seen.units[number].unit_id for number in range(1, 7)] == [f"unit{index}" for index in range(6)]
    assert [int(seen.pictures[number][0, 0, 0]) for number in range(1, 7)] == [0, 10, 20, 30, 40, 50]


def test_units_come_at_the_rate_of_the_line(station, folder):
    seen = station("replay", path=str(folder), rate_hz=10, loop=False).run(ended)
    captured = [seen.units[number].captured_ns for number in range(1, 7)]
    assert captured[-1] - captured[0] >= 0.49e9


def test_a_loop_begins_again_and_trigger_numbers_go_on(station, folder):
    seen = station("replay", path=str(folder), rate_hz=200, loop=True).run(lambda s: 14 in s.pictures)
    assert [seen.units[number].unit_id for number in (6, 7, 13)] == ["unit5", "unit0", "unit0"]


def test_a_new_worker_goes_on_where_the_killed_one_was(station, folder):
    seen = station("replay", path=str(folder), rate_hz=20, loop=False).run(lambda s: 2 in s.pictures)
    os.kill(seen.feed.worker.pid, signal.SIGKILL)
    seen.run(ended)
    assert sorted(seen.units) == [1, 2, 3, 4, 5, 6]
    assert [death.reason for death in seen.deaths] == ["signal_9"]


def test_a_worker_that_blocks_is_killed_and_the_next_one_goes_on(station, folder):
    seen = station("replay", path=str(folder), rate_hz=20, loop=False, stall_s=0.7).run(lambda s: 2 in s.pictures)
    os.kill(seen.feed.worker.pid, signal.SIGSTOP)
    seen.run(ended)
    assert sorted(seen.units) == [1, 2, 3, 4, 5, 6] and seen.deaths[0].reason == "silent"


def png_header(side_px):
    """A PNG that announces a picture of absurd size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n and no more", b"hello", png_header(60_000)])
def test_a_file_that_is_no_picture_is_a_missed_unit_and_the_next_one_comes(station, folder, content):
    (folder / "unit2.png").write_bytes(content)
    seen = station("replay", path=str(folder), rate_hz=200, loop=False).run(ended)
    assert seen.missed == {3: "frame_undecodable"} and sorted(seen.pictures) == [1, 2, 4, 5, 6]


def test_half_a_jpeg_is_no_picture(station, folder):
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    (folder / "unit2.png").unlink()
    (folder / "unit2.jpg").write_bytes(data[: len(data) // 2])
    (folder / "unit3.png").unlink()
    (folder / "unit3.jpg").write_bytes(data + b"\0" * 100)
    seen = station("replay", path=str(folder), rate_hz=200, loop=False).run(ended)
    assert seen.missed == {3: "frame_undecodable"} and 4 in seen.pictures


def test_a_file_whose_name_is_not_utf8_is_a_unit_like_any_other(station, folder):
    os.rename(folder / "unit2.png", os.fsencode(str(folder)) + b"/unit2-\xff.png")
    seen = station("replay", path=str(folder), rate_hz=200, loop=False).run(ended)
    assert seen.units[3].unit_id == "unit2-\\udcff" and sorted(seen.pictures) == [1, 2, 3, 4, 5, 6]


def test_a_loop_that_is_entered_late_goes_on_at_the_right_picture(station, folder):
    seen = station("replay", path=str(folder), rate_hz=200, loop=True, first=1, next_trigger=9)
    seen.run(lambda s: 16 in s.pictures)
    assert [seen.units[number].unit_id for number in (9, 12, 13)] == ["unit2", "unit5", "unit0"]


def test_pictures_may_have_different_sizes(station, folder):
    cv2.imwrite(str(folder / "unit1.png"), np.full((480, 640, 3), 99, np.uint8))
    seen = station("replay", path=str(folder), rate_hz=200, loop=False).run(ended)
    assert seen.pictures[2].shape == (480, 640, 3) and seen.pictures[3].shape == (48, 64, 3)


def test_a_picture_larger_than_a_slot_is_missed_and_says_so(station, folder):
    cv2.imwrite(str(folder / "unit1.png"), np.zeros((481, 640, 3), np.uint8))
    seen = station("replay", path=str(folder), rate_hz=200, loop=False).run(ended)
    assert seen.missed == {2: "frame_too_large"}


def test_a_picture_that_stands_still_is_a_fault_until_it_changes(station, folder):
    for index in (1, 2, 3):
        cv2.imwrite(str(folder / f"unit{index}.png"), np.full((48, 64, 3), 7, np.uint8))
    seen = station("replay", path=str(folder), rate_hz=200, loop=False, frozen_after=3).run(ended)
    assert seen.missed == {4: "frame_frozen"}
    assert seen.faults == [("camera_frozen", "begin"), ("camera_frozen", "end")]


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    return path


def test_a_video_that_ends_leaves_an_idle_camera(station, video):
    seen = station("replay", path=str(video), rate_hz=200, loop=False).run(ended)
    assert [unit.unit_id for unit in seen.units.values()] == [f"line-{index:06d}" for index in range(5)]
    assert abs(int(seen.pictures[5][0, 0, 0]) - 160) < 6
    time.sleep(1.2)
    seen.run(lambda s: True)
    assert seen.feed.worker.ready and not seen.deaths


def test_a_video_can_loop_and_be_entered_in_the_middle(station, video):
    seen = station("replay", path=str(video), rate_hz=200, loop=True, first=11, next_trigger=13)
    seen.run(lambda s: 17 in s.pictures)
    assert [seen.units[number].unit_id for number in (13, 15, 16)] == ["line-000002", "line-000004", "line-000000"]


def test_opencv_reads_a_file_to_its_end(station, video):
    seen = station("opencv", source=str(video), width_px=None, height_px=None, rate_hz=50)
    seen.run(ended)
    assert seen.units[2].unit_id == "top-00000002"
    assert [seen.units[number].captured_ns > 0 for number in range(1, 6)] == [True] * 5
    assert seen.pictures[1].shape == (48, 64, 3)


def test_a_camera_that_is_not_there_is_a_fault_and_is_tried_again(station, tmp_path):
    path = tmp_path / "later.avi"
    seen = station("opencv", source=str(path), width_px=None, height_px=None, rate_hz=None)
    seen.run(lambda s: s.faults)
    assert seen.faults == [("camera_lost", "begin")] and not seen.feed.worker.ready and not seen.deaths


def test_a_replay_without_its_folder_cannot_work_and_says_why(station, tmp_path):
    seen = station("replay", path=str(tmp_path / "none"), rate_hz=4, loop=False).run(lambda s: s.deaths)
    assert seen.deaths[0].fatal_code == "unusable" and "does not exist" in seen.deaths[0].fatal_detail


def test_an_empty_folder_cannot_work_and_says_what_was_expected(station, tmp_path):
    seen = station("replay", path=str(tmp_path), rate_hz=4, loop=False).run(lambda s: s.deaths)
    assert "no pictures; expected files ending in" in seen.deaths[0].fatal_detail


LINE = {"rate_hz": 20.0, "units": 30, "seed": 3, "width_px": 256, "height_px": 192, "defect_rate": 0.5}


def test_the_line_waits_for_nobody_units_that_pass_while_the_worker_is_dead_are_lost_and_said_so(station):
    seen = station("simulated", **LINE).run(lambda s: 3 in s.pictures)
    os.kill(seen.feed.worker.pid, signal.SIGKILL)
    seen.run(ended)
    assert sorted(seen.units) == list(range(1, 31)), "every board has a trigger"
    assert set(seen.missed.values()) == {"camera_lost"}
    assert sorted([*seen.missed, *seen.pictures]) == sorted(seen.units)


def test_a_line_without_a_free_slot_says_overrun_for_each_unit(station):
    seen = station("simulated", **{**LINE, "units": 6})
    seen.feed.grant = lambda units_in_flight: None
    seen.run(ended)
    assert seen.missed == dict.fromkeys(range(1, 7), "camera_overrun")
