"""What a picture's pixels say about its focus and its light."""

from __future__ import annotations

import cv2
import numpy as np

from defectd.camera.base import Pixels
from defectd.camera.health import CLIPPED, DARK, Measures

_BAND_ROWS, _BAND_EVERY_ROWS = 16, 128
_LIGHT_SIDE_PX = 512


def measure(pixels: Pixels) -> Measures:
    """Of a (H, W, 3) BGR picture; an eighth of its rows and a grid of its pixels are enough."""
    height, width = pixels.shape[:2]
    step = max(1, max(height, width) // _LIGHT_SIDE_PX)
    grid = pixels
    if step > 1:
        size = max(1, width // step), max(1, height // step)
        grid = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    blue, green, red = cv2.split(grid)
    brightest = cv2.max(cv2.max(blue, green), red)
    mean_blue, mean_green, mean_red, _ = cv2.mean(grid)
    return Measures(
        focus=_focus(pixels),
        clipped_share=cv2.countNonZero(cv2.inRange(brightest, CLIPPED, 255)) / brightest.size,
        dark_share=cv2.countNonZero(cv2.inRange(brightest, 0, DARK - 1)) / brightest.size,
        mean=0.114 * mean_blue + 0.587 * mean_green + 0.299 * mean_red,
    )


def _focus(pixels: Pixels) -> float:
    """On bands of full resolution: a picture that was made smaller no longer shows a slight blur."""
    height = pixels.shape[0]
    first = max(0, min(_BAND_EVERY_ROWS, height) - _BAND_ROWS) // 2
    total = squares = 0.0
    starts = range(first, max(1, height - _BAND_ROWS + 1), _BAND_EVERY_ROWS)
    for start in starts:
        grey = cv2.cvtColor(pixels[start : start + _BAND_ROWS], cv2.COLOR_BGR2GRAY)
        mean, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
        total += float(mean[0, 0])
        squares += float(deviation[0, 0]) ** 2 + float(mean[0, 0]) ** 2
    return squares / len(starts) - (total / len(starts)) ** 2
