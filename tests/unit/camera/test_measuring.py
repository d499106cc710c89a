"""Measures of real pictures: boards of the simulated line, spoilt in the ways a station spoils them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")

import cv2

from defectd.camera.boards import BoardLine
from defectd.camera.measuring import measure

SIZES = [(640, 512), (1920, 1080)]


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def boards(request):
    line = BoardLine(11, *request.param)
    return [line.board(unit).image for unit in range(1, 6)]


def test_the_units_of_one_line_are_equally_sharp(boards):
    focus = [measure(board).focus for board in boards]
    assert max(focus) < 1.5 * min(focus)


@pytest.mark.parametrize("sigma_px", [0.7, 1.5, 4.0])
def test_a_blur_of_a_pixel_is_seen_at_every_size(boards, sigma_px):
    sharp = min(measure(board).focus for board in boards)
    assert all(measure(cv2.GaussianBlur(board, (0, 0), sigma_px)).focus < 0.5 * sharp for board in boards)


@pytest.mark.parametrize("kernel", [(9, 1), (1, 9)], ids=["across", "along"])
def test_motion_blurs_in_either_direction(boards, kernel):
    sharp = min(measure(board).focus for board in boards)
    assert all(measure(cv2.blur(board, kernel)).focus < 0.5 * sharp for board in boards)


def test_light_that_is_halved_shows_in_the_mean(boards):
    for board in boards:
        before, after = measure(board), measure((board * 0.5).astype(np.uint8))
        assert after.mean == pytest.approx(before.mean / 2, abs=1.0) and after.dark_share >= before.dark_share


def test_too_much_light_clips(boards):
    for board in boards:
        before, after = measure(board), measure(cv2.convertScaleAbs(board, alpha=4.0))
        assert before.clipped_share < 0.02 and after.clipped_share > 0.2


def test_one_colour_alone_can_clip():
    red = np.zeros((100, 100, 3), np.uint8)
    red[..., 2] = 255
    assert measure(red).clipped_share == 1.0 and measure(red).dark_share == 0.0


def test_the_noise_of_a_covered_sensor_is_black():
    noise = np.random.default_rng(5).normal(3, 2, (480, 640, 3)).clip(0, 255).astype(np.uint8)
    assert measure(noise).dark_share > 0.999


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (17, 2), (130, 2000)])
def test_a_picture_of_any_shape_can_be_measured(shape):
    measured = measure(np.full((*shape, 3), 128, np.uint8))
    assert measured.focus == pytest.approx(0.0, abs=1e-6) and measured.mean == pytest.approx(128.0, abs=0.01)
