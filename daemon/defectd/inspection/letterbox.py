"""Where a frame lies in the model's input, and the way back from there to full-frame pixels.

Both ways round as Ultralytics does (`LetterBox(auto=False, scaleup=True, center=True)` in data/augment.py and
`scale_boxes` in utils/ops.py, 8.4), so that its boxes and ours agree to a fraction of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PADDING_VALUE = 114
"""The grey level around the frame, of 255, in every channel."""


@dataclass(frozen=True)
class Letterbox:
    """The frame, scaled by `scale` with its aspect kept to `resized_hw`, and padded to `input_hw`. All but `scale`
    in pixels."""

    frame_hw: tuple[int, int]
    input_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    scale: float
    pad_left: int
    pad_top: int
    pad_right: int
    pad_bottom: int

    @property
    def is_identity(self) -> bool:
        """The frame has the size of the input: nothing to resize, nothing to pad."""
        return self.frame_hw == self.input_hw

    def to_frame(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) xyxy in input pixels as full-frame pixels, clipped to the frame; a copy.

        Each axis has its own gain: what rounding made of `scale` on that side, not `scale` itself.
        """
        frame_h, frame_w = self.frame_hw
        gain_y, gain_x = self.resized_hw[0] / frame_h, self.resized_hw[1] / frame_w
        pad = np.array([self.pad_left, self.pad_top] * 2, np.float32)
        gain = np.array([gain_x, gain_y] * 2, np.float32)
        limit = np.array([frame_w, frame_h] * 2, np.float32)
        mapped: NDArray[np.float32] = np.clip((xyxy - pad) / gain, np.float32(0), limit)
        return mapped


def fit(frame_hw: tuple[int, int], input_hw: tuple[int, int]) -> Letterbox:
    """The letterbox for frames of *frame_hw*. Raises ValueError for a frame without pixels."""
    frame_h, frame_w = frame_hw
    input_h, input_w = input_hw
    if frame_h < 1 or frame_w < 1:
        raise ValueError(f"a frame of {frame_w}x{frame_h} has no pixels")
    scale = min(input_h / frame_h, input_w / frame_w)
    resized_h, resized_w = max(round(frame_h * scale), 1), max(round(frame_w * scale), 1)
    spare_h, spare_w = (input_h - resized_h) / 2, (input_w - resized_w) / 2
    return Letterbox(
        frame_hw=(frame_h, frame_w),
        input_hw=(input_h, input_w),
        resized_hw=(resized_h, resized_w),
        scale=scale,
        pad_left=round(spare_w - 0.1),
        pad_top=round(spare_h - 0.1),
        pad_right=round(spare_w + 0.1),
        pad_bottom=round(spare_h + 0.1),
    )
