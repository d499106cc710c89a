"""Bundles whose network really runs, signed, and what a signer's or a courier's hand can do to them. Needs torch."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Callable

import torch

from defectd.models.envelope import PAYLOAD_MANIFEST
from defectd.models.manifest import ENVELOPE, MANIFEST
from support import models, tried
from support.bundles import RELEASE_KEY, ROOT_KEY, make_root, sign, signed_root
from support.releases import release

Edit = Callable[[Any], None]


def write_root(path: Path, **changes: Any) -> Path:
    """The root.json whose release key signs the bundles of this module."""
    path.write_bytes(signed_root(make_root(**changes), ROOT_KEY))
    return path


def tiny_bundle(
    directory: Path, *, scripted: torch.nn.Module | None = None, exported: torch.nn.Module | None = None,
    signer: int | None = RELEASE_KEY, **changes: Any,
) -> Path:  # fmt: skip
    """BrightestBlock (or *scripted*) as TorchScript, and *exported* as `.pt2`, with a golden picture; *changes* are to
    the manifest."""
    scratch = directory.with_name(f"{directory.name}.scratch")
    scratch.mkdir(parents=True)
    artifacts = {"model.torchscript": ("torchscript", models.save(scratch / "t", scripted).read_bytes())}
    if exported is not None:
        logging.disable(logging.WARNING)  # of torch.export about itself
        models.export(scratch / "e.pt2", exported)
        logging.disable(logging.NOTSET)
        artifacts["model.pt2"] = ("exported_program", (scratch / "e.pt2").read_bytes())
    artifacts["golden-0001.png"] = ("golden_image", tried.picture())
    golden = {"pictures": [{"image": "golden-0001.png", "boxes": [tried.BOX]}]}
    release(directory, artifacts, **{"golden": golden, **changes})
    if signer is not None:
        write_envelope(directory, signer)
    return directory


def write_envelope(bundle: Path, signer: int = RELEASE_KEY) -> None:
    """Sign what is there, sensible or not: `defectd model sign` would refuse to."""
    payload = (bundle / MANIFEST).read_bytes()
    (bundle / ENVELOPE).write_bytes(sign(payload, PAYLOAD_MANIFEST, signer).to_json())


def edit_manifest(bundle: Path, edit: Edit, signer: int = RELEASE_KEY) -> None:
    """What a careless or hostile holder of the release key can write."""
    fields = json.loads((bundle / MANIFEST).read_text())
    edit(fields)
    (bundle / MANIFEST).write_text(json.dumps(fields))
    write_envelope(bundle, signer)


def files_of(directory: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file, so that two moments can be compared; the database is for SQLite alone
    and left out."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.startswith(("models.db", "store.lock"))
    }
