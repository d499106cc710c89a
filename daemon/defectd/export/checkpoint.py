"""An Ultralytics checkpoint: loaded, judged fit for a station, and made ready to be exported.

Loading runs code that the file names: PyTorch calls models programs. Only an engineer's own machine does it, never a
station.
"""

from __future__ import annotations

import copy
import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from defectd.errors import ModelError
from defectd.export.packages import required

_USUAL_SIDE_PX = 640
_LEAST_SIDE_PX, _MOST_SIDE_PX = 32, 16_384
MAX_DETECTIONS = 300
"""Rows of an end-to-end head, as Ultralytics exports it."""


@dataclass(frozen=True)
class Original:
    """The network as it was trained: not fused, in evaluation and export mode, fp32 on the CPU.

    `input_hw` and `stride` in pixels; one input (1, 3, height, width) gives (1, 4 + classes, anchors), or (1, N, 6) if
    `end2end`.
    """

    module: torch.nn.Module
    classes: tuple[str, ...]
    input_hw: tuple[int, int]
    stride: int
    end2end: bool
    head: str
    path: Path
    sha256: str
    ultralytics: str


def load_checkpoint(path: Path, imgsz: int | None, *, end2end: bool = True) -> Original:
    """The detection model in *path*, for inputs of *imgsz* (None: as it was trained); with its head that needs no
    suppression if it has one and *end2end* says so. Raises ModelError."""
    sha256 = _check_file(path)
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # Ultralytics would pip-install what a checkpoint names
    ultralytics = required("ultralytics")
    try:
        module = ultralytics.YOLO(str(path.resolve())).model
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{path}: needs the Python module {error.name}, which cannot be imported; put the code that defines the "
            "model's layers on PYTHONPATH"
        ) from error
    except Exception as error:  # whatever a pickle raises
        raise ModelError(f"{path}: Ultralytics cannot load it: {_first_line(error)}") from error
    _check_kind(module, path)
    stride = int(max(module.stride))
    side = _side(imgsz, module, stride, path)
    _prepare(module, (side, side), end2end)
    return Original(
        module=module,
        classes=_classes(module, path),
        input_hw=(side, side),
        stride=stride,
        end2end=bool(getattr(module.model[-1], "end2end", False)),
        head=type(module.model[-1]).__name__,
        path=path,
        sha256=sha256,
        ultralytics=str(ultralytics.__version__),
    )


def fused(original: Original) -> torch.nn.Module:
    """A copy with each batch norm folded into its convolution, which has run once: its anchors are computed."""
    module: Any = copy.deepcopy(original.module)
    module = module.fuse(verbose=False).eval()
    for layer in module.modules():
        if hasattr(layer, "forward_split") and type(layer).__name__ == "C2f":
            layer.forward = layer.forward_split  # the same numbers, and a split that all formats know
    with torch.no_grad():
        module(torch.zeros(1, 3, *original.input_hw))
    return module  # type: ignore[no-any-return]


def _check_file(path: Path) -> str:
    """Its sha256. Raises ModelError for what is no readable checkpoint."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected an Ultralytics checkpoint such as best.pt") from error
    if path.suffix != ".pt":
        raise ModelError(f"{path}: expected an Ultralytics checkpoint, whose name ends in .pt")
    if not data:
        raise ModelError(f"{path}: is empty; copy it again")
    if data.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names, damaged = archive.namelist(), archive.testzip()
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
            raise ModelError(f"{path}: is truncated or damaged ({error}); copy it again") from error
        if damaged is not None:
            raise ModelError(f"{path}: is damaged: {damaged} fails its checksum; copy it again")
        if any(name.partition("/")[2].startswith("code/") for name in names):
            raise ModelError(f"{path}: is TorchScript already; expected the checkpoint that it was exported from")
    return hashlib.sha256(data).hexdigest()


def _check_kind(module: Any, path: Path) -> None:
    layers = getattr(module, "model", None)
    if not isinstance(layers, torch.nn.Sequential):
        raise ModelError(f"{path}: holds {type(module).__name__}; expected a YOLO detection model of Ultralytics")
    task, head = getattr(module, "task", None), type(layers[-1]).__name__
    if task != "detect":
        raise ModelError(f"{path}: its task is {task!r}; expected 'detect': train a detection model")
    if head == "RTDETRDecoder":
        raise ModelError(f"{path}: is an RT-DETR model; expected a YOLO detection model")
    channels = int(getattr(module, "yaml", {}).get("channels", 3))
    if channels != 3:
        raise ModelError(f"{path}: takes {channels} channels; expected 3: train it on colour images")


def _classes(module: Any, path: Path) -> tuple[str, ...]:
    names = module.names if isinstance(module.names, dict) else dict(enumerate(module.names))
    count = int(module.model[-1].nc)
    if sorted(names) != list(range(count)):
        raise ModelError(f"{path}: names {len(names)} classes, its head has {count}; train it again")
    return tuple(str(names[index]) for index in range(count))


def _side(imgsz: int | None, module: Any, stride: int, path: Path) -> int:
    """The input's side in pixels: *imgsz* where it is possible, else the training's, rounded up to the stride."""
    if imgsz is not None:
        if not _LEAST_SIDE_PX <= imgsz <= _MOST_SIDE_PX or imgsz % stride:
            below = max(imgsz // stride * stride, -(-_LEAST_SIDE_PX // stride) * stride)
            raise ModelError(
                f"imgsz: {imgsz}; {path.name} needs a multiple of its stride {stride}, from {_LEAST_SIDE_PX} to "
                f"{_MOST_SIDE_PX}, such as {min(below, _MOST_SIDE_PX)} or {min(below + stride, _MOST_SIDE_PX)}"
            )
        return imgsz
    arguments = getattr(module, "args", None)
    trained: Any = arguments.get("imgsz") if isinstance(arguments, dict) else getattr(arguments, "imgsz", None)
    if isinstance(trained, (list, tuple)) and trained:
        trained = max(trained)
    side = trained if isinstance(trained, int) and _LEAST_SIDE_PX <= trained <= _MOST_SIDE_PX else _USUAL_SIDE_PX
    return -(-side // stride) * stride


def _prepare(module: Any, input_hw: tuple[int, int], end2end: bool) -> None:
    """As Ultralytics' exporter prepares it: the head returns one tensor, of fixed size, and no gradient is kept. Which
    of two heads is the default changed between its releases, so it is always said."""
    module.float().eval().requires_grad_(requires_grad=False)
    head = module.model[-1]
    anchors = sum((input_hw[0] // int(stride)) * (input_hw[1] // int(stride)) for stride in module.stride)
    head.export, head.format, head.dynamic = True, "torchscript", False
    head.max_det, head.shape = min(MAX_DETECTIONS, anchors), None
    head.agnostic_nms, head.xyxy = False, False
    if getattr(head, "one2one_cv2", None) is not None:
        head.end2end = end2end


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
