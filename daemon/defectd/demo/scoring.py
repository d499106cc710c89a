"""Scores a detection model on boards whose defects are known, with the daemon's own decoding."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Iterable

import cv2
import numpy as np
import numpy.typing as npt
import torch

from defectd.camera.boards import CLASS_NAMES, Board
from defectd.demo.torchscript import config, load
from defectd.inspection.letterbox import PADDING_VALUE, Letterbox, fit
from defectd.inspection.yolo import Head, Thresholds, detections_of, select

_SEEN = Thresholds(confidence=0.01, nms_iou=0.5)  # low, so that mAP sees the whole curve
_IOUS = np.linspace(0.5, 0.95, 10)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """precision, recall: at `threshold`, IoU >= 0.5, same class; map50, map50_95: over all thresholds."""

    units: int
    defects: int
    threshold: float
    precision: float
    recall: float
    map50: float
    map50_95: float
    wrong_verdicts: int  # units with a report and no defect, or with a defect and no report
    recall_by_class: dict[str, float] = field(default_factory=dict)
    by_threshold: dict[str, tuple[float, float]] = field(default_factory=dict)  # precision, recall

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class _Found:
    """Detections of all units of one class, or of all classes: scores, and which are true at each IoU."""

    scores: Floats  # (N,)
    true: npt.NDArray[np.bool_]  # (N, 10)
    class_ids: npt.NDArray[np.int32]  # (N,)
    unit: npt.NDArray[np.int32]  # (N,)


def score(model_path: Path, boards: Iterable[Board], threshold: float) -> Scores:
    """Run a model over boards and compare with the truth."""
    height_px, width_px = config(model_path)["imgsz"]
    model = load(model_path)
    parts: list[_Found] = []
    truth: list[int] = []  # class of each true defect
    defective: list[bool] = []
    for number, board in enumerate(boards):
        place = fit((board.image.shape[0], board.image.shape[1]), (height_px, width_px))
        with torch.no_grad():
            raw = model(_letterboxed(board.image, place))[0].numpy()
        seen = detections_of(select(raw, _SEEN.confidence), Head.DENSE, len(CLASS_NAMES), _SEEN)
        true = _match(place.to_frame(seen.xyxy), seen.class_ids, board)
        parts.append(_Found(seen.scores, true, seen.class_ids, np.full(len(seen), number, np.int32)))
        truth.extend(defect.class_id for defect in board.defects)
        defective.append(bool(board.defects))
    found = _Found(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "true", "class_ids", "unit"))
    )
    return _summary(found, np.array(truth, np.int32), np.array(defective, bool), threshold)


def _summary(found: _Found, truth: npt.NDArray[np.int32], defective: npt.NDArray[np.bool_], threshold: float) -> Scores:
    precisions = [
        _average_precision(found, kind, int((truth == kind).sum()))
        for kind in range(len(CLASS_NAMES))
        if (truth == kind).any()
    ]
    kept = found.scores >= threshold
    hits = kept & found.true[:, 0]
    reported = np.zeros(len(defective), bool)
    reported[found.unit[kept]] = True
    precision, recall = _at(found, len(truth), threshold)
    return Scores(
        len(defective),
        len(truth),
        threshold,
        precision,
        recall,
        float(np.mean([p[0] for p in precisions])),
        float(np.mean([p.mean() for p in precisions])),
        int((reported != defective).sum()),
        {
            name: round(float((hits & (found.class_ids == kind)).sum() / max(int((truth == kind).sum()), 1)), 4)
            for kind, name in enumerate(CLASS_NAMES)
        },
        {f"{t:.2f}": _at(found, len(truth), t) for t in np.arange(0.2, 0.65, 0.05).tolist()},
    )


def _at(found: _Found, defects: int, threshold: float) -> tuple[float, float]:
    """Precision and recall at a threshold."""
    kept = found.scores >= threshold
    hits = int((kept & found.true[:, 0]).sum())
    return round(hits / max(int(kept.sum()), 1), 4), round(hits / max(defects, 1), 4)


def _average_precision(found: _Found, kind: int, defects: int) -> npt.NDArray[np.float64]:
    """Area under the precision envelope of one class at each IoU, at 101 recalls as COCO takes it."""
    mine = np.flatnonzero(found.class_ids == kind)
    order = mine[np.argsort(-found.scores[mine], kind="stable")]
    hits = np.cumsum(found.true[order], axis=0)
    precision = hits / np.arange(1, len(order) + 1)[:, None]
    recall = hits / defects
    levels = np.linspace(0, 1, 101)
    areas = []
    for i in range(len(_IOUS)):
        envelope = np.maximum.accumulate(np.append(precision[:, i], 0.0)[::-1])[::-1]
        areas.append(float(envelope[np.searchsorted(recall[:, i], levels, side="left")].mean()))
    return np.array(areas)


def _letterboxed(image: npt.NDArray[np.uint8], place: Letterbox) -> torch.Tensor:
    """A BGR picture as (1, 3, H, W) RGB float32 in 0..1."""
    small = cv2.resize(image, place.resized_hw[::-1], interpolation=cv2.INTER_LINEAR)
    canvas = np.full((*place.input_hw, 3), PADDING_VALUE, np.uint8)
    canvas[place.pad_top :, place.pad_left :][: place.resized_hw[0], : place.resized_hw[1]] = small
    planes = np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1), np.float32) / np.float32(255)
    return torch.from_numpy(planes[None])


def _match(xyxy: Floats, class_ids: npt.NDArray[np.int32], board: Board) -> npt.NDArray[np.bool_]:
    """Which detections (best first) are true at each IoU; each true defect is found once."""
    true = np.zeros((len(xyxy), len(_IOUS)), bool)
    boxes = np.array([d.xywh_px for d in board.defects], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    kinds = np.array([d.class_id for d in board.defects], np.int32)
    overlap = _iou(xyxy, boxes) * (class_ids[:, None] == kinds[None])
    for level, least in enumerate(_IOUS):
        open_boxes = np.ones(len(boxes), bool)
        for i in range(len(xyxy) if len(boxes) else 0):
            candidates = overlap[i] * open_boxes
            best = int(candidates.argmax())
            if candidates[best] >= least:
                true[i, level], open_boxes[best] = True, False
    return true


def _iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of every box of a (N, 4) with every box of b (M, 4), as (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return np.asarray(inner / np.maximum(area_a[:, None] + area_b[None] - inner, 1e-9), np.float32)
