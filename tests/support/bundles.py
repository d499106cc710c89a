"""Small bundles of bytes that no runtime could load, and keys from numbers. Needs cryptography."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from defectd.models import ed25519
from defectd.models.envelope import PAYLOAD_MANIFEST, PAYLOAD_ROOT, Envelope
from defectd.models.manifest import ENVELOPE, MANIFEST
from defectd.models.trust import Role, Root, keyid_of, root_to_json

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
ROOT_KEY, RELEASE_KEY, OPS_KEY, STRANGER = 1, 2, 3, 9
ARTIFACTS = {
    "model.torchscript": ("torchscript", b"a network, traced"),
    "model.onnx": ("onnx", b"the same network"),
    "golden-0001.png": ("golden_image", b"a picture"),
}


def private(number: int) -> bytes:
    return bytes([number]) * 32


def public(number: int) -> bytes:
    return ed25519.public_of(private(number))


def keyid(number: int) -> str:
    return keyid_of(public(number))


def make_root(
    version: int = 1,
    expires: datetime | None = None,
    root: tuple[int, ...] = (ROOT_KEY,),
    release: tuple[int, ...] = (RELEASE_KEY,),
    ops: tuple[int, ...] = (OPS_KEY,),
    thresholds: tuple[int, int, int] = (1, 1, 1),
) -> Root:
    numbers = {"root": root, "release": release, "ops": ops}
    roles = {
        name: Role(tuple(keyid(one) for one in keys), threshold)
        for (name, keys), threshold in zip(numbers.items(), thresholds)
    }
    return Root(version, expires, {keyid(one): public(one) for one in (*root, *release, *ops)}, roles)


def sign(payload: bytes, payload_type: str, *signers: int) -> Envelope:
    envelope = Envelope(payload_type, payload)
    for number in signers:
        envelope = envelope.signed(keyid(number), ed25519.sign(private(number), envelope.message()))
    return envelope


def signed_root(root: Root, *signers: int) -> bytes:
    return sign(root_to_json(root), PAYLOAD_ROOT, *signers).to_json()


def manifest_fields(**changes: Any) -> dict[str, Any]:
    """A manifest as it is written, for ARTIFACTS."""
    fields: dict[str, Any] = {
        "schema": "defectd.bundle/1.0",
        "name": "pcb",
        "version": "1.4.0",
        "release_seq": 7,
        "created": "2026-05-01T10:00:00Z",
        "artifacts": [
            {"role": role, "name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, (role, data) in ARTIFACTS.items()
        ],
        "network": {"input_hw": [480, 640], "classes": ["open", "short"], "end2end": False},
        "exporter": {
            "defectd": "0.1.0", "torch": "2.13.0", "ultralytics": "8.4.190",
            "checkpoint_sha256": "ab" * 32, "checkpoint": "best.pt",
        },
        "golden": {"pictures": [{"image": "golden-0001.png", "boxes": [[1, 2, 30, 40, 0.9, 1]]}]},
        "parity": [{"format": "torchscript", "head_mse": 1.2e-12, "recall": 1.0, "map50": 0.981}],
    }  # fmt: skip
    return {**fields, **changes}


def write_bundle(directory: Path, *signers: int, **changes: Any) -> Path:
    """A bundle in the new *directory*, signed by these keys; *changes* are to the manifest."""
    directory.mkdir()
    for name, (_, data) in ARTIFACTS.items():
        (directory / name).write_bytes(data)
    manifest = (json.dumps(manifest_fields(**changes), indent=1) + "\n").encode()
    (directory / MANIFEST).write_bytes(manifest)
    if signers:
        (directory / ENVELOPE).write_bytes(sign(manifest, PAYLOAD_MANIFEST, *signers).to_json())
    return directory
