"""From a file on disk to Settings, or to every mistake at once in words that name the key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError as EnvironmentSettingsError

from defectd.camera_settings import CameraSettings
from defectd.errors import SettingsError
from defectd.settings import Settings, without_password

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_settings(path: Path) -> Settings:
    """Parse *path* and the environment. Relative paths in the file are relative to the file.

    Raises SettingsError with one line for each mistake: the key, the value, what was expected.
    """
    table = _read_table(path)
    try:
        settings = Settings(**table)
    except ValidationError as error:
        raise SettingsError([_explain(path, dict(problem)) for problem in error.errors()]) from None
    except EnvironmentSettingsError as error:
        raise SettingsError([f"environment: {error}; expected JSON, or DEFECTD_TABLE__KEY=value"]) from None
    return _resolve_paths(settings, path.resolve().parent)


def _read_table(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{path}: not valid TOML: {error}"]) from None
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}; expected a TOML file"]) from None


def _explain(path: Path, problem: dict[str, Any]) -> str:
    key = _key(problem["loc"])
    kind, message, value = problem["type"], problem["msg"], problem["input"]
    if kind == "missing":
        return f"{path}: {key}: missing; expected a value"
    if kind == "extra_forbidden":
        return f"{path}: {key}: unknown key; expected one that docs/configuration.md lists"
    if kind == "union_tag_not_found":
        return f"{path}: {key}.kind: missing; expected 'replay', 'simulated' or 'opencv'"
    if kind == "union_tag_invalid":
        context = problem["ctx"]
        return f"{path}: {key}.kind: got {context['tag']!r}, expected one of {context['expected_tags']}"
    if kind == "value_error":
        return f"{path}: {key}: {message.replace('Value error, ', '')}"
    expected = message[0].lower() + message[1:]
    shown = "(hidden)" if "password" in key else repr(without_password(value) if isinstance(value, str) else value)
    return f"{path}: {key}: got {shown}, expected: {expected}"


def _key(location: tuple[Any, ...]) -> str:
    """`camera.0.rate_hz` as a person counts: camera[1].rate_hz. The union's tag is not a key."""
    parts: list[str] = []
    for index, part in enumerate(location):
        if isinstance(part, int):
            parts[-1] += f"[{part + 1}]"
        elif not (index == 2 and location[0] == "camera"):
            parts.append(str(part))
    return ".".join(parts) or "settings"


def _resolve_paths(settings: Settings, folder: Path) -> Settings:
    def resolved(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    mqtt = settings.mqtt
    tls = mqtt.tls.model_copy(update={key: resolved(getattr(mqtt.tls, key)) for key in ("ca", "cert", "key")})
    cameras = [_resolve_camera(camera, folder) for camera in settings.camera]
    model = {key: resolved(getattr(settings.model, key)) for key in ("path", "trust")}
    sources = [
        source.model_copy(update={key: resolved(getattr(source, key)) for key in ("ca", "directory")})
        for source in settings.rollout.source
    ]
    return settings.model_copy(
        update={
            "mqtt": mqtt.model_copy(update={"tls": tls, "password_file": resolved(mqtt.password_file)}),
            "model": settings.model.model_copy(update=model),
            "rollout": settings.rollout.model_copy(update={"source": sources}),
            "camera": cameras,
            "state": settings.state.model_copy(update={"directory": resolved(settings.state.directory)}),
        }
    )


def _resolve_camera(camera: CameraSettings, folder: Path) -> CameraSettings:
    if camera.kind == "replay":
        return camera.model_copy(update={"path": folder / camera.path.expanduser()})
    if camera.kind == "opencv" and isinstance(camera.source, str) and "://" not in camera.source:
        return camera.model_copy(update={"source": str(folder / camera.source)})
    return camera
