"""Frames of a web as a model that errs would report them: jitter, misses, dropped frames, a web that stops."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Callable, Iterator

import numpy as np

from defectd.inspection.events import Defect
from defectd.inspection.web_wire import Box
from defectd.tracking.tracks import Seen, _iou

NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
HEIGHT_PX, WIDTH_PX, HZ = 512, 640, 10


class PlainTracker:
    """Takes the nearest box that overlaps; for tests of what is around a tracker."""

    def __init__(self, min_iou: float = 0.2) -> None:
        self._min_iou, self._boxes, self._count = min_iou, {}, 0

    def match(self, boxes: list[Box]) -> list[int]:
        found: list[int] = []
        for box in boxes:
            free = {number: _iou(box, before) for number, before in self._boxes.items() if number not in found}
            number = max(free, key=lambda each: free[each], default=None)
            if number is None or free[number] < self._min_iou:
                self._count += 1
                number = self._count
            self._boxes[number] = box
            found.append(number)
        return found


def defect(box: Box, code: str = "HOLE", confidence: float = 0.9) -> Defect:
    """One finding."""
    return Defect(
        code=code, category="", class_name="hole", description="", confidence=confidence, priority=1, bbox_px=box
    )


def seen(number: int, *defects: Defect, at_s: float | None = None) -> Seen:
    """Frame *number* of a steady camera."""
    captured_s = number / HZ if at_s is None else at_s
    return Seen(number, int((captured_s + 1) * 1e9), NOON, defects)


@dataclass(frozen=True)
class Web:
    """*count* physical defects pass at *step_px* a frame, times what *pace* says of the frame. The time of a frame is
    up to *late_s* late."""

    step_px: float
    count: int = 40
    frames: int = 400
    miss: float = 0.0
    drop: float = 0.0
    jitter_px: float = 1.0
    seed: int = 0
    late_s: float = 0.0
    pace: Callable[[int], float] = lambda _: 1.0

    def pass_by(self) -> Iterator[tuple[Seen, list[int]]]:
        """Each frame that was judged, and which physical defect each finding is of."""
        rng = np.random.default_rng(self.seed)
        offsets = np.cumsum([0.0] + [self.step_px * self.pace(frame) for frame in range(self.frames)])
        rows = np.sort(rng.uniform(0, offsets[-1] * 0.85, self.count))
        columns = rng.uniform(20, WIDTH_PX - 60, self.count)
        sizes = rng.uniform(18, 40, (self.count, 2))
        for frame in range(self.frames):
            if rng.random() < self.drop:
                continue
            findings, truths = [], []
            for index in range(self.count):
                (width, height), top = sizes[index], offsets[frame] - rows[index]
                if not -height / 2 <= top <= HEIGHT_PX - height / 2 or rng.random() < self.miss:
                    continue
                low, high = max(top, 0.0), min(top + height, float(HEIGHT_PX))
                x, y, wide, tall = rng.normal((columns[index], low, width, high - low), self.jitter_px)
                findings.append(defect((x, y, max(wide, 2.0), max(tall, 2.0)), confidence=rng.uniform(0.5, 1)))
                truths.append(index)
            yield seen(frame, *findings, at_s=frame / HZ + rng.uniform(0, self.late_s)), truths
