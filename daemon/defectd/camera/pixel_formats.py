"""What GenICam cameras send, as the BGR picture that everything else works with.

Names and numbers are those of the GenICam Pixel Format Naming Convention. OpenCV's older Bayer names (`BayerBG2BGR`)
start at the second row and column; those used here start at the first, as GenICam's do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from defectd.camera.base import Pixels, Undecodable


@dataclass(frozen=True)
class PixelFormat:
    """How a pixel lies in memory: *channels* of 8 or 16 bits each, of which *bits* carry light. *conversion* is
    OpenCV's code to BGR; None if it is BGR already."""

    name: str
    channels: int
    bits: int
    conversion: int | None

    @property
    def bytes_per_pixel(self) -> int:
        """Of memory."""
        return self.channels * (1 if self.bits == 8 else 2)


@dataclass(frozen=True)
class ImageLayout:
    """Size of an image, and how many unused bytes follow each row."""

    width_px: int
    height_px: int
    row_padding: int = 0


_BAYER = {
    "GR": cv2.COLOR_BayerGRBG2BGR,
    "RG": cv2.COLOR_BayerRGGB2BGR,
    "GB": cv2.COLOR_BayerGBRG2BGR,
    "BG": cv2.COLOR_BayerBGGR2BGR,
}
_FIRST_BAYER = {8: 0x01080008, 10: 0x0110000C, 12: 0x01100010, 16: 0x0110002E}  # followed by RG, GB, BG

FORMATS = {
    0x01080001: PixelFormat("Mono8", 1, 8, cv2.COLOR_GRAY2BGR),
    0x01100003: PixelFormat("Mono10", 1, 10, cv2.COLOR_GRAY2BGR),
    0x01100005: PixelFormat("Mono12", 1, 12, cv2.COLOR_GRAY2BGR),
    0x01100007: PixelFormat("Mono16", 1, 16, cv2.COLOR_GRAY2BGR),
    0x02180014: PixelFormat("RGB8", 3, 8, cv2.COLOR_RGB2BGR),
    0x02180015: PixelFormat("BGR8", 3, 8, None),
    0x02200016: PixelFormat("RGBa8", 4, 8, cv2.COLOR_RGBA2BGR),
    0x02200017: PixelFormat("BGRa8", 4, 8, cv2.COLOR_BGRA2BGR),
    0x0210001F: PixelFormat("YUV422_8_UYVY", 2, 8, cv2.COLOR_YUV2BGR_UYVY),
    0x02100032: PixelFormat("YUV422_8", 2, 8, cv2.COLOR_YUV2BGR_YUYV),
    **{
        first + place: PixelFormat(f"Bayer{order}{bits}", 1, bits, code)
        for bits, first in _FIRST_BAYER.items()
        for place, (order, code) in enumerate(_BAYER.items())
    },
}
"""By GenICam's number."""


def supported() -> str:
    """Their names, for people."""
    return ", ".join(sorted(each.name for each in FORMATS.values()))


def write_bgr(data: Pixels, pixel_format: PixelFormat, layout: ImageLayout, target: Pixels) -> None:
    """Convert *data* (flat bytes, as they came) into *target*, (height, width, 3) BGR. Deeper pixels lose their lowest
    bits. Raises Undecodable if there are too few bytes, or the size is not one that the format can have."""
    width, height = layout.width_px, layout.height_px
    row_bytes = width * pixel_format.bytes_per_pixel
    stride = row_bytes + layout.row_padding
    needed = stride * height - layout.row_padding
    if data.size < needed:
        raise Undecodable(f"{width}x{height} {pixel_format.name} are {needed} bytes, {data.size} came")
    shape, strides = (height, width, pixel_format.channels), (stride, pixel_format.bytes_per_pixel, 1)
    image: Any
    if pixel_format.bits == 8:
        image = np.lib.stride_tricks.as_strided(data, shape, strides, writeable=False)
    else:
        words = np.lib.stride_tricks.as_strided(data[:needed].view("<u2"), shape, (stride, 2, 2), writeable=False)
        image = cv2.convertScaleAbs(words[:, :, 0], alpha=2.0 ** (8 - pixel_format.bits))
    if pixel_format.conversion is None:
        np.copyto(target, image)
        return
    try:
        cv2.cvtColor(image, pixel_format.conversion, dst=target)
    except cv2.error as error:
        raise Undecodable(f"{width}x{height} {pixel_format.name}: {error}") from error
