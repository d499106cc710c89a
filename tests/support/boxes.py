"""Do two lists of boxes say the same? Greedy matching by overlap within each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence, Tuple

Box = Tuple[float, float, float, float, float, str]  # x1, y1, x2, y2, confidence, class name


@dataclass(frozen=True)
class Agreement:
    """`matched` of the boxes on the first side have a partner on the second."""

    boxes: int
    matched: int
    worst_iou: float
    worst_confidence: float

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.matched / self.boxes if self.boxes else 1.0


def agreement(
    ours: Mapping[str, Sequence[Box]], theirs: Mapping[str, Sequence[Box]], least_iou: float, confidence_within: float
) -> Agreement:
    """How many boxes of *ours* have a partner of the same class in the same picture of *theirs*, each used once."""
    boxes = matched = 0
    worst_iou, worst_confidence = 1.0, 0.0
    for picture, mine in ours.items():
        free = list(theirs.get(picture, ()))
        for box in mine:
            boxes += 1
            partner = max((other for other in free if other[5] == box[5]), key=lambda o: iou(box, o), default=None)
            if partner is None:
                continue
            overlap, apart = iou(box, partner), abs(box[4] - partner[4])
            if overlap >= least_iou and apart <= confidence_within:
                free.remove(partner)
                matched += 1
                worst_iou, worst_confidence = min(worst_iou, overlap), max(worst_confidence, apart)
    return Agreement(boxes, matched, worst_iou, worst_confidence)


def iou(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0.0) * max(height, 0.0)
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return inner / max(area_a + area_b - inner, 1e-9)
