"""Real camera workers that look at their pictures: unfit ones, codes, and units that only presence tells."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")

import cv2

from defectd.camera.boards import BoardLine
from support import camera_station, conveyor

HEALTH = {"after": 2, "reject": True}
CODE = {"formats": ["QRCode"], "region": None, "required": False}


@pytest.fixture
def station():
    stations = []

    def station(folder, rate_hz=100, **options):
        options = {"path": str(folder), "rate_hz": rate_hz, "loop": False, **options}
        stations.append(camera_station.station("replay", **options))
        return stations[-1]

    yield station
    for each in stations:
        each.feed.worker.stop()
        each.feed.worker.reap(2.0)


def ended(station):
    return station.ended


@pytest.fixture(scope="module")
def boards():
    line = BoardLine(7, 640, 480)
    return [line.board(unit).image for unit in range(1, 13)]


def save(folder, pictures):
    for index, picture in enumerate(pictures, 1):
        cv2.imwrite(str(folder / f"unit{index:02d}.png"), picture)


def test_blurred_pictures_are_error_units_and_a_fault_until_they_are_sharp_again(station, tmp_path, boards):
    save(tmp_path, [cv2.GaussianBlur(b, (0, 0), 2) if 4 <= i <= 7 else b for i, b in enumerate(boards, 1)])
    seen = station(tmp_path, health={**HEALTH, "min_focus": 200.0}).run(ended)
    assert seen.missed == dict.fromkeys((4, 5, 6, 7), "image_unfit")
    assert "expected min_focus = 200 or more" in seen.details[4]
    assert seen.faults == [("image_blurred", "begin"), ("image_blurred", "end")]
    assert sorted(seen.pictures) == [1, 2, 3, 8, 9, 10, 11, 12]


def test_without_reject_they_are_a_fault_and_are_judged(station, tmp_path, boards):
    save(tmp_path, [np.zeros_like(board) for board in boards])
    seen = station(tmp_path, health={"after": 3}).run(ended)
    assert seen.faults == [("image_black", "begin")] and len(seen.pictures) == 12 and not seen.missed


def test_a_lamp_that_fades_is_told_by_the_drift(station, tmp_path, boards):
    fading = [(boards[i % 12] * (1.0 if i < 16 else 0.7)).astype(np.uint8) for i in range(24)]
    save(tmp_path, fading)
    seen = station(tmp_path, health={"max_mean_drift": 15.0, "after": 3}).run(ended)
    assert seen.faults == [("image_drifted", "begin")] and not seen.missed


def test_the_name_that_a_code_gives_comes_before_the_picture(station, tmp_path, boards):
    pytest.importorskip("zxingcpp", reason="needs zxing-cpp: pip install 'defectd[codes]'")
    from support.codes import label, stick

    labelled = [stick(board, label(f"SN-{i}", "QRCode", 3), 30, 40) for i, board in enumerate(boards, 1)]
    labelled[4] = boards[4]
    save(tmp_path, labelled)
    seen = station(tmp_path, code=CODE).run(ended)
    assert seen.names == {number: f"SN-{number}" for number in range(1, 13) if number != 5}
    assert len(seen.pictures) == 12, "a unit without a code keeps the name that it has"


def test_where_a_code_is_required_a_unit_without_one_is_an_error(station, tmp_path, boards):
    pytest.importorskip("zxingcpp", reason="needs zxing-cpp: pip install 'defectd[codes]'")
    from support.codes import label, stick

    save(tmp_path, [stick(boards[0], label("SN-1", "QRCode", 3), 30, 40), boards[1]])
    seen = station(tmp_path, code={**CODE, "required": True}).run(ended)
    assert seen.missed == {2: "image_unfit"}
    assert seen.details[2] == "no code was read, and [camera.code] requires one"


def test_an_unfit_picture_with_a_code_still_names_its_unit(station, tmp_path, boards):
    pytest.importorskip("zxingcpp", reason="needs zxing-cpp: pip install 'defectd[codes]'")
    from support.codes import label, stick

    save(tmp_path, [stick(boards[0], label("SN-1", "QRCode", 3), 30, 40)])
    seen = station(tmp_path, code=CODE, health={**HEALTH, "min_focus": 1e6}).run(ended)
    assert seen.names == {1: "SN-1"} and seen.missed == {1: "image_unfit"}


def test_a_worker_that_cannot_read_codes_says_so_and_stays_away(station, tmp_path, boards):
    pytest.importorskip("zxingcpp", reason="needs zxing-cpp: pip install 'defectd[codes]'")
    save(tmp_path, boards[:1])
    seen = station(tmp_path, code={**CODE, "formats": ["Clay"]}).run(lambda s: s.deaths)
    assert seen.deaths[0].fatal_code == "unusable" and "does not know Clay" in seen.deaths[0].fatal_detail


def test_each_board_on_a_belt_is_one_unit_with_the_picture_where_it_stood_still(station, tmp_path):
    passing = conveyor.boards(6)
    conveyor.film(tmp_path, passing)
    seen = station(tmp_path, rate_hz=200, presence={}).run(ended)
    assert [unit.unit_id for unit in seen.units.values()] == [f"top-{number:08d}" for number in range(1, 7)]
    x, y = conveyor.BOARD_X, conveyor.BOARD_Y
    for number, board in enumerate(passing, 1):
        difference = np.abs(seen.pictures[number][y : y + 200, x : x + 200].astype(int) - board)
        assert difference.max() < 20, "the board is where it stops, and it is this one"


def test_boards_that_do_not_stop_are_owed_a_verdict(station, tmp_path):
    conveyor.film(tmp_path, conveyor.boards(3), stop_frames=1)
    seen = station(tmp_path, rate_hz=200, presence={}).run(ended)
    assert seen.missed == dict.fromkeys((1, 2, 3), "frame_missing")


def test_a_camera_that_stands_still_is_frozen_though_no_unit_comes(station, tmp_path):
    for index in range(12):
        cv2.imwrite(str(tmp_path / f"frame{index:02d}.png"), np.full((48, 64, 3), 7, np.uint8))
    seen = station(tmp_path, frozen_after=5, presence={}).run(ended)
    assert seen.faults == [("camera_frozen", "begin")] and not seen.units


def test_a_worker_that_is_killed_while_a_board_is_there_knows_the_belt_again(station, tmp_path):
    background, board = tmp_path / "presence-top.npy", conveyor.boards(1)[0]
    frames = conveyor.film(tmp_path / "frames", [board])
    station(frames, rate_hz=200, presence={"background": str(background)}).run(ended)
    standing = tmp_path / "standing"
    standing.mkdir()
    noise = np.random.default_rng(2)
    for index in range(40):
        there = index < 10 or 20 <= index < 30
        cv2.imwrite(
            str(standing / f"{index:02d}.png"), conveyor.belt(noise, board if there else None, conveyor.BOARD_X)
        )
    seen = station(standing, rate_hz=100, presence={"background": str(background)}).run(ended)
    assert sorted(seen.pictures) == [1, 2] and not seen.missed
    assert all(seen.pictures[number][150, 200].tolist() != [150, 150, 150] for number in (1, 2))


def test_a_region_outside_the_picture_stops_the_worker_and_says_why(station, tmp_path):
    conveyor.film(tmp_path, conveyor.boards(1))
    seen = station(tmp_path, presence={"region": [300, 0, 200, 100]}).run(lambda s: s.deaths)
    assert seen.deaths[0].fatal_code == "unusable"
    assert "camera.presence.region = [300, 0, 200, 100] lies outside" in seen.deaths[0].fatal_detail


def test_after_a_kill_the_numbers_go_on(station, tmp_path):
    conveyor.film(tmp_path, conveyor.boards(8))
    seen = station(tmp_path, rate_hz=60, presence={}, loop=True).run(lambda s: len(s.pictures) == 2)
    os.kill(seen.feed.worker.pid, signal.SIGKILL)
    seen.run(lambda s: len(s.pictures) >= 5)
    assert sorted(seen.units)[:5] == [1, 2, 3, 4, 5]
