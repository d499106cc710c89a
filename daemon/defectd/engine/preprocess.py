"""A BGR uint8 frame into the model's input on a CPU: letterbox by OpenCV, then RGB floats in 0..1.

In one thread on purpose, as each pass takes a fraction of a millisecond: on a busy machine a parallel region waits for
a core that somebody else holds. That took 8 ms instead of 0.05 ms when it was measured.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from defectd.inspection.letterbox import PADDING_VALUE, Letterbox

_FULL_SCALE = np.float32(255)  # a division, not a factor: to the last bit what Ultralytics feeds its models


class CpuLetterbox:
    """Writes frames into *target*: (input height, input width, 3) float32, any strides, the model's own memory."""

    def __init__(self, target: NDArray[np.float32]) -> None:
        cv2.setNumThreads(1)
        self._target = target
        self._canvas = np.full(target.shape, PADDING_VALUE, np.uint8)  # RGB
        self._geometry: Letterbox | None = None

    def write(self, pixels: NDArray[np.uint8], letterbox: Letterbox) -> None:
        """Fill the target from *pixels*, (height, width, 3) BGR of the letterbox's frame size."""
        if letterbox != self._geometry:
            self._canvas.fill(PADDING_VALUE)
            self._geometry = letterbox
        (height, width), top, left = letterbox.resized_hw, letterbox.pad_top, letterbox.pad_left
        inner = self._canvas[top : top + height, left : left + width]
        if letterbox.resized_hw != letterbox.frame_hw:
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=inner)
        np.divide(self._canvas, _FULL_SCALE, out=self._target, dtype=np.float32, casting="unsafe")
