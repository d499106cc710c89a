"""What was reported, held against what is really wrong with each board. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

from defectd.camera.boards import TrueDefect
from defectd.watch.wire import Finding

MIN_IOU = 0.5
Box = Tuple[float, float, float, float]  # x, y, width, height


@dataclass
class Score:
    """Sums over boards; a defect counts as found once, by one finding of its class with IoU >= MIN_IOU."""

    defects: int = 0
    findings: int = 0
    hits: int = 0

    def add(self, findings: Sequence[Finding], defects: Sequence[TrueDefect]) -> None:
        """One board."""
        self.defects += len(defects)
        self.findings += len(findings)
        self.hits += count_hits(findings, defects)

    @property
    def recall(self) -> float | None:
        """Part of the real defects that was found; None if there were none."""
        return self.hits / self.defects if self.defects else None

    @property
    def precision(self) -> float | None:
        """Part of the findings that is real; None if there were none."""
        return self.hits / self.findings if self.findings else None

    def __str__(self) -> str:
        return f"recall {_two_digits(self.recall)} precision {_two_digits(self.precision)}"


def count_hits(findings: Sequence[Finding], defects: Sequence[TrueDefect]) -> int:
    """Greedy, as in evaluations of detectors: the surest finding takes its best defect first."""
    left = list(defects)
    hits = 0
    for finding in sorted(findings, key=lambda one: -one.confidence):
        same = [(iou(finding.xywh_px, defect.xywh_px), index) for index, defect in enumerate(left)
                if defect.class_name == finding.class_name]  # fmt: skip
        best, index = max(same, default=(0.0, -1))
        if best >= MIN_IOU:
            del left[index]
            hits += 1
    return hits


def iou(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    inner = max(width, 0.0) * max(height, 0.0)
    union = one[2] * one[3] + other[2] * other[3] - inner
    return inner / union if union > 0 else 0.0


def _two_digits(value: float | None) -> str:
    """Cut, not rounded: 0.996 is not 1.00."""
    return "-" if value is None else f"{int(value * 100 + 1e-9) / 100:.2f}"
