"""Mean average precision of detections against labelled boxes, as Ultralytics' validation counts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from defectd.export.packages import required
from defectd.inspection.detections import Detections
from defectd.models.golden import iou

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""Boxes count as found from so much overlap on: mAP50 is at the first, mAP50-95 the mean over all."""
Truth = Tuple[NDArray[np.float32], NDArray[np.int32]]
"""Labelled boxes (N, 4) xyxy in pixels, and their classes (N,)."""


@dataclass(frozen=True)
class MeanPrecision:
    """In 0..1, over the classes that are labelled at all."""

    map50: float
    map50_95: float


def mean_precision(found: Sequence[Detections], truth: Sequence[Truth]) -> MeanPrecision:
    """*found* down to a confidence of about 0.001, and what is labelled, picture by picture."""
    hits = [correct(seen, boxes, classes) for seen, (boxes, classes) in zip(found, truth)]
    curves = required("ultralytics.utils.metrics").ap_per_class(
        np.concatenate(hits),
        np.concatenate([seen.scores for seen in found]),
        np.concatenate([seen.class_ids for seen in found]),
        np.concatenate([classes for _, classes in truth]),
    )
    precision = curves[5]  # (labelled classes, overlaps)
    return (
        MeanPrecision(float(precision[:, 0].mean()), float(precision.mean())) if len(precision) else MeanPrecision(0, 0)
    )


def correct(seen: Detections, boxes: NDArray[np.float32], classes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(N, 10): does a detection find a labelled box of its class, at each of OVERLAPS? Best first, each labelled box
    once, the most overlapped one that is left."""
    overlap = iou(boxes, seen.xyxy)
    overlap[classes[:, None] != seen.class_ids[None, :]] = 0
    taken = np.zeros((len(boxes), len(OVERLAPS)), bool)
    found = np.zeros((len(seen), len(OVERLAPS)), bool)
    levels = np.arange(len(OVERLAPS))
    for index in np.flatnonzero((overlap >= OVERLAPS[0]).any(axis=0)):
        left = np.where(taken, 0, overlap[:, index, None])
        best = left.argmax(axis=0)
        found[index] = left[best, levels] >= OVERLAPS
        taken[best, levels] |= found[index]
    return found
