"""The simulated line's boards: repeatable, plausible, and honest about where their defects are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("cv2")

from defectd.camera.boards import CLASS_NAMES, Board, BoardLine


@pytest.fixture(scope="module")
def line() -> BoardLine:
    return BoardLine(seed=7)


@pytest.fixture(scope="module")
def boards(line: BoardLine) -> list[Board]:
    return [line.board(unit) for unit in range(1, 121)]


def test_a_board_is_a_colour_picture_of_the_size_that_was_asked_for() -> None:
    image = BoardLine(3, width_px=400, height_px=300).board(1).image
    assert image.shape == (300, 400, 3)
    assert image.dtype == np.uint8


def test_the_same_unit_of_another_line_of_the_same_seed_is_the_same_to_the_pixel(boards: list[Board]) -> None:
    alone = BoardLine(seed=7).board(100)
    assert np.array_equal(alone.image, boards[99].image)
    assert alone.defects == boards[99].defects


def test_asking_for_other_units_first_changes_nothing(line: BoardLine, boards: list[Board]) -> None:
    for unit in (55, 3, 90):
        assert np.array_equal(line.board(unit).image, boards[unit - 1].image)


def test_no_two_units_look_the_same(boards: list[Board]) -> None:
    assert len({board.image.tobytes() for board in boards}) == len(boards)


def test_another_seed_is_another_layout(boards: list[Board]) -> None:
    other = BoardLine(seed=8, defect_rate=0.0).board(1).image
    assert np.abs(other.astype(int) - boards[0].image).mean() > 10


def test_a_little_less_than_half_of_the_units_are_defective(line: BoardLine) -> None:
    share = np.mean([bool(line.board(unit).defects) for unit in range(400)])
    assert 0.38 < share < 0.52


def test_a_defective_unit_has_one_to_three_defects(boards: list[Board]) -> None:
    counts = Counter(len(board.defects) for board in boards)
    assert set(counts) == {0, 1, 2, 3}


def test_a_rate_of_zero_gives_only_good_units_and_a_rate_of_one_none() -> None:
    good, bad = BoardLine(5, defect_rate=0.0), BoardLine(5, defect_rate=1.0)
    assert not any(good.board(unit).defects for unit in range(20))
    assert all(bad.board(unit).defects for unit in range(20))


def test_every_kind_of_defect_occurs_and_goes_by_its_name(boards: list[Board]) -> None:
    defects = [defect for board in boards for defect in board.defects]
    assert {defect.class_id for defect in defects} == set(range(6))
    assert all(defect.class_name == CLASS_NAMES[defect.class_id] for defect in defects)


def test_every_box_lies_inside_the_picture_and_is_not_tiny(boards: list[Board]) -> None:
    for defect in (defect for board in boards for defect in board.defects):
        x, y, width, height = defect.xywh_px
        assert x >= 0
        assert y >= 0
        assert x + width <= 640
        assert y + height <= 512
        assert min(width, height) >= 12


def test_a_defect_changes_the_pixels_in_its_box_and_none_outside(boards: list[Board]) -> None:
    good = BoardLine(seed=7, defect_rate=0.0)
    for board in boards[:40]:
        difference = np.abs(board.image.astype(int) - good.board(board.unit_number).image).max(axis=2)
        for defect in board.defects:
            x, y, width, height = (round(value) for value in defect.xywh_px)
            part = difference[y : y + height, x : x + width]
            assert (part > 30).sum() >= 8, defect
            part[:] = 0
        assert difference.max() <= 4, board.unit_number  # nothing else moved: same light, same noise, same pose


def test_boxes_follow_the_shift_and_the_tilt_of_the_unit(boards: list[Board]) -> None:
    good = BoardLine(seed=7, defect_rate=0.0)
    for defect, unit in ((d, b.unit_number) for b in boards for d in b.defects):
        if len(boards[unit - 1].defects) > 1:
            continue
        difference = np.abs(boards[unit - 1].image.astype(int) - good.board(unit).image).max(axis=2)
        rows, columns = np.nonzero(difference > 20)
        x, y, width, height = defect.xywh_px
        assert abs(columns.mean() - (x + width / 2)) < 4
        assert abs(rows.mean() - (y + height / 2)) < 4


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63, 2**70 + 1])
@pytest.mark.parametrize("unit_number", [0, 1, 2**31, 2**64, 10**30])
def test_any_seed_and_any_unit_number_will_do(seed: int, unit_number: int) -> None:
    board = BoardLine(seed, width_px=256, height_px=224, defect_rate=1.0).board(unit_number)
    assert board.unit_number == unit_number


@pytest.mark.parametrize("size", [(192, 192), (320, 192), (192, 640), (1280, 960)])
def test_small_and_large_pictures_have_boards_too(size: tuple[int, int]) -> None:
    assert BoardLine(1, *size).board(1).image.shape == (size[1], size[0], 3)


def test_a_picture_too_small_for_a_board_is_refused() -> None:
    with pytest.raises(ValueError, match="192"):
        BoardLine(1, width_px=100, height_px=100)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="defect_rate"):
        BoardLine(1, defect_rate=rate)


def test_the_picture_of_a_unit_may_be_changed_without_harm_to_the_next(line: BoardLine) -> None:
    first = line.board(2).image
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(line.board(2).image, kept)
