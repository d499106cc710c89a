"""What goes wrong with a model beside a serving line: the line inspects, and says what was not to be had."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from pathlib import Path

from support.bundle_line import (
    COMPILED,
    DECIDED,
    PORTABLE,
    SETTLED,
    bundle_of,
    environment_with,
    inspect,
    inspect_with_errors,
)
from support.proving import Proof, Setting, Short
from support.proving_ground import Ground
from support.refused import file_system, read_only
from support.signed import files_of
from support.station import wait_until
from support.tried import EndlessWhenExported, Mirrored

# -- trials ------------------------------------------------------------------------------------------------------


def _too_short(setting: Setting) -> str:
    """No candidate is proven in time; the portable one goes on, and the reason is told."""
    told = inspect(setting, bundle_of(setting), DECIDED, trial_s=0.4)
    told.served_by(PORTABLE)
    return f"{told.fault('runtime_not_chosen', 'torchscript', 'compiled', 'took longer than 0.4 s')}; {told.figure}"


def _hangs(setting: Setting) -> str:
    """The compiled network never answers; its trial is ended, with all its processes, and the other one is chosen."""

    def act(here: Ground) -> None:
        DECIDED(here)
        wait_until(lambda: not _trials(here.daemon.pid), 15, "the trial and its compilers are gone")

    told = inspect(setting, bundle_of(setting, EndlessWhenExported()), act, trial_s=45)
    told.served_by(PORTABLE)
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
        DECIDED(here)

    bundle = bundle_of(setting)
    told = inspect(setting, bundle, kill)
    told.served_by(PORTABLE)
    reason = told.fault("runtime_not_chosen", "killed by SIGKILL")
    again = inspect(setting, bundle, DECIDED)
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
    bundle = bundle_of(setting, Mirrored())
    told = inspect(setting, bundle, DECIDED)
    told.served_by(PORTABLE)
    reason = told.fault("runtime_chosen", "torchscript: ", "compiled fp32: does not answer like the original")
    asked = inspect(setting, bundle, runtime="compiled")
    asked.served_by(PORTABLE)
    return f"{reason}; asked for: {asked.fault('runtime_unusable', 'golden')}"


def _start_hangs(setting: Setting) -> str:
    """The runtime that a person asks for never becomes warm: the portable one serves instead, and a fault says so."""
    bundle = bundle_of(setting, EndlessWhenExported())
    told = inspect(setting, bundle, runtime="compiled", start_timeout_s=15)
    told.served_by(PORTABLE)
    return f"READY after {told.ready_s:.0f} s; {told.fault('runtime_unusable', 'instead')}; {told.figure}"


# -- disks -------------------------------------------------------------------------------------------------------


def _disk_fills(setting: Setting) -> str:
    """Nothing more can be written while the candidates are tried; when there is space again, they are tried again."""
    bundle = bundle_of(setting)
    with file_system(setting.directory / "state" / "models", "size=6m") as models:

        def fill(here: Ground) -> None:
            with contextlib.suppress(OSError), (models / "ballast").open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(4096))
            DECIDED(here)

        full = inspect(setting, bundle, fill)
        full.served_by(PORTABLE)
        reason = full.fault("runtime_not_chosen", "state/models", "free some space")
        (models / "ballast").unlink()
        half = [name for name in files_of(models) if name.endswith(".tmp") and not name.startswith("engines/")]
        if half:
            raise Short(f"half-written: {half}")
        later = inspect(setting, bundle, DECIDED)
        told = later.fault("runtime_chosen", "torchscript", "compiled")
    return f"{reason}; {full.figure}; with space again: {told[:200]}".replace(str(setting.directory), "…")


def _read_only_cache(setting: Setting) -> str:
    """The directory of what was compiled can no longer be written, or not even made: it is told, and the line runs."""
    bundle = bundle_of(setting)
    engines = setting.directory / "state" / "models" / "engines"
    engines.mkdir(parents=True)
    with environment_with(TMPDIR=str(_scratch(setting))):
        with read_only(engines):
            never = inspect(setting, bundle, runtime="compiled", act=SETTLED)
            never.served_by(PORTABLE)
            reason = never.fault("runtime_not_chosen", "engines", "Read-only file system")
        inspect(setting, bundle, runtime="compiled").served_by(COMPILED)
        with read_only(engines):
            spare = inspect(setting, bundle, runtime="compiled")
            spare.served_by(COMPILED)
    found = re.search(r"no cache that lasts [^'\"\n]*", spare.log)
    if found is None or "Read-only file system" not in found.group(0):
        raise Short(f"the log does not tell that the cache is read-only: {spare.log[-500:]}")
    return f"never written: {reason}; later: {found.group(0)}; {spare.figure}".replace(str(setting.directory), "…")


def _scratch(setting: Setting) -> Path:
    directory = setting.directory / "tmp"
    directory.mkdir(exist_ok=True)
    return directory


def _bundle_goes(setting: Setting) -> str:
    """The bundle's directory is garbled, then removed, while it serves: the engine's next process has it still."""
    bundle = bundle_of(setting)

    def garble(here: Ground) -> None:
        for path in bundle.iterdir():
            path.write_bytes(b"garbled")
        here.strike("engine", signal.SIGKILL)
        here.await_good_units()
        shutil.rmtree(bundle)
        here.strike("engine", signal.SIGKILL)

    told = inspect_with_errors(setting, bundle, garble, runtime="torchscript")
    return f"two new engine processes after that; {told}"


BESIDE_LINE = (
    Proof("bad.trial-too-long", "no runtime is proven within model.trial_s", _too_short),
    Proof("bad.trial-hangs", "a trial that never ends", _hangs),
    Proof("bad.trial-killed", "a trial that the kernel kills", _killed),
    Proof("bad.start-hangs", "a runtime that is asked for, and never becomes warm", _start_hangs),
    Proof("bad.other-answers", "a format that does not answer like the original", _other_answers),
    Proof("bad.disk-fills", "a disk that fills while a runtime is built and tried", _disk_fills),
    Proof("bad.read-only-cache", "a cache of compiled code that cannot be written", _read_only_cache),
    Proof("bad.bundle-goes", "a bundle that is garbled and removed while it serves", _bundle_goes),
)
