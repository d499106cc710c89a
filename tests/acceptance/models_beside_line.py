"""What goes wrong with a model beside a serving line, or in what an earlier start has left: the line inspects, and says
what was not to be had."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import torch

from support.audit import audit
from support.coded_pictures import misjudged
from support.models import Convolving
from support.proving import Proof, Setting, Short
from support.proving_ground import Ground, ground
from support.refused import file_system, read_only
from support.signed import files_of, tiny_bundle, write_root
from support.station import wait_until
from support.tried import EndlessWhenExported, Mirrored

_UNITS, _RATE_HZ = 3000, 10.0
_PATIENCE_S = 240.0
_COMPILED = re.compile(r"((?:compiled|from cache) in [\d.]+ s)")
_PORTABLE, _COMPILED_RUNTIME = "torchscript-fp32-cpu", "compiled-fp32-cpu"


@dataclass(frozen=True)
class Told:
    """What a run left: `faults` by code, the runtimes that judged, in order, and the figure of the audit."""

    faults: Mapping[str, str]
    runtimes: list[str]
    figure: str
    log: str
    ready_s: float

    def fault(self, code: str, *words: str) -> str:
        """Its detail, with all *words*. Raises Short."""
        detail = self.faults.get(code, "")
        if not detail or not all(word in detail for word in words):
            raise Short(f"evt/fault {code}: expected {words}, got {detail!r} of {sorted(self.faults)}")
        return detail

    def served_by(self, *runtimes: str) -> None:
        """Raises Short."""
        if self.runtimes != list(runtimes):
            raise Short(f"served by {self.runtimes}, expected {list(runtimes)}; faults {dict(self.faults)}")

    @property
    def compiled(self) -> str:
        """How it came by its compiled code: "compiled in 12.3 s", "from cache in 1.2 s", or "" if not at all."""
        found = _COMPILED.search(self.log)
        return found.group(1) if found else ""


Act = Callable[[Ground], None]


def _nothing(_: Ground) -> None:
    """The line has no trouble."""


def _inspect(setting: Setting, bundle: Path, act: Act = _nothing, **model: Any) -> Told:
    """Start a station with *bundle*, *act* when it is READY, let it judge ten more units, and end it. The state stays
    in the proof's directory for the next run. Raises Short if a unit is missing, misjudged, or an error."""
    directory = setting.directory / f"run-{len(list(setting.directory.glob('run-*'))) + 1}"
    directory.mkdir()
    state = setting.directory / "state"
    model = {"path": bundle, "trust": _root(setting), "start_timeout_s": 60, **model}
    with ground(directory, _UNITS, _RATE_HZ, {"model": model, "state": {"directory": state}}, started=False) as here:
        here.daemon.start()
        ready_s = here.daemon.wait_ready(_PATIENCE_S)
        act(here)
        here.struck_at_s = time.time()
        here.await_good_units()
        here.struck_at_s = 0.0
        here.terminate()
        (directory / "state").mkdir(exist_ok=True)
        shutil.move(str(state / "outbox.db"), str(here.outbox))  # audited by itself, and so is the next run
        figure = _accounted(here, errors_allowed=False)
        faults = {
            event["code"]: event["detail"]
            for event in here.collector.events.values()
            if event.get("component") in ("engine", "model") and event.get("state") != "cleared"
        }
        runtimes = [event["model"]["runtime"] for event in here.collector.inspections]
        log = here.daemon.log()
    for path in state.glob("outbox.*"):
        path.unlink()
    return Told(faults, list(dict.fromkeys(runtimes)), figure, log, ready_s)


def _accounted(here: Ground, *, errors_allowed: bool) -> str:
    """Every unit is accounted for and was judged by its own picture; a fault may stand. Raises Short."""
    result = audit(here.collector, here.outbox, here.daemon.log(), None)
    problems = [problem for problem in result.problems if not problem.endswith("was never cleared")]
    for event in here.collector.inspections:
        if event["verdict"] != "error":
            problems += filter(None, [misjudged(event)])
        elif not errors_allowed:
            problems.append(f"{event['unit_id']}: {event['error']}: {event['error_detail']}")
    if problems:
        raise Short("; ".join([*problems[:5], result.figure()]))
    return result.figure()


def _root(setting: Setting) -> Path:
    path = setting.directory / "root.json"
    return path if path.exists() else write_root(path)


def _bundle(setting: Setting, exported: torch.nn.Module | None = None, **changes: Any) -> Path:
    return tiny_bundle(setting.directory / "bundle", exported=exported or Convolving(), **changes)


def _until_said(*words: str) -> Act:
    """An act: wait until a line of the log has one of *words*."""

    def act(here: Ground) -> None:
        def said() -> bool:
            return any(word in here.daemon.log() for word in words)

        wait_until(said, _PATIENCE_S, f"{words} in the log", every_s=0.5)

    return act


_DECIDED = _until_said("runtime_chosen", "runtime_not_chosen")
_SETTLED = _until_said("swapped", "swap_failed", "runtime_not_chosen")


# -- trials ------------------------------------------------------------------------------------------------------


def _too_short(setting: Setting) -> str:
    """No candidate is proven in time; the portable one goes on, and the reason is told."""
    told = _inspect(setting, _bundle(setting), _DECIDED, trial_s=0.4)
    told.served_by(_PORTABLE)
    return f"{told.fault('runtime_not_chosen', 'torchscript', 'compiled', 'took longer than 0.4 s')}; {told.figure}"


def _hangs(setting: Setting) -> str:
    """The compiled network never answers; its trial is ended, with all its processes, and the other one is chosen."""

    def act(here: Ground) -> None:
        _DECIDED(here)
        wait_until(lambda: not _trials(here.daemon.pid), 15, "the trial and its compilers are gone")

    told = _inspect(setting, _bundle(setting, EndlessWhenExported()), act, trial_s=45)
    told.served_by(_PORTABLE)
    words = ("torchscript: ", "compiled fp32: the trial took longer than 45 s")
    return f"{told.fault('runtime_chosen', *words)}; {told.figure}"


def _killed(setting: Setting) -> str:
    """The kernel kills a trial: the next start tries again, because it may have been for lack of memory."""

    def kill(here: Ground) -> None:
        for _ in range(2):  # one trial per candidate
            wait_until(lambda: _trials(here.daemon.pid), 60, "a trial", every_s=0.01)
            victims = _trials(here.daemon.pid)
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            while set(_trials(here.daemon.pid)) & set(victims):
                time.sleep(0.01)
        _DECIDED(here)

    bundle = _bundle(setting)
    told = _inspect(setting, bundle, kill)
    told.served_by(_PORTABLE)
    reason = told.fault("runtime_not_chosen", "killed by SIGKILL")
    again = _inspect(setting, bundle, _DECIDED)
    return f"{reason}; {told.figure}; next start: {again.fault('runtime_chosen', 'p99')[:120]}"


def _trials(daemon_pid: int) -> list[int]:
    """Processes of trials that this daemon has started, and what these have started."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if not entry.name.isdigit() or int(entry.name) == daemon_pid:
                continue
            state, parent, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            leader = Path("/proc") / session / "cmdline"
            if state != "Z" and parent != "1" and b"defectd.engine.trial" in leader.read_bytes():
                mine = (Path("/proc") / session / "stat").read_text().rpartition(")")[2].split()[1] == str(daemon_pid)
                found += [int(entry.name)] * mine
    return found


def _other_answers(setting: Setting) -> str:
    """A .pt2 of another network: `auto` never takes it, and who asks for it gets the portable one, and a fault."""
    bundle = _bundle(setting, Mirrored())
    told = _inspect(setting, bundle, _DECIDED)
    told.served_by(_PORTABLE)
    reason = told.fault("runtime_chosen", "torchscript: ", "compiled fp32: does not answer like the original")
    asked = _inspect(setting, bundle, runtime="compiled")
    asked.served_by(_PORTABLE)
    return f"{reason}; asked for: {asked.fault('runtime_unusable', 'golden')}"


def _start_hangs(setting: Setting) -> str:
    """The runtime that a person asks for never becomes warm: the portable one serves instead, and a fault says so."""
    bundle = _bundle(setting, EndlessWhenExported())
    told = _inspect(setting, bundle, runtime="compiled", start_timeout_s=15)
    told.served_by(_PORTABLE)
    return f"READY after {told.ready_s:.0f} s; {told.fault('runtime_unusable', 'portable')}; {told.figure}"


# -- disks -------------------------------------------------------------------------------------------------------


def _disk_fills(setting: Setting) -> str:
    """Nothing more can be written while the candidates are tried; when there is space again, they are tried again."""
    bundle = _bundle(setting)
    with file_system(setting.directory / "state" / "models", "size=6m") as models:

        def fill(here: Ground) -> None:
            with contextlib.suppress(OSError), (models / "ballast").open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(4096))
            _DECIDED(here)

        full = _inspect(setting, bundle, fill)
        full.served_by(_PORTABLE)
        reason = full.fault("runtime_not_chosen", "state/models", "free some space")
        (models / "ballast").unlink()
        half = [name for name in files_of(models) if name.endswith(".tmp") and not name.startswith("engines/")]
        if half:
            raise Short(f"half-written: {half}")
        later = _inspect(setting, bundle, _DECIDED)
        told = later.fault("runtime_chosen", "torchscript", "compiled")
    return f"{reason}; {full.figure}; with space again: {told[:200]}".replace(str(setting.directory), "…")


def _read_only_cache(setting: Setting) -> str:
    """The directory of what was compiled can no longer be written, or not even made: it is told, and the line runs."""
    bundle = _bundle(setting)
    engines = setting.directory / "state" / "models" / "engines"
    engines.mkdir(parents=True)
    with _environment(TMPDIR=str(_scratch(setting))):
        with read_only(engines):
            never = _inspect(setting, bundle, runtime="compiled", act=_SETTLED)
            never.served_by(_PORTABLE)
            reason = never.fault("runtime_not_chosen", "engines", "Read-only file system")
        _inspect(setting, bundle, runtime="compiled").served_by(_COMPILED_RUNTIME)
        with read_only(engines):
            spare = _inspect(setting, bundle, runtime="compiled")
            spare.served_by(_COMPILED_RUNTIME)
    found = re.search(r"no cache that lasts [^'\"\n]*", spare.log)
    if found is None or "Read-only file system" not in found.group(0):
        raise Short(f"the log does not tell that the cache is read-only: {spare.log[-500:]}")
    return f"never written: {reason}; later: {found.group(0)}; {spare.figure}".replace(str(setting.directory), "…")


def _scratch(setting: Setting) -> Path:
    directory = setting.directory / "tmp"
    directory.mkdir(exist_ok=True)
    return directory


# -- what an earlier start has left ------------------------------------------------------------------------------


def _other_version(setting: Setting) -> str:
    """What another torch has compiled is never loaded, though it is the same bundle on the same machine."""
    bundle, other = _bundle(setting), setting.directory / "other"
    record = other / "torch-2.99.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.99.0\n")
    path = os.pathsep.join([str(other), *filter(None, [os.environ.get("PYTHONPATH")])])
    with _environment(PYTHONPATH=path):
        first = _inspect(setting, bundle, runtime="compiled")
        again = _inspect(setting, bundle, runtime="compiled")
    caches = _caches(setting)
    upgraded = _inspect(setting, bundle, runtime="compiled")
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
    bundle, said = _bundle(setting), []
    _inspect(setting, bundle, runtime="compiled").served_by(_COMPILED_RUNTIME)
    for name, damage in _DAMAGES:
        for path in (setting.directory / "state" / "models" / "engines").rglob("*"):
            if path.is_file() and path.stat().st_size:
                path.chmod(0o600)
                damage(path)
        told = _inspect(setting, bundle, runtime="compiled")
        told.served_by(_COMPILED_RUNTIME)
        if not told.compiled.startswith("compiled"):
            raise Short(f"{name}: {told.compiled!r}: what was damaged has been loaded")
        said.append(f"{name}: {told.compiled}")
    return "; ".join(said)


def _damaged_blob(setting: Setting) -> str:
    """What serves was changed in the store: it is not loaded, but taken anew from the bundle."""
    bundle, said = _bundle(setting), []
    _inspect(setting, bundle, runtime="torchscript").served_by(_PORTABLE)
    releases = setting.directory / "state" / "models" / "releases"
    (file,) = releases.glob("*/model.torchscript")
    good = file.read_bytes()
    for name, damage in _DAMAGES:
        file.chmod(0o600)
        damage(file)
        _inspect(setting, bundle, runtime="torchscript").served_by(_PORTABLE)
        if file.read_bytes() != good:
            raise Short(f"{name}: the store still has the damaged file")
        said.append(name)
    return f"model.torchscript {', '.join(said)}: each time whole again after the next start"


def _bundle_goes(setting: Setting) -> str:
    """The bundle's directory is garbled, then removed, while it serves: the engine's next process has it still."""
    bundle = _bundle(setting)

    def garble(here: Ground) -> None:
        for path in bundle.iterdir():
            path.write_bytes(b"garbled")
        here.strike("engine", signal.SIGKILL)
        here.await_good_units()
        shutil.rmtree(bundle)
        here.strike("engine", signal.SIGKILL)

    told = _inspect_with_errors(setting, bundle, garble, runtime="torchscript")
    return f"two new engine processes after that; {told}"


def _inspect_with_errors(setting: Setting, bundle: Path, act: Act, **model: Any) -> str:
    """As `_inspect`, for a run in which units may be lost to the strike itself."""
    model = {"path": bundle, "trust": _root(setting), **model}
    with ground(setting.directory, _UNITS, _RATE_HZ, {"model": model}) as here:
        act(here)
        here.await_good_units()
        here.terminate()
        return _accounted(here, errors_allowed=True)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


BESIDE_LINE = (
    Proof("bad.trial-too-long", "no runtime is proven within model.trial_s", _too_short),
    Proof("bad.trial-hangs", "a trial that never ends", _hangs),
    Proof("bad.trial-killed", "a trial that the kernel kills", _killed),
    Proof("bad.start-hangs", "a runtime that is asked for, and never becomes warm", _start_hangs),
    Proof("bad.other-answers", "a format that does not answer like the original", _other_answers),
    Proof("bad.disk-fills", "a disk that fills while a runtime is built and tried", _disk_fills),
    Proof("bad.read-only-cache", "a cache of compiled code that cannot be written", _read_only_cache),
    Proof("bad.other-version", "a cache that another version of torch has left", _other_version),
    Proof("bad.damaged-cache", "compiled code that was cut, emptied or changed", _damaged_cache),
    Proof("bad.damaged-store", "a network in the store that was cut, emptied or changed", _damaged_blob),
    Proof("bad.bundle-goes", "a bundle that is garbled and removed while it serves", _bundle_goes),
)
