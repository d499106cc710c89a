"""Bundles of any content, unsigned, opened as the daemon opens them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from defectd.models.bundle import Bundle, open_bundle


def release(directory: Path, artifacts: dict[str, tuple[str, bytes]], seq: int = 1, **changes: Any) -> Bundle:
    """Write *artifacts* and their manifest to the new *directory*; *changes* are to the manifest."""
    directory.mkdir(parents=True)
    for name, (_, data) in artifacts.items():
        (directory / name).write_bytes(data)
    fields = {
        "schema": "defectd.bundle/1.0",
        "name": "pcb",
        "version": f"1.{seq}",
        "release_seq": seq,
        "created": "2026-05-01T10:00:00Z",
        "artifacts": [
            {"role": role, "name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, (role, data) in artifacts.items()
        ],
        "network": {"input_hw": [64, 96], "classes": ["open", "short", "spur"], "end2end": False},
        "exporter": {
            "defectd": "0.1.0", "torch": "2.13.0", "ultralytics": "8.4.190",
            "checkpoint_sha256": "ab" * 32, "checkpoint": "best.pt",
        },
        **changes,
    }  # fmt: skip
    (directory / "manifest.json").write_text(json.dumps(fields))
    return open_bundle(directory, None, now=None, allow_unsigned=True)


def small(directory: Path, seq: int = 1, size: int = 1000) -> Bundle:
    """A TorchScript file that differs with *seq*, and an ONNX file that all have in common."""
    network = bytes([seq % 256]) * size
    return release(
        directory, {"model.torchscript": ("torchscript", network), "model.onnx": ("onnx", b"shared" * 10)}, seq
    )
