"""Collected pictures as an Ultralytics dataset: images/, labels/, data.yaml, and units.csv for whoever corrects them.

The labels are what the model saw: a beginning, not the truth. units.csv says which pictures the recipe doubted.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Sequence, Tuple

from defectd.errors import StateError
from defectd.evidence.collected import CollectedPicture

Collected = List[Tuple[Path, CollectedPicture]]
_COLUMNS = ("file", "split", "needs_review", "verdict", "unit_id", "camera", "trigger", "captured_at", "labels",
            "lowest_confidence", "model", "recipe", "inspection_id")  # fmt: skip


@dataclass
class Exported:
    """What the dataset holds. `labels` counts by class."""

    pictures: Counter[str] = field(default_factory=Counter)
    needs_review: int = 0
    labels: Counter[str] = field(default_factory=Counter)


def class_names(pictures: Sequence[CollectedPicture]) -> list[str]:
    """The classes by id, of all models that have seen one of *pictures*. Raises StateError if two of them disagree."""
    names: list[str] = []
    for picture in pictures:
        common = min(len(names), len(picture.names))
        if names[:common] != picture.names[:common]:
            raise StateError(
                f"{picture.inspection_id}: its model numbers the classes {', '.join(picture.names)}, an earlier one "
                f"{', '.join(names)}; export them apart, with --since or --until"
            )
        names = max(names, picture.names, key=len)
    return names


def label_lines(picture: CollectedPicture, min_confidence: float) -> list[str]:
    """`class x y width height` of each box, centre and size as shares of the picture, cut off at its edges."""
    lines = []
    width_px, height_px = picture.width_px, picture.height_px
    for class_id, confidence, x, y, width, height in picture.boxes:
        left, right = max(0.0, x), min(float(width_px), x + width)
        top, bottom = max(0.0, y), min(float(height_px), y + height)
        if confidence < min_confidence or right <= left or bottom <= top:
            continue
        shares = (
            (left + right) / 2 / width_px,
            (top + bottom) / 2 / height_px,
            (right - left) / width_px,
            (bottom - top) / height_px,
        )
        lines.append(f"{class_id} " + " ".join(f"{share:.6f}" for share in shares))
    return lines


def split_of(unit_id: str, val_share: float) -> str:
    """`train` or `val`; the same unit is always on the same side, whenever it is exported."""
    drawn = int.from_bytes(hashlib.sha256(unit_id.encode()).digest()[:4], "big") / 2**32
    return "val" if drawn < val_share else "train"


def data_yaml(names: Sequence[str], splits: Sequence[str]) -> str:
    """Without `path`: Ultralytics takes the folder in which it lies. A split without pictures is the other one."""
    train, val = ("train" if "train" in splits else "val"), ("val" if "val" in splits else "train")
    classes = "".join(f"  {index}: {json.dumps(name)}\n" for index, name in enumerate(names))
    return f"train: images/{train}\nval: images/{val}\nnames:\n{classes}"


def export(collected: Collected, out: Path, min_confidence: float, val_share: float) -> Exported:
    """Write the dataset; *out* appears when it is whole. Raises StateError."""
    if out.exists():
        raise StateError(f"{out}: exists; expected a folder that does not exist yet")
    building = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(building, ignore_errors=True)  # of an export that was killed
        exported = _write(collected, building, min_confidence, val_share)
        building.rename(out)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise StateError(f"{error.filename or out}: {error.strerror}") from error
    return exported


def _write(collected: Collected, out: Path, min_confidence: float, val_share: float) -> Exported:
    names = class_names([picture for _, picture in collected])
    exported, rows = Exported(), []
    for file, picture in collected:
        split = split_of(picture.unit_id, val_share)
        for kind in ("images", "labels"):
            (out / kind / split).mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # retention was faster
            shutil.copyfile(file, out / "images" / split / file.name)
            lines = label_lines(picture, min_confidence)
            (out / "labels" / split / f"{file.stem}.txt").write_text("".join(f"{line}\n" for line in lines))
            exported.pictures[split] += 1
            exported.needs_review += picture.needs_review
            exported.labels.update(names[int(line.split()[0])] for line in lines)
            rows.append(_row(file.name, split, picture, len(lines), min_confidence))
    (out / "data.yaml").write_text(data_yaml(names, list(exported.pictures)), encoding="utf-8")
    with (out / "units.csv").open("w", encoding="utf-8", newline="") as table:
        csv.writer(table).writerows([_COLUMNS, *rows])
    return exported


def _row(name: str, split: str, picture: CollectedPicture, labels: int, min_confidence: float) -> tuple[object, ...]:
    seen = [confidence for _, confidence, *_ in picture.boxes if confidence >= min_confidence]
    return (
        name,
        split,
        "yes" if picture.needs_review else "no",
        picture.verdict,
        picture.unit_id,
        picture.camera,
        picture.trigger,
        picture.captured_at.isoformat(),
        labels,
        min(seen, default=""),
        f"{picture.model.name} {picture.model.version}" if picture.model else "",
        f"{picture.recipe.name} {picture.recipe.revision}",
        picture.inspection_id,
    )
