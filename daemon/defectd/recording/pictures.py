"""One picture to one file, without loss.

A BMP is the picture as it lies in memory behind 54 bytes, so that it is written from the frame ring without a copy.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from defectd.storage import write_durably

_HEADER = struct.Struct("<2sIHHIIiiHHIIiiII")  # BITMAPFILEHEADER and BITMAPINFOHEADER
_INFO_BYTES, _BITS = 40, 24


def bytes_at_most(width_px: int, height_px: int) -> int:
    """What a picture takes on disk if it cannot be compressed at all."""
    pixels = (width_px + 1) * height_px * 3
    return pixels + pixels // 500 + 4096


def save(path: Path, pixels: NDArray[np.uint8]) -> int:
    """Write the (H, W, 3) BGR picture as *path* says; the file is whole or not there. The bytes it takes. Raises
    OSError."""
    parts = _bmp(pixels) if path.suffix == ".bmp" else (cv2.imencode(path.suffix, pixels)[1].data,)
    write_durably(path, *parts)
    return sum(part.nbytes for part in parts)


def _bmp(pixels: NDArray[np.uint8]) -> tuple[memoryview, memoryview]:
    """Header and rows, the upper one first (hence the negative height); a row fills a multiple of four bytes."""
    height_px, width_px = pixels.shape[:2]
    rows = pixels.reshape(height_px, width_px * 3)
    if rows.shape[1] % 4:
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    header = _HEADER.pack(
        b"BM", _HEADER.size + rows.nbytes, 0, 0, _HEADER.size,
        _INFO_BYTES, width_px, -height_px, 1, _BITS, 0, rows.nbytes, 0, 0, 0, 0,
    )  # fmt: skip
    return memoryview(header), np.ascontiguousarray(rows).data
