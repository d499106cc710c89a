"""Does a runtime see what the model saw? Detections on the golden pictures against the bundle's. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
from numpy.typing import NDArray

from defectd.inspection.detections import Detections
from defectd.models.manifest import AcceptanceLimits, GoldenPicture

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class GoldenReport:
    """What was compared, and every reason to refuse; `recall` and `precision` are 1 where nothing was expected."""

    pictures: int
    expected: int
    found: int
    matched: int
    recall: float
    precision: float
    confidence_drift: float
    lowest_iou: float
    missed_critical: int
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """True if the runtime may serve."""
        return not self.reasons


def expected_detections(picture: GoldenPicture) -> Detections:
    """The manifest's boxes as an engine would give them, best first."""
    boxes = sorted(picture.boxes, key=lambda box: -box[4])
    return Detections(
        np.array([box[:4] for box in boxes], np.float32).reshape(-1, 4),
        np.array([box[4] for box in boxes], np.float32),
        np.array([box[5] for box in boxes], np.int32),
    )


def compare(
    expected: Sequence[Detections], found: Sequence[Detections], classes: Sequence[str], confidence: float,
    limits: AcceptanceLimits,
) -> GoldenReport:  # fmt: skip
    """Match picture by picture, best boxes first, each at most once. Boxes within `ignore_below` of the threshold
    *confidence* serve as partners, but none is missed for the lack of one."""
    counts = np.zeros(3, int)  # expected, found, matched
    recalled = surprising = missed_critical = 0
    drifts: list[float] = []
    overlaps: list[float] = []
    least = confidence + limits.ignore_below
    critical = {index for index, name in enumerate(classes) if name in limits.critical_classes}
    for wanted, seen in zip(expected, found):
        pairs = match(wanted, seen, limits.iou)
        sure = [index for index in range(len(wanted)) if wanted.scores[index] >= least]
        partners = {index for index, _, _ in pairs}
        unexpected = set(range(len(seen))) - {index for _, index, _ in pairs}
        missed = [index for index in sure if index not in partners]
        counts += (len(wanted), len(seen), len(pairs))
        recalled += len(sure) - len(missed)
        surprising += sum(1 for index in unexpected if seen.scores[index] >= least)
        missed_critical += sum(1 for index in missed if int(wanted.class_ids[index]) in critical)
        drifts += [abs(float(wanted.scores[one] - seen.scores[other])) for one, other, _ in pairs]
        overlaps += [overlap for _, _, overlap in pairs]
    sure_total = sum(int((wanted.scores >= least).sum()) for wanted in expected)
    recall = recalled / sure_total if sure_total else 1.0
    precision = int(counts[2]) / (int(counts[2]) + surprising) if counts[2] + surprising else 1.0
    drift = float(np.mean(drifts)) if drifts else 0.0
    reasons = [
        text
        for wrong, text in (
            (recall < limits.recall, f"recall {recall:.4f}, at least {limits.recall} is required"),
            (precision < limits.precision, f"precision {precision:.4f}, at least {limits.precision} is required"),
            (drift > limits.confidence_drift, f"confidence drifts by {drift:.4f}, at most {limits.confidence_drift}"),
            (missed_critical > 0, f"{missed_critical} boxes of critical classes are missed"),
        )
        if wrong
    ]
    return GoldenReport(
        len(expected), int(counts[0]), int(counts[1]), int(counts[2]), recall, precision, drift,
        min(overlaps, default=1.0), missed_critical, tuple(reasons),
    )  # fmt: skip


def match(wanted: Detections, seen: Detections, least_iou: float) -> list[tuple[int, int, float]]:
    """Pairs (index of *wanted*, index of *seen*, overlap) of the same class, greedily by overlap."""
    overlap = iou(wanted.xyxy, seen.xyxy)
    overlap[wanted.class_ids[:, None] != seen.class_ids[None, :]] = 0
    pairs: list[tuple[int, int, float]] = []
    while overlap.size and (best := float(overlap.max())) >= max(least_iou, 1e-6):
        one, other = (int(index) for index in np.unravel_index(int(overlap.argmax()), overlap.shape))
        pairs.append((one, other, best))
        overlap[one, :] = 0
        overlap[:, other] = 0
    return pairs


def iou(one: Floats, other: Floats) -> Floats:
    """(N, M) overlaps of boxes (N, 4) and (M, 4), corners in pixels."""
    corner_min = np.maximum(one[:, None, :2], other[None, :, :2])
    corner_max = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(corner_max - corner_min, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    result: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result
