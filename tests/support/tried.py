"""Bundles whose network really runs, with a golden picture of which the answer is known. Needs torch and cv2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from defectd.models.bundle import Bundle
from support import models
from support.releases import release

BOX = [12.0, 12.0, 28.0, 28.0, 1.0, 0]
"""What BrightestBlock finds in the picture: a 16x16 box round the red block at 16..24, as class 0."""


def picture() -> bytes:
    """A PNG of the network's input size, black, with one red block."""
    pixels = np.zeros((*models.INPUT_HW, 3), np.uint8)
    pixels[16:24, 16:24] = (0, 0, 255)
    return cv2.imencode(".png", pixels)[1].tobytes()


def served(
    directory: Path, scratch: Path, *, module: torch.nn.Module | None = None, boxes: Any = (BOX,),
    exported: bool = False, golden: bool = True, **changes: Any,
) -> Bundle:  # fmt: skip
    """TorchScript of *module* (BrightestBlock), and with *exported* also the `.pt2` of Convolving."""
    artifacts = {"model.torchscript": ("torchscript", models.save(scratch / "t", module).read_bytes())}
    if exported:
        models.export(scratch / "e.pt2")
        artifacts["model.pt2"] = ("exported_program", (scratch / "e.pt2").read_bytes())
    if golden:
        artifacts["golden-0001.png"] = ("golden_image", picture())
        changes["golden"] = {
            "pictures": [{"image": "golden-0001.png", "boxes": list(boxes)}],
            "limits": changes.pop("limits", {}),
        }
    return release(directory, artifacts, **changes)


class Endless(models.BrightestBlock):
    """A network that never answers, as a wedged driver does not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 64, 96) -> never."""
        output = self.look(x)
        while bool(output.max() > -1):
            output = self.look(x)
        return output


class EndlessWhenExported(models.Convolving):
    """The same as a `.pt2`; its first call, with which it is compiled, does not end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 64, 96) -> never."""
        from torch._higher_order_ops import while_loop  # not in torch 2.1

        output = self.look(x)
        return while_loop(lambda y: y.max() > -1, lambda y: (y.clone(),), (output,))[0]


class Mirrored(models.Convolving):
    """It sees what is there, in another place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 64, 96) -> (1, 7, 96)."""
        return self.look(x.flip(3))
