"""From detections to a verdict. Pure: the same input gives the same verdict, always."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
from numpy.typing import NDArray

from defectd.inspection.detections import Detections
from defectd.inspection.events import Defect, ErrorReason, Verdict
from defectd.inspection.recipe import DefectRule, Recipe, Region


@dataclass(frozen=True)
class Judgement:
    """What is decided about one unit. `error` is set with the verdict `error` alone, `error_detail` also where a unit
    was not judged for another reason."""

    verdict: Verdict
    needs_review: bool = False
    defects: tuple[Defect, ...] = ()
    error: ErrorReason | None = None
    error_detail: str | None = None


def judge(detections: Detections, recipe: Recipe, names: tuple[str, ...], camera: str) -> Judgement:
    """Apply *recipe* to what the model saw; *names* are the model's classes by id.

    Detections of classes that the recipe does not name, and those that it tolerates, are not defects.
    """
    if len(detections) == 0:
        return Judgement("passed")
    counted = _inside_regions(detections, recipe.regions, camera)
    seen = {names[class_id] for class_id in set(detections.class_ids.tolist()) if 0 <= class_id < len(names)}
    areas = (detections.xyxy[:, 2:] - detections.xyxy[:, :2]).prod(axis=1)
    defects: list[Defect] = []
    needs_review = False
    for rule in recipe.rules:
        if rule.class_name not in seen:
            continue
        class_ids = [class_id for class_id, name in enumerate(names) if name == rule.class_name]
        candidates = counted & np.equal.outer(detections.class_ids, class_ids).any(axis=1) & (areas >= rule.min_area_px)
        found = np.flatnonzero(candidates & (detections.scores >= rule.min_confidence))
        if len(found) > rule.allowed_count:
            defects.extend(_defect(detections, int(index), rule) for index in found)
        if rule.review_from is not None:
            in_band = (detections.scores >= rule.review_from) & (detections.scores < rule.min_confidence)
            needs_review = needs_review or bool((candidates & in_band).any())
    defects.sort(key=lambda defect: (defect.priority, -defect.confidence))
    return Judgement("failed" if defects else "passed", needs_review, tuple(defects))


def combine(views: Sequence[tuple[str, Judgement]]) -> Judgement:
    """What several looks at one unit, by name, say together: an `error` if one of them cannot say anything, and which;
    `aborted` if one was not taken any more; `failed` if one has found something. `passed` takes all of them. The
    defects that were seen are told in any case."""
    defects = [defect.model_copy(update={"camera": name}) for name, seen in views for defect in seen.defects]
    defects.sort(key=lambda defect: (defect.priority, -defect.confidence))
    blind = [(name, seen) for name, seen in views if seen.verdict not in ("passed", "failed")]
    errors = [seen.error for _, seen in blind if seen.error is not None]
    return Judgement(
        "error" if errors else "aborted" if blind else "failed" if defects else "passed",
        any(seen.needs_review for _, seen in views),
        tuple(defects),
        error=errors[0] if errors else None,
        error_detail="; ".join(f"{name}: {seen.error_detail}" for name, seen in blind) or None,
    )


def refuse(reason: ErrorReason, detail: str) -> Judgement:
    """The unit cannot be judged, and this is why."""
    return Judgement("error", error=reason, error_detail=detail)


def _inside_regions(detections: Detections, regions: tuple[Region, ...], camera: str) -> NDArray[np.bool_]:
    """(N,) True for boxes whose centre lies in an included region, if there are any, and in no excluded one."""
    centres = (detections.xyxy[:, :2] + detections.xyxy[:, 2:]) / 2
    mine = [region for region in regions if region.camera in (None, camera)]
    included = [region.holds(centres) for region in mine if region.include]
    excluded = [region.holds(centres) for region in mine if not region.include]
    counted = np.any(included, axis=0) if included else np.ones(len(detections), np.bool_)
    if excluded:
        counted = counted & ~np.any(excluded, axis=0)
    return np.asarray(counted, np.bool_)


def _defect(detections: Detections, index: int, rule: DefectRule) -> Defect:
    x1, y1, x2, y2 = (round(float(value), 2) for value in detections.xyxy[index])
    return Defect(
        code=rule.code,
        category=rule.category,
        class_name=rule.class_name,
        description=rule.description,
        confidence=round(float(detections.scores[index]), 4),
        priority=rule.priority,
        bbox_px=(x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)),
    )
