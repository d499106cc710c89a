"""Tiny TorchScript files with the outside of an Ultralytics export, and tiny `.pt2` files. Needs torch."""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from pathlib import Path
from typing import Any

import torch

NAMES = ("open", "short", "spur")
_FILTERING = threading.Lock()  # the filters of warnings are one for all threads
INPUT_HW = (64, 96)
DECLARED: dict[str, Any] = {"names": list(NAMES), "input_hw": list(INPUT_HW), "stride": 32, "end2end": False}
"""What a manifest says of BrightestBlock."""


class BrightestBlock(torch.nn.Module):
    """A dense head (1, 4 + 3, anchors) whose anchors are 8x8 blocks: a 16x16 box on each, scored by its brightness
    in red, green and blue as classes 0, 1 and 2."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = torch.nn.AvgPool2d(8)
        height, width = INPUT_HW
        rows, columns = torch.meshgrid(torch.arange(height // 8), torch.arange(width // 8), indexing="ij")
        self.register_buffer("centres", (torch.stack([columns, rows]).float() * 8 + 4).reshape(1, 2, -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 64, 96) RGB in 0..1 -> (1, 7, 96)."""
        return self.look(x)

    def look(self, x: torch.Tensor) -> torch.Tensor:
        """The head for *x*; TorchScript knows no super()."""
        scores = self.pool(x).flatten(2)
        return torch.cat([self.centres.to(x.dtype), torch.full_like(self.centres, 16.0).to(x.dtype), scores], 1)


class EndToEnd(torch.nn.Module):
    """An end-to-end head (1, 3, 6): three boxes, of which the last is under any sensible threshold."""

    def __init__(self) -> None:
        super().__init__()
        rows = [[8.0, 8, 24, 24, 0.9, 2], [9, 9, 25, 25, 0.8, 2], [0, 0, 5, 5, 0.01, 0]]
        self.register_buffer("rows", torch.tensor([rows]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, height, width) -> (1, 3, 6)."""
        return self.rows.to(x.dtype) + 0 * x.mean()


class NotANumber(BrightestBlock):
    """NaN in one box that no threshold would ever let through, for a frame without any red."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 64, 96) -> (1, 7, 96)."""
        output = self.look(x)
        if bool(x[0, 0].max() == 0):
            output[0, 0, 0] = float("nan")
        return output


class AlwaysNaN(BrightestBlock):
    """A network whose weights are broken."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 64, 96) -> (1, 7, 96)."""
        return self.look(x) * float("nan")


class FailsOnDark(BrightestBlock):
    """Raises what a shape error raises, for a frame without any red."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 64, 96) -> (1, 7, 96)."""
        if bool(x[0, 0].max() == 0):
            return x.reshape(7, -1, 11)
        return self.look(x)


class OutOfMemory(BrightestBlock):
    """Asks for more memory than there is, for a frame without any red."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 64, 96) -> (1, 7, 96)."""
        if bool(x[0, 0].max() == 0):
            return torch.empty([1 << 52], device=x.device)
        return self.look(x)


def save(path: Path, module: torch.nn.Module | None = None, **config: Any) -> Path:
    """Script *module* (BrightestBlock) to *path* with metadata as the exporter writes them; *config* wins, and a value
    of None leaves the key out."""
    metadata = {
        "description": "a test model",
        "version": "8.4.190",
        "stride": 32,
        "task": "detect",
        "head": "Detect",
        "batch": 1,
        "imgsz": list(INPUT_HW),
        "names": {str(index): name for index, name in enumerate(NAMES)},
        "args": {"batch": 1, "nms": None, "dynamic": False},
        "channels": 3,
        "end2end": False,
        **config,
    }
    text = json.dumps({key: value for key, value in metadata.items() if value is not None})
    with _FILTERING, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole, from 2.11 on
        scripted = torch.jit.script((module or BrightestBlock()).eval())
        torch.jit.save(scripted, str(path), _extra_files={"config.txt": text})
    return path


class Convolving(BrightestBlock):
    """BrightestBlock behind a convolution that changes nothing: a network with weights, as most are."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = torch.nn.Conv2d(3, 3, 3, padding=1, bias=False)
        torch.nn.init.dirac_(self.identity.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 64, 96) -> (1, 7, 96)."""
        return self.look(torch.nn.functional.silu(self.identity(x) * 20) / 20)


def export(path: Path, module: torch.nn.Module | None = None) -> dict[str, Any]:
    """Export *module* (Convolving) to *path* as a `.pt2`: what the order for it must say besides its path."""
    example = torch.zeros(1, 3, *INPUT_HW)
    torch.export.save(torch.export.export((module or Convolving()).eval(), (example,)), str(path))
    return {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "runtime": "compiled",
        "metadata": DECLARED,
    }
