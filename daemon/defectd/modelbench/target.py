"""What a person put on the bench: a bundle, or a TorchScript file, which is treated as a bundle of one format."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from defectd import __version__
from defectd.clock import utc_now
from defectd.engine.choice import Candidate
from defectd.errors import ModelError
from defectd.modelbench.findings import Subject
from defectd.models.bundle import Bundle, check_compatible, open_bundle
from defectd.models.fingerprint import device_tags
from defectd.models.manifest import MANIFEST, Artifact, Exporter, Manifest, Network
from defectd.models.metadata import ModelMetadata, read_metadata
from defectd.models.trust import Root

_NAME = "model.torchscript"
_SINGLE = "a TorchScript file has no other format in it; make a bundle: defectd model export"


@dataclass(frozen=True)
class Target:
    """Verified. `file` is set for a single TorchScript file; then `bundle` exists in memory only."""

    bundle: Bundle
    subject: Subject
    file: Path | None

    def locate(self, candidate: Candidate) -> Candidate:
        """*candidate* with the file that a person named, or why there is none."""
        if self.file is None:
            return candidate
        if candidate.source is None:
            return replace(candidate, obstacle=_SINGLE)
        return replace(candidate, source=self.file)


def open_target(path: Path, root: Root | None, *, allow_unsigned: bool) -> Target:
    """A bundle directory or a .torchscript file. Raises ModelError (and TrustError), which names it and the remedy."""
    if path.is_dir():
        if not (path / MANIFEST).exists():
            raise ModelError(
                f"{path}: has no {MANIFEST}; expected a bundle (defectd model export) or a .torchscript file"
            )
        bundle = open_bundle(path, root, now=utc_now(), allow_unsigned=allow_unsigned)
        check_compatible(bundle.manifest, device_tags(), __version__)
        return Target(bundle, _subject(path, bundle), None)
    if not path.exists():
        raise ModelError(f"{path}: no such file; expected a bundle (defectd model export) or a .torchscript file")
    bundle = _bundle_of(path.resolve(), read_metadata(path))
    return Target(bundle, _subject(path, bundle), path.resolve())


def _subject(path: Path, bundle: Bundle) -> Subject:
    manifest = bundle.manifest
    version = manifest.version if path.is_dir() else ""
    return Subject(
        manifest.name, version, bundle.manifest_sha256, path.name, manifest.network.input_hw,
        tuple(manifest.network.classes), len(manifest.golden.pictures),
    )  # fmt: skip


def _bundle_of(path: Path, metadata: ModelMetadata) -> Bundle:
    """Nobody signed it, and it brings no golden pictures: speed can be measured, agreement cannot."""
    unknown = "unknown"
    manifest = Manifest(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:64] or "model",
        version="0",
        release_seq=1,
        created=utc_now(),
        artifacts=[Artifact(role="torchscript", name=_NAME, size=metadata.size_bytes, sha256=metadata.sha256)],
        network=Network(
            input_hw=metadata.input_hw,
            stride=metadata.stride,
            classes=list(metadata.names),
            end2end=bool(metadata.end2end),
        ),
        exporter=Exporter(
            defectd=unknown,
            torch=unknown,
            ultralytics=metadata.exporter,
            checkpoint_sha256="0" * 64,
            checkpoint=unknown,
        ),
    )
    return Bundle(path.parent, manifest, metadata.sha256, ())
