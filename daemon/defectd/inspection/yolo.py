"""From a YOLO detection head to boxes: candidates, then greedy per-class suppression. Pure numpy.

Candidates are a block (6, K) float32, one column each: four coordinates in input pixels, score, class id.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from defectd.inspection.detections import Detections
from defectd.inspection.letterbox import Letterbox

Floats = NDArray[np.float32]

MAX_CANDIDATES = 1024
"""Best anchors that enter suppression. Greedy suppression of a prefix of the ranking gives a prefix of the result,
so a smaller number than Ultralytics' 30,000 changes nothing unless 1024 anchors merge into fewer boxes than wanted."""


class Head(Enum):
    """How the model writes what it saw."""

    DENSE = "dense"  # (1, 4 + classes, anchors): cx cy w h and a score per class; needs suppression
    END_TO_END = "end_to_end"  # (1, N, 6): x1 y1 x2 y2 score class, suppressed already (YOLOv10, YOLO26)


class HeadMismatch(ValueError):
    """The model's output is not what its metadata announced; the message has both shapes."""


class MalformedOutput(ValueError):
    """The model named a class that it does not have."""


class NonFiniteOutput(Exception):
    """The model's output has a NaN or an infinity: whatever it saw, it cannot say."""


@dataclass(frozen=True)
class Thresholds:
    """What becomes of candidates. `confidence` and `nms_iou` in 0..1; both comparisons are "greater than"."""

    confidence: float
    nms_iou: float = 0.7
    max_detections: int = 300


def resolve_head(output_shape: tuple[int, ...], class_count: int, end2end: bool | None) -> Head:
    """The head behind *output_shape*; *end2end* None means that the metadata do not tell. Raises HeadMismatch."""
    is_dense = len(output_shape) == 3 and output_shape[:2] == (1, 4 + class_count)
    is_end_to_end = len(output_shape) == 3 and output_shape[0] == 1 and output_shape[2] == 6
    if is_dense and end2end is not True:
        return Head.DENSE
    if is_end_to_end and end2end is not False:
        return Head.END_TO_END
    dense, end_to_end = f"(1, {4 + class_count}, anchors)", "(1, N, 6)"
    expected = {True: end_to_end, False: dense, None: f"{dense} or {end_to_end}"}[end2end]
    raise HeadMismatch(
        f"the metadata announce {class_count} classes and a head {expected}, but the model returns {output_shape}"
    )


def select(head: Floats, confidence: float, limit: int = MAX_CANDIDATES) -> Floats:
    """Candidates of a dense head (4 + classes, anchors): each anchor with its best class, above *confidence*, at
    most the *limit* best."""
    best = head[4:].max(axis=0)
    chosen = np.flatnonzero(best > confidence)
    if len(chosen) > limit:
        chosen = chosen[np.argpartition(best[chosen], -limit)[-limit:]]
    columns = head[:, chosen]
    class_ids = columns[4:].argmax(axis=0)
    return np.vstack([columns[:4], best[None, chosen], class_ids[None].astype(np.float32)])


def is_finite(head: Floats) -> bool:
    """True if there is no NaN and no infinity in *head*. One pass: either survives summation."""
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(np.isfinite(head.sum(dtype=np.float64)))


@dataclass(frozen=True)
class Decoder:
    """From candidates to what leaves the engine, for one model."""

    head: Head
    class_count: int
    thresholds: Thresholds

    def candidates(self, output: Floats) -> Floats:
        """Candidates of the model's whole *output* in host memory. Raises NonFiniteOutput."""
        if not is_finite(output):
            raise NonFiniteOutput("the model's output has a NaN or an infinity")
        return output[0].T if self.head is Head.END_TO_END else select(output[0], self.thresholds.confidence)

    def detections(self, candidates: Floats, letterbox: Letterbox) -> Detections:
        """Detections in full-frame pixels, best first. Raises MalformedOutput."""
        found = detections_of(candidates, self.head, self.class_count, self.thresholds)
        return Detections(letterbox.to_frame(found.xyxy), found.scores, found.class_ids)


def detections_of(candidates: Floats, head: Head, class_count: int, thresholds: Thresholds) -> Detections:
    """Detections in input pixels, best first. Raises MalformedOutput."""
    ranked = candidates[:, candidates[4] > thresholds.confidence]
    ranked = ranked[:, np.argsort(-ranked[4], kind="stable")]
    class_ids = ranked[5].astype(np.int32)
    if len(class_ids) and not (class_ids.min() >= 0 and class_ids.max() < class_count):
        raise MalformedOutput(f"a class id outside 0..{class_count - 1}: {class_ids.min()}..{class_ids.max()}")
    if len(ranked[4]) and ranked[4, 0] > 1.001:  # the best; rounding of fp16 is forgiven
        raise MalformedOutput(f"a score of {ranked[4, 0]:.3f}, expected 0..1: is a sigmoid missing from the export?")
    ranked[4] = np.minimum(ranked[4], 1.0)
    if head is Head.END_TO_END:
        xyxy, kept = ranked[:4].T, np.arange(ranked.shape[1])[: thresholds.max_detections]
    else:
        xyxy = corners(ranked[:4].T)
        kept = suppress(xyxy, class_ids, thresholds.nms_iou, thresholds.max_detections)
    return Detections(np.ascontiguousarray(xyxy[kept]), ranked[4, kept], class_ids[kept])


def corners(xywh: Floats) -> Floats:
    """Boxes (N, 4) given by centre and size as corners."""
    half = xywh[:, 2:] / 2
    return np.hstack([xywh[:, :2] - half, xywh[:, :2] + half])


def suppress(xyxy: Floats, class_ids: NDArray[np.int32], iou: float, limit: int) -> NDArray[np.intp]:
    """Greedy suppression as `torchvision.ops.nms` does it, each class by itself: indices of the at most *limit*
    boxes to keep, of boxes (N, 4) ranked best first. A kept box removes the later ones of its class that overlap
    it by more than *iou*; boxes without area overlap nothing."""
    x1, y1, x2, y2 = xyxy.T
    area = (x2 - x1) * (y2 - y1)
    rest = np.arange(len(xyxy))
    kept: list[int] = []
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 is NaN, and NaN removes nothing
        while len(rest) and len(kept) < limit:
            best, rest = rest[0], rest[1:]
            kept.append(best)
            width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest])
            height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest])
            overlap = np.maximum(width, 0) * np.maximum(height, 0)
            removed = overlap / (area[best] + area[rest] - overlap) > iou
            rest = rest[~(removed & (class_ids[rest] == class_ids[best]))]
    return np.array(kept, np.intp)
