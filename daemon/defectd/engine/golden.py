"""The golden check: what a warm engine sees in the bundle's pictures, against what the original model saw there.

Never during the first calls of a runtime, which may give other numbers than all later ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Protocol

import numpy as np
from numpy.typing import NDArray

from defectd.errors import ModelError
from defectd.inspection.detections import Detections, EngineTimings
from defectd.inspection.yolo import Thresholds
from defectd.models.golden import GoldenReport, compare, expected_detections
from defectd.models.manifest import AcceptanceLimits, parse_manifest
from defectd.workers.child import Unusable

Pixels = NDArray[np.uint8]


class Judged(Protocol):
    """What is checked; see Engine."""

    def infer(self, pixels: Pixels) -> tuple[Detections, EngineTimings]:
        """What it sees."""
        ...

    def judge_by(self, thresholds: Thresholds) -> None:
        """From now on."""
        ...


@dataclass(frozen=True)
class GoldenOrder:
    """The manifest that knows the pictures, which lie beside it, and what was seen in them."""

    manifest: Path
    sha256: str

    @classmethod
    def of(cls, body: dict[str, Any]) -> GoldenOrder:
        """From JSON. Raises KeyError, TypeError."""
        return cls(Path(body["manifest"]), str(body["sha256"]))

    def read(self) -> GoldenSet:
        """Where the pictures are, and the answers, hashed again. Raises Unusable, which names the file."""
        try:
            data = _verified(self.manifest, self.sha256)
            manifest = parse_manifest(data, str(self.manifest))
        except ModelError as error:
            raise Unusable(str(error)) from error
        network, golden = manifest.network, manifest.golden
        hashes = {artifact.name: artifact.sha256 for artifact in manifest.artifacts}
        paths = {picture.image: self.manifest.with_name(picture.image) for picture in golden.pictures}
        return GoldenSet(
            paths=list(paths.values()),
            hashes=[hashes[name] for name in paths],
            expected=[expected_detections(picture) for picture in golden.pictures],
            classes=tuple(network.classes),
            limits=golden.limits,
            thresholds=Thresholds(network.confidence, network.nms_iou),
        )


@dataclass(frozen=True)
class GoldenSet:
    """Pictures, and what the original saw in them at `thresholds`. One is in memory at a time."""

    paths: list[Path]
    hashes: list[str]
    expected: list[Detections]
    classes: tuple[str, ...]
    limits: AcceptanceLimits
    thresholds: Thresholds

    def picture(self, index: int) -> Pixels:
        """(H, W, 3) BGR, hashed. Raises Unusable, which names the file."""
        path = self.paths[index]
        return _decode(path, _verified(path, self.hashes[index]))

    def compare(self, engine: Judged, say: Callable[[float], None]) -> GoldenReport | None:
        """What *engine* sees in them, at `thresholds`, which it keeps; *say* hears the share that is done. None if
        there are no pictures. Raises what `infer` raises, and Unusable."""
        if not self.paths:
            return None
        engine.judge_by(self.thresholds)
        found = []
        for index in range(len(self.paths)):
            say(index / len(self.paths))
            found.append(engine.infer(self.picture(index))[0])
        return compare(self.expected, found, self.classes, self.thresholds.confidence, self.limits)


def _verified(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}; import the bundle again") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Unusable(f"{path}: its SHA-256 is not that of the bundle; import the bundle again")
    return data


def _decode(path: Path, data: bytes) -> Pixels:
    """As the replaying camera decodes it."""
    import cv2  # noqa: PLC0415 - a missing package is an answer, too

    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise Unusable(f"{path}: {error}") from error
    if image is None:
        raise Unusable(f"{path}: is not a whole picture; copy the bundle again")
    return np.asarray(image, np.uint8)
