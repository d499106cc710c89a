"""What an earlier start has left, of another version or damaged: it is never loaded, but made anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

import torch

from support.bundle_line import COMPILED, PORTABLE, bundle_of, environment_with, inspect
from support.proving import Proof, Setting, Short


def _other_version(setting: Setting) -> str:
    """What another torch has compiled is never loaded, though it is the same bundle on the same machine."""
    bundle, other = bundle_of(setting), setting.directory / "other"
    record = other / "torch-2.99.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.99.0\n")
    path = os.pathsep.join([str(other), *filter(None, [os.environ.get("PYTHONPATH")])])
    with environment_with(PYTHONPATH=path):
        first = inspect(setting, bundle, runtime="compiled")
        again = inspect(setting, bundle, runtime="compiled")
    caches = _caches(setting)
    upgraded = inspect(setting, bundle, runtime="compiled")
    runs = [run.compiled for run in (first, again, upgraded)]
    if [run.partition(" in ")[0] for run in runs] != ["compiled", "from cache", "compiled"]:
        raise Short(f"{runs}; expected compiled, then from cache, then, by another version, compiled")
    if len(_caches(setting) - caches) != 1:
        raise Short(f"expected one cache more than {caches}, found {_caches(setting)}")
    return f"torch '2.99.0': {runs[0]}, again {runs[1]}; torch {torch.__version__}: {runs[2]}"


def _caches(setting: Setting) -> set[str]:
    return {path.name for path in (setting.directory / "state" / "models" / "engines").iterdir()}


def _truncate_all(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for position in range(64, len(data), 97):
        data[position] ^= 0x55
    path.write_bytes(data)


_DAMAGES: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("cut to half", _truncate_all), ("emptied", _empty), ("changed", _flip),
)  # fmt: skip


def _damaged_cache(setting: Setting) -> str:
    """After a power cut, or by somebody's hand, the compiled code is not what it was: it is made anew."""
    bundle, said = bundle_of(setting), []
    inspect(setting, bundle, runtime="compiled").served_by(COMPILED)
    for name, damage in _DAMAGES:
        for path in (setting.directory / "state" / "models" / "engines").rglob("*"):
            if path.is_file() and path.stat().st_size:
                path.chmod(0o600)
                damage(path)
        told = inspect(setting, bundle, runtime="compiled")
        told.served_by(COMPILED)
        if not told.compiled.startswith("compiled"):
            raise Short(f"{name}: {told.compiled!r}: what was damaged has been loaded")
        said.append(f"{name}: {told.compiled}")
    return "; ".join(said)


def _damaged_blob(setting: Setting) -> str:
    """What serves was changed in the store: it is not loaded, but taken anew from the bundle."""
    bundle, said = bundle_of(setting), []
    inspect(setting, bundle, runtime="torchscript").served_by(PORTABLE)
    releases = setting.directory / "state" / "models" / "releases"
    (file,) = releases.glob("*/model.torchscript")
    good = file.read_bytes()
    for name, damage in _DAMAGES:
        file.chmod(0o600)
        damage(file)
        inspect(setting, bundle, runtime="torchscript").served_by(PORTABLE)
        if file.read_bytes() != good:
            raise Short(f"{name}: the store still has the damaged file")
        said.append(name)
    return f"model.torchscript {', '.join(said)}: each time whole again after the next start"


LEFT_BEHIND = (
    Proof("bad.other-version", "a cache that another version of torch has left", _other_version),
    Proof("bad.damaged-cache", "compiled code that was cut, emptied or changed", _damaged_cache),
    Proof("bad.damaged-store", "a network in the store that was cut, emptied or changed", _damaged_blob),
)
