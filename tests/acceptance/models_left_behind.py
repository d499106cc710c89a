"""What an earlier start has left, of another version or damaged: it is never loaded, but made anew."""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Callable

import torch

from acceptance.loop_refusals import START_FAILED
from defectd.models.store import Store
from support.bundle_line import COMPILED, PORTABLE, bundle_of, environment_with, inspect, root_of
from support.proving import Proof, Setting, Short
from support.refused import ended, refusal
from support.signed import edit_manifest
from support.station import wait_until

_FINGERPRINT = "0123456789abcdef"
_EXPIRES_AFTER_S = 40.0


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


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for position in range(64, len(data), 97):
        data[position] ^= 0x55
    path.write_bytes(data)


_DAMAGES: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("cut to half", _cut), ("emptied", _empty), ("changed", _flip),
)  # fmt: skip


def _damaged_cache(setting: Setting) -> str:
    """After a power cut, or on a bad disk, the compiled code is not what it was: it is made anew."""
    bundle, said = bundle_of(setting), []
    inspect(setting, bundle, runtime="compiled").served_by(COMPILED)
    for suffix in (".so", ""):
        for name, damage in _DAMAGES:
            for path in _cached(setting):
                if path.suffix == suffix or not suffix:
                    damage(path)
            told = inspect(setting, bundle, runtime="compiled")
            told.served_by(COMPILED)
            said.append(f"{suffix or 'all'} {name}: {told.compiled}")
    return "; ".join(said)


def _tampered_cache(setting: Setting) -> str:
    """Compiled code is a program: what somebody has added to it is not run."""
    bundle, mark = bundle_of(setting), setting.directory / "was-run"
    inspect(setting, bundle, runtime="compiled").served_by(COMPILED)
    files = [path for path in _cached(setting) if path.suffix == ".py"]
    if not files:
        raise Short("the cache has no program that could be changed; change this proof")
    for path in files:
        path.write_text(f"{path.read_text()}\nopen({str(mark)!r}, 'w').close()\n")
    told = inspect(setting, bundle, runtime="compiled")
    if mark.exists():
        raise Short(f"what was added to {files[0].name} has been run: the cache is not hashed before it is loaded")
    return f"{len(files)} changed files: {told.runtimes[0]}, {told.compiled}"


def _cached(setting: Setting) -> list[Path]:
    """All that a compiler has left and that has anything in it, made writable."""
    engines = setting.directory / "state" / "models" / "engines"
    found = [path for path in engines.rglob("*") if path.is_file() and path.stat().st_size]
    for path in found:
        path.chmod(0o600)
    return found


def _tampered_engine(setting: Setting) -> str:
    """An engine that was built on this device is hashed whenever it is to be loaded; no GPU is needed to refuse it."""
    store = Store(setting.directory / "models")
    directory = store.engine_cache(_FINGERPRINT, "ab" * 32)
    plan, built = directory / "model.plan", b"a plan, built here" * 100
    try:
        for name, damage in _DAMAGES:
            plan.write_bytes(built)
            store.record_engine(_FINGERPRINT, plan.name, hashlib.sha256(built).hexdigest())
            if store.engine(_FINGERPRINT) is None:
                raise Short("the engine that was recorded is not found")
            plan.chmod(0o600)
            damage(plan)
            logging.disable(logging.ERROR)  # it is told there, too
            if store.engine(_FINGERPRINT) is not None or plan.exists():
                raise Short(f"{name}: the engine would be loaded, or is still there")
    finally:
        logging.disable(logging.NOTSET)
        store.close()
    return f"model.plan {', '.join(name for name, _ in _DAMAGES)}: each time deleted, to be built again"


def _expires_later(setting: Setting) -> str:
    """A line does not stop because the bundle that it has always served expires; a new station does not take it."""
    bundle, due = bundle_of(setting), datetime.now(timezone.utc) + timedelta(seconds=_EXPIRES_AFTER_S)
    edit_manifest(bundle, lambda fields: fields.update(expires=due.isoformat()))
    first = inspect(setting, bundle, runtime="torchscript")
    if first.faults.get("warning"):
        raise Short(f"before it has expired: {first.faults}")
    wait_until(lambda: datetime.now(timezone.utc) > due, _EXPIRES_AFTER_S + 5, "it has expired", every_s=0.5)
    later = inspect(setting, bundle, runtime="torchscript")
    later.served_by(PORTABLE)
    refused = ended("model", "verify", bundle, "--root", root_of(setting))
    refusal(refused, START_FAILED, "manifest.json", "expired")
    return later.fault("warning", "expired", "serves on").replace(str(setting.directory), "…")


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
    Proof("bad.tampered-cache", "compiled code to which somebody has added something", _tampered_cache),
    Proof("bad.tampered-engine", "an engine built here that was cut, emptied or changed", _tampered_engine),
    Proof("bad.expires-later", "a bundle that expires while it is in service", _expires_later),
    Proof("bad.damaged-store", "a network in the store that was cut, emptied or changed", _damaged_blob),
)
