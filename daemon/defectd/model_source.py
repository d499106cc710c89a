"""What `[model]` names, opened and verified: a signed bundle, or a file that a person chose."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from defectd import __version__
from defectd.clock import utc_now
from defectd.engine.selection import (
    candidates,
)
from defectd.errors import ModelError, StateError
from defectd.models.bundle import Bundle, check_compatible, open_bundle
from defectd.models.fingerprint import device_tags, installed_versions
from defectd.models.metadata import ModelMetadata, parse_engine_metadata, read_metadata
from defectd.models.store import Store
from defectd.models.trust import Root, TrustError, next_root, read_root, root_to_json
from defectd.settings import ModelSettings, Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """What is to judge. Of a bundle, `sha256` is that of its manifest; `warning` is what a person should know."""

    path: Path
    name: str
    version: str
    sha256: str
    names: tuple[str, ...]
    input_hw: tuple[int, int]
    bundle: Bundle | None = None
    warning: str | None = None


def open_model(settings: Settings, *, dev: bool) -> ServedModel:
    """The model that `[model]` names, verified. With *dev*, programs that nobody signed will do. Raises ModelError."""
    model = settings.model
    if _is_directory(model.path):
        bundle, warning = _open_signed(settings, dev=dev)
        if model.name is not None or model.version is not None:
            raise ModelError(f"{model.path}: a bundle has its own name and version; remove those of [model]")
        manifest = bundle.manifest
        check_compatible(manifest, device_tags(), __version__)
        if model.runtime != "auto":
            _check_runtime(bundle, model)
        return ServedModel(
            model.path, manifest.name, manifest.version, bundle.manifest_sha256, tuple(manifest.network.classes),
            manifest.network.input_hw, bundle, warning,
        )  # fmt: skip
    return _single_file(model, dev=dev)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected a bundle or a model that this user may read") from error


def is_engine(path: Path) -> bool:
    """True for a TensorRT engine, by its name."""
    return path.suffix in (".engine", ".plan")


def _check_runtime(bundle: Bundle, model: ModelSettings) -> None:
    """Raises ModelError if the runtime that a person asks for cannot be had."""
    found = candidates(bundle, device=model.device, precision=model.precision, versions=installed_versions())
    wanted = next(candidate for candidate in found if candidate.runtime == model.runtime)
    if wanted.obstacle is not None:
        possible = ", ".join(one.runtime for one in found if one.obstacle is None) or "none"
        raise ModelError(f'{model.path}: runtime = "{model.runtime}": {wanted.obstacle}; possible here: {possible}')


def _single_file(model: ModelSettings, *, dev: bool) -> ServedModel:
    """A file that a person put there and named in the configuration."""
    if is_engine(model.path) and not dev:
        raise ModelError(
            f"{model.path}: a TensorRT engine is a program, and nobody has signed it; expected a signed bundle "
            "(defectd model export, sign). On a test bench: defectd run --dev"
        )
    runtime = "tensorrt" if is_engine(model.path) else "torchscript"
    if model.runtime not in ("auto", runtime):
        raise ModelError(
            f'{model.path}: runtime = "{model.runtime}": this file runs as {runtime}; the others need a bundle '
            "(defectd model export)"
        )
    metadata = _engine_metadata(model.path) if is_engine(model.path) else read_metadata(model.path)
    return ServedModel(
        model.path, model.name or model.path.stem, model.version or "0", metadata.sha256, metadata.names,
        metadata.input_hw, warning=f"{model.path}: served unsigned (--dev)" if is_engine(model.path) else None,
    )  # fmt: skip


def _engine_metadata(path: Path) -> ModelMetadata:
    try:
        return parse_engine_metadata(path.read_bytes(), path)[0]
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected an .engine of Ultralytics, or a bundle") from error


def _open_signed(settings: Settings, *, dev: bool) -> tuple[Bundle, str | None]:
    """A bundle that this device has accepted once may expire: a line does not stop for that. Raises ModelError."""
    model, now = settings.model, utc_now()
    root = None if model.trust is None else trusted_root(settings)
    if root is None and not dev:
        raise ModelError(
            f"{model.path}: nobody vouches for this bundle; expected model.trust = the root.json of whoever signs "
            "yours (defectd model keygen, sign). On a test bench: defectd run --dev"
        )
    try:
        bundle = open_bundle(model.path, root, now=now, allow_unsigned=dev)
    except TrustError as error:
        if root is None:
            raise
        bundle = open_bundle(model.path, root, now=None)  # the same, but for the dates
        if not _was_accepted(settings.state.directory, bundle.manifest_sha256):
            raise
        return bundle, f"{error}; it serves on, because this device accepted it before"
    unsigned = None if bundle.signed_by else f"{model.path}: served although nobody vouches for it (--dev)"
    return bundle, unsigned


def kept_root(state: Path) -> Path:
    """The root.json that this device has used last."""
    return state / "trust" / "root.json"


def trusted_root(settings: Settings) -> Root:
    """What `model.trust` names, if it is what this device trusts already, or follows from it. The first one is
    believed: a person put it there. Raises TrustError."""
    path, kept = settings.model.trust, kept_root(settings.state.directory)
    assert path is not None
    root = read_root(path)
    try:
        known = read_root(kept) if kept.exists() else None
    except OSError as error:
        raise TrustError(f"{kept}: {error.strerror}; run this as the user whom the state belongs to") from error
    if known is None:
        return root
    if root_to_json(root) == root_to_json(known):
        return root
    anew = f"to trust anew by hand, delete {kept}"
    if root.version <= known.version:
        raise TrustError(f"{path}: is version {root.version}, this device trusts version {known.version}; {anew}")
    try:
        return next_root(known, path.read_bytes(), None)
    except (OSError, TrustError) as error:
        raise TrustError(
            f"{path}: does not follow version {known.version}, which this device trusts: {error}; "
            f"install those between in turn; {anew}"
        ) from error


def _was_accepted(state: Path, manifest_sha256: str) -> bool:
    directory = store_directory(state)
    if not (directory / "models.db").exists():
        return False
    try:
        store = Store(directory)
        try:
            return store.accepted(manifest_sha256) is not None
        finally:
            store.close()
    except StateError as error:
        log.warning("%s: %s", directory, error)
        return False


def store_directory(state: Path) -> Path:
    """Where models are kept."""
    return state / "models"
