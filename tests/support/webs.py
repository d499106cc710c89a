"""A moving web: boards behind one another on a belt, as a free-running camera sees them pass, and where their defects
are. A board stands still in the picture of the simulated line; here the belt moves on between two frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from defectd.camera.boards import BoardLine

_ENOUGH = 0.5  # of its height, from which on a defect at the edge of the picture should be seen
_CLOSE_PX = 12.0


@dataclass(frozen=True)
class WebDefect:
    """A physical defect; [x, y, width, height] on the web, y from its beginning."""

    class_name: str
    box: tuple[float, float, float, float]


class BoardWeb:
    """*boards* of one simulated line. The picture is *height_px* high; before the first board and behind the last one
    the belt is empty for one picture."""

    def __init__(self, seed: int, boards: int, width_px: int, height_px: int, defect_rate: float) -> None:
        line = BoardLine(seed, width_px, height_px, defect_rate)
        self.height_px = height_px
        empty = np.full((height_px, width_px, 3), 40, np.uint8)
        pictures, self.defects = [empty], []
        for number in range(1, boards + 1):
            board = line.board(number)
            for defect in board.defects:
                x, y, width, height = defect.xywh_px
                self.defects.append(WebDefect(defect.class_name, (x, y + number * height_px, width, height)))
            pictures.append(board.image)
        self._strip: NDArray[np.uint8] = np.concatenate([*pictures, empty])

    def frames(self, step_px: int) -> int:
        """How many frames it takes until all has passed."""
        return (len(self._strip) - self.height_px) // step_px + 1

    def frame(self, number: int, step_px: int) -> NDArray[np.uint8]:
        """Frame *number*, from 0: what comes next comes from below, and all of it moves up."""
        return self._strip[number * step_px : number * step_px + self.height_px]

    def shown(self, number: int, step_px: int) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
        """Index of each defect that frame *number* shows at least half of, and its box there."""
        top = number * step_px
        for index, defect in enumerate(self.defects):
            x, y, width, height = defect.box
            low, high = max(y - top, 0.0), min(y - top + height, float(self.height_px))
            if high - low >= _ENOUGH * height:
                yield index, (x, low, width, high - low)

    def write(self, folder: Path, step_px: int) -> Path:
        """All frames as lossless pictures, in order."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(self.frames(step_px)):
            cv2.imwrite(
                str(folder / f"web-{number:05d}.png"), self.frame(number, step_px), [cv2.IMWRITE_PNG_COMPRESSION, 1]
            )
        return folder

    def at(self, number: int, step_px: int, box: Sequence[float]) -> list[int]:
        """Which defects a *box* in frame *number* is of."""
        x, y, width, height = box
        column, row = x + width / 2, y + height / 2 + number * step_px
        return [
            index
            for index, (left, top, wide, high) in enumerate(defect.box for defect in self.defects)
            if left - _CLOSE_PX <= column <= left + wide + _CLOSE_PX
            and top - _CLOSE_PX <= row <= top + high + _CLOSE_PX
        ]
