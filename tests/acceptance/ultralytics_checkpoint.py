"""Run by an interpreter that has Ultralytics: an untrained checkpoint, with a layer of somebody's own if asked for.

python ultralytics_checkpoint.py NETWORK OUT.PT [MODULE:CLASS]
"""

from __future__ import annotations

import importlib
import sys

from ultralytics import YOLO

_WRAPPED = 2  # of its layers: one early in the backbone


def main(network: str, out: str, layer: str = "") -> None:
    """Write the checkpoint."""
    model = YOLO(f"{network}.yaml")
    if layer:
        module, _, name = layer.partition(":")
        layers = model.model.model
        inner = layers[_WRAPPED]
        wrapped = getattr(importlib.import_module(module), name)(inner)
        wrapped.i, wrapped.f, wrapped.type, wrapped.np = inner.i, inner.f, name, inner.np
        layers[_WRAPPED] = wrapped
    model.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
