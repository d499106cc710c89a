"""Everything of a manifest that is known before the work: checked first, so that a typing mistake costs no minutes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import torch
from pydantic import ValidationError

from defectd import __version__
from defectd.errors import ModelError
from defectd.export.checkpoint import Original
from defectd.export.options import ExportOptions, bundle_name, bundle_version
from defectd.models.manifest import (
    AcceptanceLimits,
    Artifact,
    Exporter,
    Golden,
    GoldenPicture,
    Manifest,
    Network,
    Parity,
    Requires,
)  # fmt: skip

_BYTES_PER_MB = 1024 * 1024
_MOST_DAYS = 36_500


@dataclass(frozen=True)
class Release:
    """What a person calls the bundle, what the network is, and where both come from."""

    name: str
    version: str
    release_seq: int
    created: datetime
    expires: datetime | None
    network: Network
    limits: AcceptanceLimits
    exporter: Exporter

    def manifest(self, artifacts: list[Artifact], pictures: list[GoldenPicture], parity: list[Parity]) -> Manifest:
        """The whole. Raises ValidationError."""
        size_mb = -(-sum(artifact.size for artifact in artifacts) // _BYTES_PER_MB)
        return Manifest(
            name=self.name,
            version=self.version,
            release_seq=self.release_seq,
            created=self.created,
            expires=self.expires,
            requires=Requires(disk_mb=2 * size_mb),  # the store's copy, and about as much for engines
            artifacts=artifacts,
            network=self.network,
            exporter=self.exporter,
            golden=Golden(pictures=pictures, limits=self.limits),
            parity=parity,
        )


def release_of(original: Original, options: ExportOptions, now: datetime) -> Release:
    """As *options* say, and where they do not, after the checkpoint and *now*. Raises ModelError, which names the
    option."""
    days, created = options.expires_days, now.replace(microsecond=0)
    if days is not None and not 1 <= days <= _MOST_DAYS:
        raise ModelError(f"expires-days: {days}; expected 1 to {_MOST_DAYS}")
    try:
        release = Release(
            name=bundle_name(options, original.path),
            version=bundle_version(options, created),
            release_seq=options.release_seq if options.release_seq is not None else int(created.timestamp()),
            created=created,
            expires=created + timedelta(days=days) if days is not None else None,
            network=Network(
                input_hw=original.input_hw,
                stride=original.stride,
                classes=list(original.classes),
                end2end=original.end2end,
                confidence=options.confidence,
                nms_iou=options.nms_iou,
            ),
            limits=AcceptanceLimits(critical_classes=list(options.critical_classes)),
            exporter=Exporter(
                defectd=__version__,
                torch=torch.__version__,
                ultralytics=original.ultralytics,
                checkpoint_sha256=original.sha256,
                checkpoint=original.path.name[-200:],
            ),
        )
        release.manifest([Artifact(role="onnx", name="model.onnx", size=1, sha256="0" * 64)], [], [])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        raise ModelError(f"{key}: {first['msg']}; got {first['input']!r}" if key else first["msg"]) from error
    return release
