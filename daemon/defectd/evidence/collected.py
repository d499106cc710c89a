"""Training data: which units are collected, and what is written about each beside its picture."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from defectd.errors import StateError
from defectd.evidence.retention import PICTURES
from defectd.inspection.events import InspectionEvent, Model, Recipe, Verdict
from defectd.inspection.frame import Frame
from defectd.inspection.record import EngineAnswer
from defectd.inspection.verdict import Judgement

Policy = Literal["none", "needs_review", "failed_and_review"]


def is_wanted(policy: Policy, verdict: Verdict, needs_review: bool) -> bool:
    """Whether a picture that was judged so is worth keeping."""
    if policy == "none":
        return False
    return needs_review or (policy == "failed_and_review" and verdict == "failed")


class CollectedPicture(BaseModel):
    """The file ID.json beside ID.jpg or ID.png: what the model said about the picture, whatever the recipe made of it.

    `names` are the model's classes by id; a box is [class id, confidence, x, y, width, height] in pixels.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    format: Literal["defectd.collected/1"] = "defectd.collected/1"
    inspection_id: str
    unit_id: str
    camera: str
    trigger: int
    captured_at: datetime
    verdict: Verdict
    needs_review: bool
    recipe: Recipe
    model: Model | None
    width_px: int
    height_px: int
    names: list[str]
    boxes: list[tuple[int, float, float, float, float, float]]


def describe(
    event: InspectionEvent, camera: str, trigger: int, frame: Frame, judgement: Judgement, answer: EngineAnswer
) -> CollectedPicture:
    """What is known about one picture of *event*; *judgement* is of this picture alone."""
    seen = answer.detections
    boxes = [
        (int(class_id), round(float(score), 4), *(round(float(px), 2) for px in (x1, y1, x2 - x1, y2 - y1)))
        for class_id, score, (x1, y1, x2, y2) in zip(seen.class_ids, seen.scores, seen.xyxy)
    ]
    return CollectedPicture(
        inspection_id=event.id,
        unit_id=event.unit_id,
        camera=camera,
        trigger=trigger,
        captured_at=event.started_at,
        verdict=judgement.verdict,
        needs_review=judgement.needs_review,
        recipe=event.recipe,
        model=event.model,
        width_px=frame.width_px,
        height_px=frame.height_px,
        names=list(answer.names),
        boxes=boxes,
    )


def read_collected(
    directory: Path, since: date | None = None, until: date | None = None
) -> list[tuple[Path, CollectedPicture]]:
    """Every picture of these days below *directory* with what is known about it, oldest first. Raises StateError.

    One that retention deletes meanwhile is left out.
    """
    found = []
    try:
        for about in sorted(directory.glob("*/*.json")):
            if not (str(since or "") <= about.parent.name <= str(until or "9999")):
                continue
            try:
                picture = next(about.with_suffix(end) for end in PICTURES if about.with_suffix(end).exists())
                found.append((picture, CollectedPicture.model_validate_json(about.read_bytes())))
            except (StopIteration, FileNotFoundError):
                continue
            except ValidationError as error:
                raise StateError(f"{about}: {error.errors()[0]['msg']}; delete it, or bring a newer defectd") from error
    except PermissionError as error:
        raise StateError(f"{error.filename}: {error.strerror}; run this as the station's user, or with sudo") from error
    return found
