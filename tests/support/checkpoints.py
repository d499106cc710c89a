"""Ultralytics checkpoints with random weights that nevertheless see something. Needs Ultralytics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import torch


def save(path: Path, family: str, *, change: Callable[[Any], None] | None = None, classes: int | None = None) -> Path:
    """A checkpoint of *family* ("yolo11n.yaml"), after *change* of its network. Batch norms have seen noise, so that
    activations neither vanish nor explode, as they would with fresh weights: then parity compares something."""
    from ultralytics import YOLO

    torch.manual_seed(1)
    model: Any = YOLO(family, verbose=False).model
    model.train()
    with torch.no_grad():
        for _ in range(8):
            model(torch.rand(2, 3, 64, 64))
    model.eval()
    if classes is not None:
        model.names = {index: f"class{index}" for index in range(classes)}
    if change is not None:
        change(model)
    torch.save({"model": model, "train_args": {"imgsz": 128}}, path)
    return path


def wrap(index: int, kind: Callable[[torch.nn.Module], torch.nn.Module]) -> Callable[[Any], None]:
    """A change that puts layer *index* into another one."""

    def change(model: Any) -> None:
        layer = model.model[index]
        wrapped = kind(layer)
        wrapped.i, wrapped.f, wrapped.type, wrapped.np = layer.i, layer.f, type(wrapped).__name__, 0
        model.model[index] = wrapped.eval()

    return change
