"""Settings held against the world, before anything is started: the model, its classes, files, the state directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from defectd.camera.codes import why_no_codes
from defectd.camera.genicam import why_no_aravis
from defectd.camera.pipelines import PIPELINES
from defectd.camera.recorded import is_recording
from defectd.camera.running import why_no_gstreamer
from defectd.camera_settings import CameraSettings
from defectd.errors import ModelError, SettingsError, StateError
from defectd.inspection.recipe import DefectRule, Recipe, Region
from defectd.model_source import ServedModel, open_model
from defectd.settings import Settings
from defectd.tracking.tracker import why_no_tracker


@dataclass(frozen=True)
class Checked:
    """Settings that were held against the world: the model is verified and knows the recipe's classes."""

    settings: Settings
    model: ServedModel


def check(settings: Settings, *, dev: bool = False) -> Checked:
    """Hold *settings* against the model, the files and the state directory; with *dev*, programs that nobody signed
    will do. Raises SettingsError with every problem at once."""
    problems: list[str] = []
    model = None
    try:
        model = open_model(settings, dev=dev)
    except ModelError as error:
        problems.append(f"model.path: {error}")
    if model is not None:
        unknown = build_recipe(settings).unknown_classes(model.names)
        problems += [
            f"inspection.defect.class_name: the model has no class {name!r}; expected one of {', '.join(model.names)}"
            for name in unknown
        ]
    for index, camera in enumerate(settings.camera, 1):
        problems += [f"camera[{index}].{problem}" for problem in _camera_problems(camera)]
    if settings.evidence.collect == "needs_review" and all(d.review_from is None for d in settings.inspection.defect):
        problems.append(
            'evidence.collect: "needs_review" collects nothing, for no [[inspection.defect]] has a review_from; '
            'expected one, or "failed_and_review"'
        )
    problems += _file_problems(settings)
    if settings.rollout.source and model is not None and (model.bundle is None or settings.model.trust is None):
        problems.append(
            "rollout.source: rollouts begin with a signed bundle; expected model.path = a bundle, and model.trust"
        )
    try:
        _usable_directory(settings.state.directory)
    except StateError as error:
        problems.append(f"state.directory: {error}")
    if problems or model is None:
        raise SettingsError(problems)
    return Checked(settings, model)


def _camera_problems(camera: CameraSettings) -> Iterator[str]:
    """What it needs that is not on this machine."""
    if camera.kind == "replay" and not camera.path.exists():
        yield f"path: {camera.path} does not exist; expected a folder of pictures or a video"
    elif camera.kind == "replay" and camera.pace == "recorded" and not is_recording(camera.path):
        yield f"pace: {camera.path} is no recording of `defectd record`"
    if camera.kind == "aravis" and (missing := why_no_aravis()) is not None:
        yield f"kind: {missing}"
    if camera.kind in PIPELINES and (missing := why_no_gstreamer()) is not None:
        yield f"kind: {missing}"
    if camera.code is not None and (missing := why_no_codes()) is not None:
        yield f"code: {missing}"
    if camera.track is not None and (missing := why_no_tracker()) is not None:
        yield f"track: {missing}"


def build_recipe(settings: Settings) -> Recipe:
    """The recipe that the settings describe."""
    inspection = settings.inspection
    rules = tuple(DefectRule(**defect.model_dump()) for defect in inspection.defect)
    regions = tuple(
        Region(region.kind == "include", tuple(region.polygon), region.camera) for region in inspection.region
    )
    return Recipe(inspection.recipe, inspection.revision, rules, regions)


def _file_problems(settings: Settings) -> list[str]:
    mqtt = settings.mqtt
    files = {
        "mqtt.password_file": mqtt.password_file,
        "mqtt.tls.ca": mqtt.tls.ca,
        "mqtt.tls.cert": mqtt.tls.cert,
        "mqtt.tls.key": mqtt.tls.key,
        **{f"rollout.source.{source.alias}.ca": source.ca for source in settings.rollout.source},
    }
    return [
        f"{key}: {path} cannot be read; expected a text file that this user may read"
        for key, path in files.items()
        if path is not None and not _is_readable_text(path)
    ]


def _is_readable_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return True


def _usable_directory(directory: Path) -> None:
    """Raises StateError if the state cannot be kept there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".probe"
        try:
            probe.write_bytes(b"x" * 4096)
        finally:
            probe.unlink()
    except OSError as error:
        raise StateError(
            f"{directory}: {error.strerror}; expected a directory that this user may write, with free space"
        ) from error
