"""Labelled pictures as Ultralytics keeps them: a data.yaml, `images/` and `labels/`. Read by ourselves, because
Ultralytics would download what is missing, and resolves relative paths against the working directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from numpy.typing import NDArray

from defectd.errors import ModelError
from defectd.export.packages import required
from defectd.export.pictures import PICTURES, pictures_in

Floats = NDArray[np.float32]
_SPLITS = ("val", "validation", "test")


@dataclass(frozen=True)
class LabelledPicture:
    """A picture's file and its label file; without one it shows no defect."""

    path: Path
    labels: Path

    def boxes(self, class_count: int, frame_hw: tuple[int, int]) -> tuple[Floats, NDArray[np.int32]]:
        """Labelled boxes (N, 4) xyxy in pixels of a frame of *frame_hw*, and their classes (N,). Raises ModelError."""
        text = _text(self.labels, "labels of YOLO's form") if self.labels.is_file() else ""
        height, width = frame_hw
        rows = [
            _row(line, class_count, f"{self.labels}:{number}")
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip()
        ]
        shares = np.array([row[1:] for row in rows], np.float32).reshape(-1, 4)
        scale = np.array([width, height, width, height], np.float32)
        return shares * scale, np.array([row[0] for row in rows], np.int32)


def labelled_pictures(data: Path, classes: Sequence[str]) -> list[LabelledPicture]:
    """The pictures that *data* (a data.yaml) declares for validation, sorted. Raises ModelError if there are none or
    its classes are not *classes*, the model's."""
    content = _read(data)
    _check_classes(content, data, classes)
    split = next((name for name in _SPLITS if content.get(name)), None)
    if split is None:
        raise ModelError(f"{data}: val: missing; expected the folder of the labelled pictures")
    declared = content[split] if isinstance(content[split], list) else [content[split]]
    found = [picture for entry in declared for picture in _expand(data, content.get("path"), str(entry), split)]
    pictures = [LabelledPicture(path, _labels_of(path)) for path in sorted(set(found))]
    if not pictures:
        raise ModelError(f"{data}: {split}: no pictures in {declared}; expected files ending in {', '.join(PICTURES)}")
    if not any(picture.labels.is_file() for picture in pictures):
        raise ModelError(f"{data}: {split}: no labels; expected for example {pictures[0].labels}")
    return pictures


def spread(count: int, most: int) -> list[int]:
    """At most *most* indices of 0..count-1, evenly spread, the same each time."""
    return sorted({round(step) for step in np.linspace(0, count - 1, min(count, most))}) if count else []


def _text(path: Path, expected: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: {getattr(error, 'strerror', None) or error}; expected {expected}") from error


def _read(data: Path) -> dict[str, Any]:
    yaml = required("yaml")
    try:
        content = yaml.safe_load(_text(data, "a data.yaml"))
    except yaml.YAMLError as error:
        raise ModelError(f"{data}: is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{data}: expected the keys names and val, got {type(content).__name__}")
    return content


def _check_classes(content: dict[str, Any], data: Path, classes: Sequence[str]) -> None:
    names = content.get("names")
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=lambda key: int(key) if str(key).isdigit() else -1)]
    count = len(names) if isinstance(names, list) else content.get("nc")
    if count != len(classes):
        raise ModelError(
            f"{data}: names: {count} classes, but the model has {len(classes)} ({', '.join(classes)}); "
            "give the data.yaml that it was trained with"
        )
    for index, (name, own) in enumerate(zip(names or [], classes)):
        if str(name) != own:
            raise ModelError(
                f"{data}: names: class {index} is {str(name)!r}, but the model calls it {own!r}; "
                "give the data.yaml that it was trained with"
            )


def _expand(data: Path, root: Any, entry: str, split: str) -> list[Path]:
    """The pictures behind one entry: a folder, or a text file that lists pictures. Relative to `path`, which is
    relative to the file itself; failing that, to the working directory, as Ultralytics reads it."""
    tried = [base / str(root or ".") / entry for base in (data.resolve().parent, Path.cwd())]
    place = next((path for path in tried if path.exists()), None)
    if place is None:
        raise ModelError(f"{data}: {split}: {tried[0]} does not exist; correct path: or {split}: in it")
    if place.is_dir():
        return pictures_in(place, deep=True)
    listed = [line.strip() for line in _text(place, "a list of pictures").splitlines() if line.strip()]
    paths = [place.parent / line for line in listed]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise ModelError(f"{place}: lists {missing}, which does not exist")
    return paths


def _labels_of(picture: Path) -> Path:
    """The last folder named images becomes labels; a picture elsewhere has its labels beside it."""
    parts = list(picture.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _row(line: str, class_count: int, where: str) -> tuple[int, float, float, float, float]:
    """Class, and corners in shares of the picture's sides; of a polygon its bounding box. Raises ModelError."""
    try:
        label, *numbers = (float(word) for word in line.split())
    except ValueError as error:
        raise ModelError(f"{where}: expected numbers: class x y width height; got {line.strip()[:80]!r}") from error
    if not 0 <= label < class_count or label != int(label):
        raise ModelError(f"{where}: class {label:g}; the model has 0..{class_count - 1}")
    if not np.isfinite(numbers).all() or len(numbers) < 4 or (len(numbers) > 4 and len(numbers) % 2):
        raise ModelError(f"{where}: expected class x y width height; got {line.strip()[:80]!r}")
    if len(numbers) == 4:
        x, y, width, height = numbers
        return int(label), x - width / 2, y - height / 2, x + width / 2, y + height / 2
    xs, ys = numbers[0::2], numbers[1::2]
    return int(label), min(xs), min(ys), max(xs), max(ys)
