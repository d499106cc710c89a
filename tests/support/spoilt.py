"""Ways to spoil a bundle in its directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

from defectd.models.manifest import ENVELOPE, MANIFEST
from support.bundles import STRANGER
from support.signed import edit_manifest, write_envelope

Spoil = Callable[[Path], None]
_TEN_GB = 10**10

# -- what a courier, or a disk, may do ---------------------------------------------------------------------------


def change_byte(bundle: Path) -> None:
    data = bytearray((bundle / "model.pt2").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.pt2").write_bytes(data)


def change_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).write_bytes((bundle / MANIFEST).read_bytes().replace(b"pcb", b"pcc"))


def cut(bundle: Path) -> None:
    os.truncate(bundle / "model.torchscript", 100)


def remove(name: str) -> Spoil:
    return lambda bundle: (bundle / name).unlink()


def add(bundle: Path) -> None:
    (bundle / "model.engine").write_bytes(b"a program")


def link(bundle: Path) -> None:
    (bundle / "model.pt2").rename(bundle.parent / "elsewhere.pt2")
    (bundle / "model.pt2").symlink_to(bundle.parent / "elsewhere.pt2")


def pipe(bundle: Path) -> None:
    (bundle / "model.pt2").unlink()
    os.mkfifo(bundle / "model.pt2")


def fill(name: str) -> Spoil:
    """A sparse file of 10 GB."""
    return lambda bundle: os.truncate(bundle / name, _TEN_GB)


# -- what a holder of the key, or somebody who is none, may write ------------------------------------------------


def artifact(**changes: Any) -> Spoil:
    return lambda bundle: edit_manifest(bundle, lambda fields: fields["artifacts"][0].update(changes))


def field(**changes: Any) -> Spoil:
    return lambda bundle: edit_manifest(bundle, lambda fields: fields.update(changes))


def climb(bundle: Path) -> None:
    (bundle / "model.torchscript").rename(bundle.parent / "model.torchscript")
    artifact(name="../model.torchscript")(bundle)


def lie_about_itself(bundle: Path) -> None:
    edit_manifest(bundle, lambda fields: fields["artifacts"][0].update(name=MANIFEST))


def sign_as_stranger(bundle: Path) -> None:
    write_envelope(bundle, STRANGER)


def garble_envelope(bundle: Path) -> None:
    (bundle / ENVELOPE).write_bytes(b"\x00\xff" * 500)
