"""The evidence worker: JPEGs of single units, by date, bounded in bytes and age; and pictures to train with."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import deque
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defectd.evidence.retention import Retention
from defectd.storage import write_durably
from defectd.workers.channel import Channel
from defectd.workers.child import run_worker
from defectd.workers.protocol import Alive, Kind, Note
from defectd.workers.ring import FrameRing

log = logging.getLogger(__name__)

_RED = (40, 40, 230)
_SWEEP_EVERY_S = 60.0
_FORMATS: dict[str, tuple[str, list[int]]] = {"jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]), "png": (".png", [])}


def work(channel: Channel, configuration: dict[str, Any], rings: list[FrameRing]) -> None:
    """Write pictures until the daemon closes the channel."""
    evidence, collect = configuration["evidence"], configuration["collect"]
    directory = Path(evidence["directory"])
    retention = _tidy(directory, evidence["max_bytes"], evidence["max_age_s"])
    album = None
    if collect["directory"] is not None:
        collected = Path(collect["directory"])
        album = Album(collected, collect["picture_format"], _tidy(collected, collect["max_bytes"], math.inf))
    channel.send(Note(Kind.READY, {}))
    swept_s = time.monotonic()
    later: deque[dict[str, Any]] = deque()  # an event waits for evidence, and nobody for training data
    while True:
        record = channel.receive(timeout_s=0 if later else 1.0)
        if isinstance(record, Note) and record.kind is Kind.KEEP:
            if "about" in record.body:
                later.append(record.body)
            else:
                channel.send(Note(Kind.KEPT, keep(directory, rings, record.body, evidence["jpeg_quality"], retention)))
        elif later and album is not None:
            channel.send(Note(Kind.KEPT, album.add(rings, later.popleft())))
        else:
            channel.send(Alive())
        is_due = time.monotonic() - swept_s > _SWEEP_EVERY_S
        for each in [retention] if album is None else [retention, album.retention]:
            if each.over_bound or is_due:
                each.sweep(time.time())
        swept_s = time.monotonic() if is_due else swept_s


def _tidy(directory: Path, max_bytes: int, max_age_s: float) -> Retention:
    directory.mkdir(parents=True, exist_ok=True)
    for torn in directory.rglob(".*.tmp"):  # a power cut left it
        torn.unlink()
    retention = Retention(directory, max_bytes, max_age_s)
    retention.sweep(time.time())
    return retention


def keep(
    directory: Path, rings: list[FrameRing], job: dict[str, Any], quality: int, retention: Retention
) -> dict[str, Any]:
    """Write both pictures of one job; the body of its KEPT note."""
    pixels = rings[job["ring"]].pixels(job["slot"], job["height_px"], job["width_px"])
    images: list[dict[str, Any]] = []
    if not retention.has_room(time.time()):
        return {"id": job["id"], "images": images, "trouble": f"{directory}: the disk is full; free some space"}
    trouble = ""
    try:
        pictures = {"raw": pixels, **({"annotated": annotated(pixels, job["boxes"])} if job["boxes"] else {})}
        for role, picture in pictures.items():
            name = f"{job['day']}/{job['id']}{'' if role == 'raw' else '-boxes'}.jpg"
            data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            (directory / job["day"]).mkdir(exist_ok=True)
            write_durably(directory / name, data)
            retention.added(len(data))
            images.append({"role": role, "path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    except OSError as error:
        trouble = f"{directory}: {error.strerror}"
        log.warning("no evidence for %s: %s", job["id"], trouble)
    return {"id": job["id"], "images": images, "trouble": trouble}


class Album:
    """Training data: raw pictures, and beside each what the model saw."""

    def __init__(self, directory: Path, picture_format: str, retention: Retention) -> None:
        self._directory, self.retention = directory, retention
        self._end, self._options = _FORMATS[picture_format]

    def add(self, rings: list[FrameRing], job: dict[str, Any]) -> dict[str, Any]:
        """Write one picture, then its JSON: where there is a JSON, both are whole. The body of its KEPT note."""
        if not self.retention.has_room(time.time()):
            return _kept(job, f"{self._directory}: the disk is full; free some space")
        pixels = rings[job["ring"]].pixels(job["slot"], job["height_px"], job["width_px"])
        data, about = cv2.imencode(self._end, pixels, self._options)[1].tobytes(), job["about"].encode()
        day = self._directory / job["day"]
        try:
            day.mkdir(exist_ok=True)
            write_durably(day / f"{job['name']}{self._end}", data)
            self.retention.added(len(data) + len(about))
            write_durably(day / f"{job['name']}.json", about)
        except OSError as error:
            log.warning("%s was not collected: %s", job["name"], error)
            return _kept(job, f"{self._directory}: {error.strerror}")
        return _kept(job, "")


def _kept(job: dict[str, Any], trouble: str) -> dict[str, Any]:
    return {"id": job["id"], "images": [], "trouble": trouble}


def annotated(pixels: NDArray[np.uint8], boxes: list[list[Any]]) -> NDArray[np.uint8]:
    """A copy of the (H, W, 3) BGR picture with each [x, y, width, height, label] drawn on it."""
    picture: NDArray[np.uint8] = pixels.copy()
    thickness = max(1, round(max(picture.shape[:2]) / 500))
    for x, y, width, height, label in boxes:
        corner = (round(x + width), round(y + height))
        cv2.rectangle(picture, (round(x), round(y)), corner, _RED, thickness)
        above = (round(x), max(12, round(y) - 4))
        cv2.putText(picture, label, above, cv2.FONT_HERSHEY_SIMPLEX, 0.45 * thickness, _RED, thickness)
    return picture


if __name__ == "__main__":
    run_worker(work)
