"""Bad bundles: refused by `model verify` and by `defectd run`, in words to act on, and the model in the store stays.

Refusals of an export are in models_export_refusals.py, what goes wrong beside a serving line in models_beside_line.py,
what an earlier start has left in models_left_behind.py.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from acceptance.loop_refusals import SETTINGS_REFUSED, START_FAILED
from acceptance.models_beside_line import BESIDE_LINE
from acceptance.models_export_refusals import EXPORT_REFUSALS
from acceptance.models_left_behind import LEFT_BEHIND
from defectd.models.bundle import open_bundle
from defectd.models.manifest import ENVELOPE, MANIFEST
from defectd.models.store import Store
from defectd.models.trust import read_root
from support.brokers import free_port
from support.coded_pictures import write_pictures
from support.models import Convolving
from support.proving import Proof, Setting, Short
from support.proving_ground import tiny_station
from support.refused import ended, file_system, refusal
from support.signed import files_of, tiny_bundle, write_root
from support.spoilt import (
    Spoil,
    add,
    artifact,
    change_byte,
    change_manifest,
    climb,
    cut,
    field,
    fill,
    garble_envelope,
    lie_about_itself,
    link,
    pipe,
    remove,
    sign_as_stranger,
)
from support.station import DaemonProcess, merged, write_config

_GB = 10**9
_FEW_INODES = 6  # for SQLite's files, and the first files of a bundle
_FILES_OF_A_RELEASE = 5
_ANSWER_CPU_S = 3.0  # Python's start takes most of it


@dataclass(frozen=True)
class Station:
    """A station's files: its state has the release of a good bundle as current; `bundle` is what comes next."""

    directory: Path
    bundle: Path
    root: Path

    @classmethod
    def of(cls, directory: Path, **changes: Any) -> Station:
        """A good one; *changes* are to the manifest of the bundle that comes next."""
        root = write_root(directory / "root.json")
        good = tiny_bundle(directory / "good")
        store = Store(directory / "state" / "models")
        store.import_bundle(open_bundle(good, read_root(root), now=None), "current")
        store.close()
        return cls(directory, tiny_bundle(directory / "next", seq=2, exported=Convolving(), **changes), root)

    def run(self, **model: Any) -> subprocess.CompletedProcess[str]:
        """`defectd run` with the bundle that comes next, which must be refused; *model* are changes to `[model]`."""
        return ended("run", "--config", self._config(**model))

    def serve(self, *words: str) -> str:
        """The same, which must become READY; the line of its log that has all *words*. Raises Short."""
        daemon = DaemonProcess(self._config(runtime="torchscript"))
        try:
            daemon.start()
            daemon.wait_ready()
            daemon.terminate()
        finally:
            daemon.end()
        log = daemon.log()
        daemon.log_path.unlink()
        told = [line for line in log.splitlines() if all(word in line for word in words)]
        if not told or "Traceback" in log:
            raise Short(f"expected {words} in a line of the log, and no traceback: {log[-600:]}")
        return told[0].replace(str(self.directory), "…")

    def _config(self, **model: Any) -> Path:
        settings = tiny_station(free_port(), self.bundle, write_pictures(self.directory / "pictures", 3), 10.0)
        return write_config(self.directory, merged(settings, {"model": {"trust": self.root, **model}}))

    def verify(self) -> subprocess.CompletedProcess[str]:
        """`defectd model verify`."""
        return ended("model", "verify", self.bundle, "--root", self.root)

    def stored(self) -> tuple[dict[str, str], object]:
        """Files and pointers of its store."""
        files = files_of(self.directory / "state" / "models")
        store = Store(self.directory / "state" / "models")
        try:
            return files, store.pointers()
        finally:
            store.close()


@dataclass(frozen=True)
class BadBundle:
    """Each way to spoil a bundle, with the words that one line must have, is refused by `verify` and by `run`."""

    ways: tuple[tuple[Spoil, tuple[str, ...]], ...]
    verify: bool = True

    def __call__(self, setting: Setting) -> str:
        said = []
        for number, (spoil, words) in enumerate(self.ways):
            directory = setting.directory / str(number)
            directory.mkdir()
            station = Station.of(directory)
            spoil(station.bundle)
            before = station.stored()
            if self.verify:
                said.append(refusal(station.verify(), START_FAILED, *words))
            told = refusal(station.run(), SETTINGS_REFUSED, "model.path", *words)
            if not self.verify:
                said.append(told)
            if station.stored() != before:
                raise Short(f"the store has changed: {station.stored()}, before: {before}")
            said[-1] = said[-1].replace(str(directory), "…")
        return " | ".join(said)


# -- more than one bundle ----------------------------------------------------------------------------------------


def _ten_gb(setting: Setting) -> str:
    """Nobody reads 10 GB."""
    before_s = _children_s()
    figure = BadBundle(
        (
            (artifact(size=10 * _GB), ("manifest.json", "artifacts.0.size", "less than or equal to", "export")),
            (artifact(size=3 * _GB), ("model.torchscript", "the manifest says 3000000000")),
            (fill("model.pt2"), ("model.pt2", "10000000000 bytes", "the manifest says")),
            (fill(MANIFEST), ("manifest.json", "10000000000 bytes", "at most")),
            (fill(ENVELOPE), ("manifest.sig.json", "10000000000 bytes", "at most")),
        )
    )(setting)
    used_s = (_children_s() - before_s) / 10
    if used_s > _ANSWER_CPU_S:
        raise Short(f"a refusal takes {used_s:.1f} s of CPU; {figure}")
    return f"ten refusals, {used_s:.1f} s of CPU each; {figure}"


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _bad_root(setting: Setting) -> str:
    """`model.trust`: not there, no root, cut short, expired."""
    from datetime import datetime, timezone

    station, said = Station.of(setting.directory), []
    good = station.root.read_bytes()
    ways: tuple[tuple[Callable[[], object], tuple[str, ...]], ...] = (
        (station.root.unlink, ("root.json", "No such file")),
        (lambda: station.root.write_bytes(b"not a root"), ("root.json",)),
        (lambda: station.root.write_bytes(good[: len(good) // 2]), ("root.json",)),
        (lambda: shutil.copy(station.bundle / ENVELOPE, station.root), ("root.json",)),
        (lambda: write_root(station.root, expires=datetime(2020, 1, 1, tzinfo=timezone.utc)), ("expired", "2020")),
    )
    for spoil, words in ways:
        spoil()
        said.append(refusal(station.verify(), START_FAILED, *words))
        refusal(station.run(), SETTINGS_REFUSED, "model", *words)
    return " | ".join(said)


def _unsigned(setting: Setting) -> str:
    """Refused without --dev by every command that would run it; shown by `inspect`, which says so."""
    station = Station.of(setting.directory)
    (station.bundle / ENVELOPE).unlink()
    before = station.stored()
    said = refusal(station.run(), SETTINGS_REFUSED, "model.path", "is not signed", "defectd model sign")
    refusal(station.run(trust=None), SETTINGS_REFUSED, "model.path", "model.trust", "root.json", "--dev")
    refusal(station.verify(), START_FAILED, "is not signed", "defectd model sign")
    refusal(ended("bench", station.bundle, "--root", station.root, "--device", "cpu"), START_FAILED, "not signed")
    refusal(ended("bench", station.bundle, "--device", "cpu"), START_FAILED, "root.json", "signs your bundles")
    if station.stored() != before:
        raise Short("the store has changed")
    shown = ended("model", "inspect", station.bundle)
    if shown.returncode != 0 or "NOBODY: this bundle is not signed" not in shown.stdout:
        raise Short(f"inspect: exit {shown.returncode}: {shown.stdout[:300]}{shown.stderr[-300:]}")
    return f"{said}; also by bench, and with no root at all; inspect says NOBODY"


def _runtime(setting: Setting) -> str:
    """`[model] runtime` that this bundle, or this machine, does not have."""
    station = Station.of(setting.directory)
    before, said = station.stored(), []
    for runtime, words in (
        ("tensorrt", ('runtime = "tensorrt"', "no onnx", "possible here: torchscript, compiled")),
        ("torch-tensorrt", ('runtime = "torch-tensorrt"', "needs an NVIDIA GPU", "possible here")),
        ("openvino", ("model.runtime", "openvino", "torchscript")),
    ):
        done = station.run(runtime=runtime)
        said.append(refusal(done, SETTINGS_REFUSED, "model", *words).replace(str(setting.directory), "…"))
    stock = Station(station.directory, station.bundle / "model.torchscript", station.root)
    words = ("model.path", 'runtime = "compiled"', "bundle", "defectd model export")
    said.append(refusal(stock.run(runtime="compiled"), SETTINGS_REFUSED, *words))
    if station.stored() != before:
        raise Short("the store has changed")
    return " | ".join(said)


# -- the store ---------------------------------------------------------------------------------------------------


def _database(setting: Setting) -> str:
    """models.db is damaged: the line starts all the same, with a new store, and what was there is put aside."""
    station, said = Station.of(setting.directory), []
    state = setting.directory / "state"
    good = (state / "models" / "models.db").read_bytes()
    for damaged in (b"no database at all" * 500, good[:5000], good[:4096] + bytes(len(good) - 4096)):
        (state / "models" / "models.db").write_bytes(damaged)
        said.append(station.serve("WARNING", "state/models", "database", "put aside"))
        (aside,) = state.glob("models.damaged*")
        if (aside / "models.db").read_bytes() != damaged or not list(aside.glob("releases/*/manifest.json")):
            raise Short(f"{aside} does not have what was there")
        if len(station.stored()[0]) < _FILES_OF_A_RELEASE:
            raise Short(f"the new store has only {list(station.stored()[0])}")
        shutil.rmtree(aside)
    return said[0]


def _no_space(setting: Setting) -> str:
    """The disk is too small for a bundle, or fills while it is copied: it serves from where it lies, what was in the
    store stays, and nothing half-written does."""
    station, said = Station.of(setting.directory), []
    models, kept = setting.directory / "state" / "models", setting.directory / "kept"
    models.rename(kept)
    for options, words in (
        ("size=4m", ("are free", "needs", "free some space")),
        (f"size=64m,nr_inodes={len(list(kept.rglob('*'))) + _FEW_INODES}", ("No space left", "free some space")),
    ):
        with file_system(models, options):
            shutil.copytree(kept, models, dirs_exist_ok=True)
            before = station.stored()
            said.append(station.serve("WARNING", "state/models", "served from", *words))
            if station.stored() != before:
                changed = set(before[0]) ^ set(station.stored()[0])
                raise Short(f"{options}: the store has changed: {changed}, {before[1]} -> {station.stored()[1]}")
    return " | ".join(said)


_COPY = "copy the bundle again"
BUNDLES = (
    Proof(
        "bad.changed-byte",
        "a bundle of which a byte was changed, or that was cut short",
        BadBundle(
            (
                (change_byte, ("model.pt2", "SHA-256", _COPY)),
                (change_manifest, ("manifest.json", "changed since", _COPY)),
                (cut, ("model.torchscript", "100 bytes", "the manifest says", _COPY)),
            )
        ),
    ),
    Proof(
        "bad.missing-file",
        "a bundle without a file that it declares",
        BadBundle(
            (
                (remove("model.pt2"), ("missing: 'model.pt2'", _COPY)),
                (remove("golden-0001.png"), ("missing: 'golden-0001.png'", _COPY)),
                (remove(MANIFEST), ("manifest.json", "No such file", _COPY)),
            )
        ),
    ),
    Proof(
        "bad.extra-file",
        "a bundle with a file that nobody declared",
        BadBundle(((add, ("not in the manifest: 'model.engine'", _COPY)),)),
    ),
    Proof(
        "bad.dot-dot",
        "a signed manifest that names a file outside of its bundle, or itself",
        BadBundle(
            (
                (climb, ("manifest.json", "artifacts.0.name", "export the bundle again")),
                (artifact(name="/etc/passwd"), ("manifest.json", "artifacts.0.name")),
                (lie_about_itself, ("manifest.json", "artifacts", "belongs to the bundle itself")),
            )
        ),
    ),
    Proof(
        "bad.no-regular-file",
        "a link, and a pipe, in place of a file",
        BadBundle(((link, ("model.pt2", "symbolic link", _COPY)), (pipe, ("model.pt2", "regular file", _COPY)))),
    ),
    Proof("bad.ten-gb", "declared sizes, and files, of 10 GB", _ten_gb),
    Proof(
        "bad.expired",
        "a signed bundle whose time is over",
        BadBundle(((field(expires="2020-01-01T00:00:00Z"), ("manifest.json", "expired", "2020", "newer release")),)),
    ),
    Proof(
        "bad.unknown-key",
        "a bundle that a stranger signed, and an envelope of rubbish",
        BadBundle(
            ((sign_as_stranger, ("manifest.sig.json", "key")), (garble_envelope, ("manifest.sig.json", "expected")))
        ),
    ),
    Proof("bad.root", "a root.json that is missing, no root, cut short, expired", _bad_root),
    Proof("bad.unsigned", "a bundle that nobody signed, without --dev", _unsigned),
    Proof(
        "bad.other-hardware",
        "a bundle for another GPU, and one for a newer defectd",
        BadBundle(
            (
                (field(compatible=["sm_87"]), ("compatible", "sm_87", "this device is", "bring a bundle")),
                (field(min_defectd="99.0"), ("min_defectd", "99.0", "this is")),
                (field(schema="defectd.bundle/2.0"), ("schema", "defectd.bundle/1.0", "update defectd")),
            ),
            verify=False,
        ),
    ),
    Proof("bad.runtime", "a [model] runtime that cannot be had", _runtime),
    Proof("bad.store-damaged", "state/models/models.db is damaged", _database),
    Proof("bad.store-full", "a disk that is too small, or fills while a bundle is taken in", _no_space),
)
REFUSALS = (*EXPORT_REFUSALS, *BUNDLES, *BESIDE_LINE, *LEFT_BEHIND)
