"""GenICam's pixel formats become BGR: a known picture as each sensor would send it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")

from defectd.camera.base import Undecodable
from defectd.camera.pixel_formats import FORMATS, ImageLayout, supported, write_bgr

NAMED = {each.name: each for each in FORMATS.values()}
BLUE, GREEN, RED = 40, 90, 200
WIDTH, HEIGHT = 32, 24


def converted(name, data, layout=None):
    target = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    write_bgr(np.frombuffer(data, np.uint8), NAMED[name], layout or ImageLayout(WIDTH, HEIGHT), target)
    return target


def mosaic(order):
    """A flat colour behind a Bayer filter; *order* is that of the first two pixels of the first row."""
    value = {"R": RED, "G": GREEN, "B": BLUE}
    below = {"RG": "GB", "GR": "BG", "BG": "GR", "GB": "RG"}[order]
    image = np.zeros((HEIGHT, WIDTH), np.uint16)
    for row, colours in enumerate((order, below)):
        for column, colour in enumerate(colours):
            image[row::2, column::2] = value[colour]
    return image


@pytest.mark.parametrize("order", ["RG", "GR", "BG", "GB"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_bayer_mosaic_gets_its_colours_whichever_pixel_comes_first(order, bits):
    raw = mosaic(order) << (bits - 8)
    found = converted(f"Bayer{order}{bits}", (raw.astype(np.uint8) if bits == 8 else raw.astype("<u2")).tobytes())
    assert (found == (BLUE, GREEN, RED)).all()


@pytest.mark.parametrize(
    ("name", "pixel"),
    [
        ("RGB8", (RED, GREEN, BLUE)),
        ("BGR8", (BLUE, GREEN, RED)),
        ("RGBa8", (RED, GREEN, BLUE, 255)),
        ("BGRa8", (BLUE, GREEN, RED, 255)),
    ],
)
def test_colours_come_in_any_order(name, pixel):
    assert (converted(name, bytes(pixel) * (WIDTH * HEIGHT)) == (BLUE, GREEN, RED)).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_grey_keeps_its_highest_bits(bits):
    raw = np.full((HEIGHT, WIDTH), 77 << (bits - 8), np.uint8 if bits == 8 else "<u2")
    assert (converted(f"Mono{bits}", raw.tobytes()) == 77).all()


def test_the_brightest_grey_of_a_deep_pixel_is_white():
    assert (converted("Mono10", np.full((HEIGHT, WIDTH), 1023, "<u2").tobytes()) == 255).all()


@pytest.mark.parametrize(
    ("name", "pair"), [("YUV422_8_UYVY", (128, 180, 128, 180)), ("YUV422_8", (180, 128, 180, 128))]
)
def test_colour_differences_of_grey_are_grey(name, pair):
    found = converted(name, bytes(pair) * (WIDTH * HEIGHT // 2))
    assert (found == found[0, 0, 0]).all() and 180 <= found[0, 0, 0] <= 195


def test_bytes_after_each_row_are_left_out():
    rows = np.full((HEIGHT, WIDTH + 4), 99, np.uint8)
    rows[:, WIDTH:] = 255
    layout = ImageLayout(WIDTH, HEIGHT, row_padding=4)
    assert (converted("Mono8", rows.tobytes(), layout) == 99).all()
    assert (converted("Mono8", rows.tobytes()[:-4], layout) == 99).all(), "the last row may lack them"


def test_too_few_bytes_are_no_picture():
    with pytest.raises(Undecodable, match="32x24 Mono8 are 768 bytes, 767 came"):
        converted("Mono8", bytes(WIDTH * HEIGHT - 1))


def test_numbers_are_those_of_the_naming_convention():
    """Bits 16 to 23 are the bits of a pixel in memory, 24 and up tell grey from colour."""
    for number, each in FORMATS.items():
        assert number >> 16 & 0xFF == 8 * each.bytes_per_pixel, each.name
        assert number >> 24 == (1 if each.channels == 1 else 2), each.name
    assert "BayerRG8" in supported() and NAMED["BayerRG8"] is FORMATS[0x01080009]
