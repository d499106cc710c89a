"""What a TorchScript file says about itself, read without torch and without executing a byte of it.

A stock Ultralytics export is a zip: `NAME/code/` (TorchScript source), `NAME/data.pkl` (never unpickled here), and
`NAME/extra/config.txt`, the exporter's JSON. It is untrusted input: everything read is bounded and checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from defectd.errors import ModelError

EXPORT_REMEDY = "export it: yolo export model=best.pt format=torchscript imgsz=640"
ENGINE_REMEDY = "export it on this device: yolo export model=best.pt format=engine imgsz=640"
_CHUNK_BYTES = 1024 * 1024
_MAX_CONFIG_BYTES = 1024 * 1024
_MAX_CLASSES = 10_000
_MAX_SIDE_PX = 16_384
_OTHER_FORMATS = {
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".onnx": "an ONNX model",
    ".tflite": "a TFLite model",
    ".safetensors": "a file of bare weights",
}


@dataclass(frozen=True)
class ModelMetadata:
    """One detection model. `sha256` is that of the whole file, `input_hw` in pixels, `stride` in pixels.

    `end2end` is None where the exporter did not say: releases of Ultralytics before 8.4 may not.
    """

    names: tuple[str, ...]
    input_hw: tuple[int, int]
    stride: int
    task: str
    end2end: bool | None
    batch: int
    channels: int
    dynamic: bool
    description: str
    exporter: str
    sha256: str
    size_bytes: int


def read_metadata(path: Path) -> ModelMetadata:
    """The metadata of the model at *path*. Raises ModelError, which names the file and the remedy."""
    try:
        if path.is_dir():
            raise ModelError(f"{path}: is a directory; expected a .torchscript file ({EXPORT_REMEDY})")
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected a .torchscript file ({EXPORT_REMEDY})") from error


def parse_metadata(data: bytes, path: Path) -> ModelMetadata:
    """The metadata of a model already in memory; *path* is for messages. Raises ModelError."""
    return _read(io.BytesIO(data), path)


def parse_engine_metadata(data: bytes, path: Path) -> tuple[ModelMetadata, int]:
    """What a stock Ultralytics `.engine` says about itself, and where in *data* the TensorRT plan begins: the file is
    the length of a JSON text in four bytes, that text, the plan. Raises ModelError."""
    length = int.from_bytes(data[:4], "little")
    try:
        metadata = _check(_header(data, length), path, hashlib.sha256(data).hexdigest(), len(data))
    except _Wrong as error:
        raise ModelError(f"{path}: {str(error).replace(EXPORT_REMEDY, ENGINE_REMEDY)}") from error
    return metadata, 4 + length


def _header(data: bytes, length: int) -> dict[str, Any]:
    if not (data[4:5] == b"{" and 0 < length <= min(_MAX_CONFIG_BYTES, len(data) - 4)):
        raise _Wrong("is not an Ultralytics .engine: its JSON header is missing; serve a bare plan from its bundle")
    try:
        config = json.loads(data[4 : 4 + length])
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"its header is not JSON ({error}); {EXPORT_REMEDY}") from error
    return dict(config)  # it begins with a brace


def declared_metadata(declared: dict[str, Any], data: bytes, path: Path) -> ModelMetadata:
    """The metadata of the model *data* that has none inside, or need not be asked: *declared* is the network of a
    manifest: names, input_hw, stride, end2end. Raises ModelError."""
    config = {"task": "detect", **{key: declared.get(key) for key in ("names", "stride", "end2end")}}
    side_px = declared.get("input_hw")
    config["imgsz"] = list(side_px) if isinstance(side_px, tuple) else side_px
    try:
        return _check(config, path, hashlib.sha256(data).hexdigest(), len(data))
    except _Wrong as error:
        raise ModelError(f"{path}: {error}") from error


def _read(file: BinaryIO, path: Path) -> ModelMetadata:
    sha256, size_bytes = _hash(file)
    try:
        config = _config(file, path)
        return _check(config, path, sha256, size_bytes)
    except _Wrong as error:
        raise ModelError(f"{path}: {error}") from error


class _Wrong(Exception):
    """What is wrong, what was expected, what to do."""


def _hash(file: BinaryIO) -> tuple[str, int]:
    digest, size_bytes = hashlib.sha256(), 0
    for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
        digest.update(chunk)
        size_bytes += len(chunk)
    return digest.hexdigest(), size_bytes


def _config(file: BinaryIO, path: Path) -> dict[str, Any]:
    """The exporter's JSON object."""
    file.seek(0)
    start = file.read(512)
    try:
        with zipfile.ZipFile(file) as archive:
            text = _config_text(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise _Wrong(_what_else(start, path)) from error
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"extra/config.txt is not JSON ({error}); {EXPORT_REMEDY}") from error
    if not isinstance(config, dict):
        raise _Wrong(f"extra/config.txt: expected a JSON object, got {type(config).__name__}; {EXPORT_REMEDY}")
    return config


def _config_text(archive: zipfile.ZipFile) -> bytes:
    names = archive.namelist()
    inner = {name.partition("/")[2] for name in names}
    if not any(name.startswith("code/") for name in inner):
        if "data.pkl" in inner:
            raise _Wrong(f"is a pickled checkpoint, which could run any code when loaded; {EXPORT_REMEDY}")
        raise _Wrong(f"is a zip archive but not a TorchScript model: it has no code/ inside; {EXPORT_REMEDY}")
    found = [name for name in names if name.partition("/")[2] == "extra/config.txt"]
    if len(found) != 1:
        raise _Wrong(
            "is TorchScript without Ultralytics' metadata: expected one extra/config.txt inside, "
            f"found {len(found)}; {EXPORT_REMEDY}"
        )
    with archive.open(found[0]) as entry:
        text = entry.read(_MAX_CONFIG_BYTES + 1)
    if len(text) > _MAX_CONFIG_BYTES:
        raise _Wrong(f"extra/config.txt is over the limit of {_MAX_CONFIG_BYTES} bytes")
    return text


def _what_else(start: bytes, path: Path) -> str:
    """What a file is that is no readable zip archive."""
    if not start:
        return f"is empty; {EXPORT_REMEDY}"
    if start.startswith(b"PK"):
        return "is truncated or damaged: it begins like a zip archive but cannot be read as one; copy it again"
    if start.startswith(b"\x80") or start[257:262] == b"ustar":
        return f"is a pickled checkpoint, which could run any code when loaded; {EXPORT_REMEDY}"
    kind = _OTHER_FORMATS.get(path.suffix.lower())
    if kind is None and (start[4:5] == b"{" or start.startswith(b"ptrt") or start[4:8] == b"ptrt"):
        kind = "a TensorRT engine"
    if kind is None and start[:1] == b"\x08" and b"\x12" in start[:16]:  # ModelProto: ir_version, producer_name
        kind = "an ONNX model"
    if kind is not None:
        return f"is {kind}; expected a .torchscript file ({EXPORT_REMEDY})"
    return f"is not a TorchScript model: it is no zip archive; {EXPORT_REMEDY}"


def _check(config: dict[str, Any], path: Path, sha256: str, size_bytes: int) -> ModelMetadata:
    raw_args = config.get("args")
    args: dict[str, Any] = raw_args if isinstance(raw_args, dict) else {}
    task, head = config.get("task"), config.get("head")
    if task != "detect":
        raise _Wrong(f"task is {task!r}; expected 'detect': train a detection model and {EXPORT_REMEDY}")
    if head == "RTDETRDecoder":
        raise _Wrong("is an RT-DETR model; expected a YOLO detection model")
    if args.get("nms"):
        raise _Wrong(f"was exported with nms=True, which fixes the thresholds; without it, {EXPORT_REMEDY}")
    batch = _integer(config.get("batch", 1), "batch", 1, 1, "with batch=1")
    channels = _integer(config.get("channels", 3), "channels", 3, 3, "from a model for colour images")
    end2end = config.get("end2end")
    if not (end2end is None or isinstance(end2end, bool)):
        raise _Wrong(f"end2end: expected true or false, got {end2end!r}; {EXPORT_REMEDY}")
    return ModelMetadata(
        names=_names(config.get("names")),
        input_hw=_input_hw(config.get("imgsz")),
        stride=_integer(config.get("stride", 32), "stride", 1, _MAX_SIDE_PX, "again"),
        task="detect",
        end2end=end2end,
        batch=batch,
        channels=channels,
        dynamic=bool(args.get("dynamic", False)),
        description=str(config.get("description", path.stem))[:200],
        exporter=str(config.get("version", "unknown"))[:50],
        sha256=sha256,
        size_bytes=size_bytes,
    )


def _names(value: Any) -> tuple[str, ...]:
    """From {"0": "open", "1": "short"} (the exporter's form) or a list, in the order of the class ids."""
    expected = f'names: expected {{"0": name, "1": name, …}} without gaps; {EXPORT_REMEDY}'
    if isinstance(value, list):
        value = {str(index): name for index, name in enumerate(value)}
    if not isinstance(value, dict) or not 0 < len(value) <= _MAX_CLASSES:
        raise _Wrong(expected)
    names = tuple(value.get(str(index)) for index in range(len(value)))
    if not all(isinstance(name, str) and name for name in names):
        raise _Wrong(expected)
    return tuple(str(name) for name in names)


def _input_hw(value: Any) -> tuple[int, int]:
    """From 640 or [height, width]."""
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, list) or len(sides) != 2:
        raise _Wrong(f"imgsz: expected [height, width], got {value!r}; {EXPORT_REMEDY}")
    height, width = (_integer(side, "imgsz", 1, _MAX_SIDE_PX, "with another imgsz") for side in sides)
    return height, width


def _integer(value: Any, key: str, least: int, most: int, remedy: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        expected = f"{least}" if least == most else f"{least}..{most}"
        raise _Wrong(f"{key}: expected {expected}, got {value!r}; export it {remedy}")
    return value
