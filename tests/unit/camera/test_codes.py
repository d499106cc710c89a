"""Codes on real pictures: labels stuck on boards of the simulated line."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")
pytest.importorskip("zxingcpp", reason="needs zxing-cpp: pip install 'defectd[codes]'")

import cv2

from defectd.camera.boards import BoardLine
from defectd.camera.codes import CodeReader, why_no_codes
from defectd.errors import CameraError
from support.codes import LOOKS_EVERYWHERE, label, stick

ALL = ["DataMatrix", "QRCode", "Code128"]


@pytest.fixture(scope="module")
def board():
    return BoardLine(7, 800, 640).board(3).image


@pytest.mark.parametrize("kind", ALL)
def test_the_code_on_a_board_is_the_units_name(board, kind):
    sticker = label("SN-00017", kind, 3)
    height, width = sticker.shape[:2]
    picture = stick(board, sticker, 60, 90)
    assert CodeReader(ALL, [40, 70, width + 40, height + 40]).read(picture) == ("SN-00017", "")


@pytest.mark.skipif(not LOOKS_EVERYWHERE, reason="zxing-cpp 2 finds a Data Matrix on the centre lines only")
def test_a_data_matrix_may_be_anywhere(board):
    assert CodeReader(ALL).read(stick(board, label("SN-00017"), 60, 90)) == ("SN-00017", "")


@pytest.mark.parametrize("degrees", [7, 90, 181, 268])
def test_a_code_may_lie_as_it_likes(board, degrees):
    turn = cv2.getRotationMatrix2D((400, 320), degrees, 1)
    turned = cv2.warpAffine(stick(board, label("SN-00017", module_px=5), 340, 260), turn, (800, 640))
    assert CodeReader(ALL).read(turned)[0] == "SN-00017"


def test_a_board_without_a_code_has_no_name(board):
    assert CodeReader(ALL).read(board) == (None, "no code was read")


def test_half_a_code_is_no_name(board):
    half = label("SN-00017", "QRCode")
    half[:, half.shape[1] // 2 :] = 255
    assert CodeReader(ALL).read(stick(board, half, 60, 90))[0] is None


def test_two_codes_name_nobody_and_both_are_told(board):
    both = stick(stick(board, label("SN-1", "QRCode"), 20, 20), label("SN-2", "Code128", 3), 300, 300)
    assert CodeReader(ALL).read(both) == (None, "2 codes were read, expected one: SN-1, SN-2")


def test_the_same_name_twice_is_one_name(board):
    both = stick(stick(board, label("SN-1", "QRCode"), 20, 20), label("SN-1", "Code128", 3), 300, 300)
    assert CodeReader(ALL).read(both)[0] == "SN-1"


def test_only_the_region_and_only_the_formats_count(board):
    both = stick(stick(board, label("SN-1", "QRCode"), 20, 20), label("SN-2", "Code128", 3), 300, 300)
    assert CodeReader(ALL, [280, 280, 500, 300]).read(both)[0] == "SN-2"
    assert CodeReader(["QRCode"]).read(both)[0] == "SN-1"
    assert CodeReader(ALL, [20, 400, 200, 240]).read(both)[0] is None


def test_a_region_outside_the_picture_says_so(board):
    assert CodeReader(ALL, [700, 0, 200, 100]).read(board) == (
        None,
        "camera.code.region = [700, 0, 200, 100] lies outside: the picture has 800x640 pixels",
    )


def test_a_name_has_a_bound(board):
    assert "expected 200 at most" in CodeReader(ALL).read(stick(board, label("x" * 201, "QRCode", 3), 20, 20))[1]


def test_the_picture_may_be_read_only(board):
    picture = stick(board, label("SN-1", "QRCode"), 20, 20)
    picture.flags.writeable = False
    assert CodeReader(ALL).read(picture)[0] == "SN-1"


def test_a_grey_picture_of_noise_has_no_name():
    noise = np.random.default_rng(3).integers(0, 256, (400, 400, 3), np.uint8)
    assert CodeReader(ALL).read(noise)[0] is None


def test_a_format_that_does_not_exist_is_the_configurations_mistake():
    with pytest.raises(CameraError, match=r"camera\.code\.formats: zxing-cpp does not know QR_Kode"):
        CodeReader(["QR_Kode"])


def test_without_zxing_the_message_says_what_to_install(monkeypatch):
    assert why_no_codes() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CameraError, match=r"pip install 'defectd\[codes\]'"):
        CodeReader(ALL)
