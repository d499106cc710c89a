"""Faults on demand, to prove what a rollout survives: `DEFECTD_FAULT=STATE:KIND` in the environment of the daemon.

KIND is exception, kill (SIGKILL of the daemon), worker (SIGKILL of every child: candidate, builder, serving engine),
hang, enospc or eio. It strikes once, when a rollout is in STATE and before anything is done for it; DEFECTD_FAULT_ONCE
names a file that remembers this over a restart. Without the variable all of this is one look into the environment.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import time
from pathlib import Path
from typing import Callable, Mapping

log = logging.getLogger(__name__)

FAULT, ONCE, HANG_S = "DEFECTD_FAULT", "DEFECTD_FAULT_ONCE", "DEFECTD_FAULT_HANG_S"
_FOR_EVER_S = 86_400.0


def reach(state: str) -> None:
    """A rollout is in *state*. Raises what a broken disk or a bug would raise, if that is asked for."""
    wanted, _, kind = os.environ.get(FAULT, "").partition(":")
    if wanted != state or _struck():
        return
    log.warning("%s: %s: %s strikes", FAULT, state, kind)
    _KINDS[kind]()


def hang_limit_s(usual_s: float) -> float:
    """After so long without progress a rollout hangs; shorter where a test waits for it."""
    return float(os.environ.get(HANG_S, usual_s))


def _struck() -> bool:
    """Whether it has struck before; from now on it has."""
    path = os.environ.get(ONCE)
    if path is None:
        return False
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


def _exception() -> None:
    raise RuntimeError("a fault that was asked for")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_children() -> None:
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    for pid in {pid for children in listed for pid in children.read_text().split()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _disk(number: int) -> Callable[[], None]:
    def strike() -> None:
        raise OSError(number, os.strerror(number))

    return strike


_KINDS: Mapping[str, Callable[[], None]] = {
    "exception": _exception,
    "kill": _kill,
    "worker": _kill_children,
    "hang": lambda: time.sleep(_FOR_EVER_S),
    "enospc": _disk(errno.ENOSPC),
    "eio": _disk(errno.EIO),
}
KINDS = tuple(_KINDS)
