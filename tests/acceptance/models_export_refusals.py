"""What `defectd model export` refuses: words to act on, exit code 3, and nothing left where the bundle was to be."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from acceptance.loop_refusals import START_FAILED
from acceptance.models_export import exporter
from support.proving import Proof, Setting, Short
from support.refused import file_system, refusal
from support.station import CHECKOUT, environment

_ANSWER_S = 300.0
_IMGSZ = "64"
_MAKE = Path(__file__).with_name("ultralytics_checkpoint.py")
_LAYERS = """
import torch


class Homemade(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x) * 1.5
"""

Arrange = Callable[[Path], "list[str | Path]"]
"""Makes the bad files in a directory; the arguments of `model export`, checkpoint first, less --out."""


@dataclass(frozen=True)
class NotExported:
    """`model export` ends with one line that has all *words*, and leaves nothing behind."""

    arrange: Arrange
    words: tuple[str, ...]

    def __call__(self, setting: Setting) -> str:
        out = setting.directory / "out"
        out.mkdir()
        arguments = self.arrange(setting.directory)
        started_s = time.monotonic()
        told = refusal(_export(*arguments, "--out", out / "bundle"), START_FAILED, *self.words)
        took_s = time.monotonic() - started_s
        if left := list(out.iterdir()):
            raise Short(f"{left} is left")
        return f"after {took_s:.0f} s: {told.replace(str(setting.directory), '…')}"


def _export(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """With the interpreter that has Ultralytics. Raises Skipped, Short."""
    try:
        return subprocess.run(
            [exporter(), "-m", "defectd", "model", "export", *map(str, arguments)],
            capture_output=True, text=True, timeout=_ANSWER_S, check=False, env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Short(f"no answer within {_ANSWER_S:.0f} s") from error


def _checkpoint(path: Path, network: str = "yolov8n", layer: str = "", import_from: Path | None = None) -> Path:
    """Untrained, of Ultralytics' own description; with *layer* (module:class) round its third one. Raises Skipped."""
    paths = [str(CHECKOUT / "tests"), *([str(import_from)] if import_from else [])]
    extra = {"PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], *paths])}
    done = subprocess.run(
        [exporter(), str(_MAKE), network, str(path), layer],
        capture_output=True, text=True, timeout=_ANSWER_S, check=False, env=environment(**extra),
    )  # fmt: skip
    if done.returncode != 0:
        raise Short(f"{network}: no checkpoint: {done.stderr[-300:]}")
    return path


def _other_task(directory: Path) -> list[str | Path]:
    return [_checkpoint(directory / "seg.pt", "yolo11n-seg")]


def _truncated(directory: Path) -> list[str | Path]:
    data = _checkpoint(directory / "whole.pt").read_bytes()
    (directory / "best.pt").write_bytes(data[: len(data) * 2 // 3])
    return [directory / "best.pt"]


def _missing(directory: Path) -> list[str | Path]:
    exporter()
    return [directory / "best.pt"]


def _torchscript(directory: Path) -> list[str | Path]:
    from support.models import save

    exporter()
    return [save(directory / "best.pt")]


def _data(names: str) -> Arrange:
    """The network has the 80 classes of COCO; data.yaml has *names*."""

    def arrange(directory: Path) -> list[str | Path]:
        (directory / "images").mkdir()
        (directory / "data.yaml").write_text(f"path: .\nval: images\nnames: {names}\n")
        return [_checkpoint(directory / "best.pt"), "--data", directory / "data.yaml"]

    return arrange


def _layer_not_found(directory: Path) -> list[str | Path]:
    (directory / "layers").mkdir()
    (directory / "layers" / "homemade_layers.py").write_text(_LAYERS)
    return [_checkpoint(directory / "best.pt", "yolov8n", "homemade_layers:Homemade", directory / "layers")]


def _with_layer(kind: str) -> Arrange:
    """A layer of support.branching, which the exporter can import as this does."""
    return lambda directory: [
        _checkpoint(directory / "best.pt", "yolov8n", f"support.branching:{kind}"), "--imgsz", _IMGSZ,
    ]  # fmt: skip


def _size(directory: Path) -> list[str | Path]:
    return [_checkpoint(directory / "best.pt"), "--imgsz", "100"]


def _out_exists(setting: Setting) -> str:
    """Whatever is there stays as it is: a bundle, an empty directory, a file, a broken link."""
    exporter()
    for name, make in (
        ("bundle", lambda path: (path.mkdir(), (path / "manifest.json").write_text("mine"))),
        ("empty", lambda path: path.mkdir()),
        ("file", lambda path: path.write_text("mine")),
        ("link", lambda path: path.symlink_to("nowhere")),
    ):
        out = setting.directory / name
        make(out)
        done = _export(_checkpoint(setting.directory / "best.pt"), "--out", out)
        said = refusal(done, START_FAILED, name, "exists already", "choose another")
        if len(list(setting.directory.iterdir())) > 5 or not (out.is_symlink() or out.exists()):
            raise Short(f"{name}: {list(setting.directory.iterdir())}")
    if (setting.directory / "bundle" / "manifest.json").read_text() != "mine":
        raise Short("the bundle that was there has changed")
    return said.replace(str(setting.directory), "…")


def _disk_full(setting: Setting) -> str:
    """There is no room for the bundle: not even its beginning stays."""
    checkpoint = _checkpoint(setting.directory / "best.pt")
    with file_system(setting.directory / "small", "size=2m") as small:
        done = _export(checkpoint, "--imgsz", _IMGSZ, "--out", small / "bundle")
        said = refusal(done, START_FAILED, "bundle", "No space left", "free")
        if left := list(small.iterdir()):
            raise Short(f"{left} is left")
    return said.replace(str(setting.directory), "…")


def _interrupted(setting: Setting) -> str:
    """Ctrl-C in the middle: no bundle, no half of one, no traceback."""
    checkpoint, out = _checkpoint(setting.directory / "best.pt"), setting.directory / "out"
    out.mkdir()
    process = subprocess.Popen(
        [exporter(), "-m", "defectd", "model", "export", str(checkpoint), "--out", str(out / "bundle")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(("writing", "looking for branches")):
                break
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    left = [path.name for path in out.iterdir()]
    if left or process.returncode == 0 or "Traceback" in stderr:
        raise Short(f"exit {process.returncode}; left: {left}; {stderr.strip()[-200:]}")
    return f"exit {process.returncode}; {stderr.strip()[-200:]}"


EXPORT_REFUSALS = (
    Proof(
        "bad.other-task",
        "a best.pt that segments",
        NotExported(_other_task, ("seg.pt", "segment", "expected 'detect'")),
    ),
    Proof("bad.cut-checkpoint", "a truncated best.pt", NotExported(_truncated, ("best.pt", "truncated", "copy it"))),
    Proof(
        "bad.no-checkpoint", "a best.pt that is not there", NotExported(_missing, ("best.pt", "No such", "expected"))
    ),
    Proof(
        "bad.torchscript",
        "a file that was exported already",
        NotExported(_torchscript, ("best.pt", "TorchScript already", "expected the checkpoint")),
    ),
    Proof(
        "bad.class-count",
        "a data.yaml with another number of classes",
        NotExported(_data("[open, short]"), ("data.yaml", "names", "2 classes", "80", "trained with")),
    ),
    Proof(
        "bad.no-names",
        "a data.yaml without names",
        NotExported(_data(""), ("data.yaml", "names", "80")),
    ),
    Proof(
        "bad.layer-not-found",
        "a layer whose code is not here",
        NotExported(_layer_not_found, ("best.pt", "homemade_layers", "PYTHONPATH")),
    ),
    Proof(
        "bad.layer-in-python",
        "a layer that computes in Python, which no format carries",
        NotExported(_with_layer("PrivateOperator"), ("model.2", "PrivateOperator", "replace that layer")),
    ),
    Proof(
        "bad.layer-unknown-to-onnx",
        "a layer that ONNX has no word for",
        NotExported(_with_layer("UnknownToOnnx"), ("ONNX", "UnknownToOnnx", "special_i1", "replace that layer")),
    ),
    Proof(
        "bad.layer-branches",
        "a layer that branches on data in words that TorchScript does not know",
        NotExported(
            _with_layer("BranchByDictionary"), ("model.2", "BranchByDictionary", "branches on data", "torch.where")
        ),
    ),
    Proof(
        "bad.imgsz", "an input size that the network cannot have", NotExported(_size, ("imgsz", "100", "such as 96"))
    ),
    Proof("bad.out-exists", "an --out that exists", _out_exists),
    Proof("bad.out-full", "an --out on a disk that is too small", _disk_full),
    Proof("bad.interrupted", "Ctrl-C while it exports", _interrupted),
)
