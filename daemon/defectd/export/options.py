"""What a person can choose about an export."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class ExportOptions:
    """None leaves the choice to us: `imgsz` (pixels, square) is then what the model was trained at; `data` is
    Ultralytics' data.yaml, whose labelled pictures give the mAP; `golden` a folder of pictures, by default up to 16 of
    the labelled ones; `release_seq` the seconds since 1970, so that it grows. `end2end`: where a network has a head
    that needs no suppression (YOLOv10, YOLO26), that one is exported, not its other one."""

    imgsz: int | None = None
    data: Path | None = None
    golden: Path | None = None
    name: str | None = None
    version: str | None = None
    release_seq: int | None = None
    expires_days: int | None = None
    allow_drop: bool = False
    critical_classes: tuple[str, ...] = ()
    end2end: bool = True
    confidence: float = 0.25
    nms_iou: float = 0.7


def bundle_name(options: ExportOptions, checkpoint: Path) -> str:
    """As asked for, else after the checkpoint; where that is only best.pt or last.pt, after the training run."""
    if options.name is not None:
        return options.name
    folder = checkpoint.resolve().parent
    if checkpoint.stem not in ("best", "last"):
        raw = checkpoint.stem
    else:
        raw = folder.parent.name if folder.name == "weights" else folder.name
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in raw)
    return kept.lstrip("._-")[:64] or "model"


def bundle_version(options: ExportOptions, created: datetime) -> str:
    """As asked for, else the moment."""
    return options.version if options.version is not None else created.strftime("%Y.%m.%d-%H%M%S")
