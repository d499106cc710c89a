"""systemd, asked and told."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Callable

from station.places import SERVICE, DeployError, run

_SHOWN = "ActiveState,SubState,Result,NRestarts,StatusText,InvocationID,NeedDaemonReload,UnitFileState"


@dataclass(frozen=True)
class Unit:
    """How the daemon's service stands. `active` means READY: it is of Type=notify."""

    active: str
    sub: str
    result: str
    restarts: int
    status: str
    invocation: str
    reload_needed: bool = True
    enabled: bool = False

    @property
    def broker_connected(self) -> bool:
        """As the daemon says of itself."""
        return re.search(r"\bbroker connected\b", self.status) is not None


def look(unit: str = SERVICE) -> Unit:
    """Now."""
    told = run(["systemctl", "show", unit, "--property", _SHOWN])
    found = dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)
    return Unit(
        found.get("ActiveState", "unknown"),
        found.get("SubState", ""),
        found.get("Result", ""),
        int(found.get("NRestarts") or 0),
        found.get("StatusText", ""),
        found.get("InvocationID", ""),
        found.get("NeedDaemonReload") != "no",
        found.get("UnitFileState") == "enabled",
    )


def tell(*words: str, timeout_s: float = 120.0) -> None:
    """systemctl. Raises DeployError with its own words."""
    told = run(["systemctl", *words], timeout_s=timeout_s)
    if told.returncode != 0:
        raise DeployError(f"systemctl {' '.join(words)}: {(told.stderr or told.stdout).strip()}")


def journal_tail(since_s: float, lines: int = 30) -> list[str]:
    """What the daemon has said since *since_s* (Unix time), the last *lines*."""
    told = run(
        ["journalctl", "--no-pager", "--output=short-iso", f"--lines={lines}", f"--since=@{int(since_s)}",
         f"--unit={SERVICE}"],
    )  # fmt: skip
    return [line for line in told.stdout.splitlines() if not line.startswith("-- ")]


def wait_ready(within_s: float, restarts_allowed: int = 1) -> str | None:
    """Until it is READY; else why not, in words. A start that fails again and again is not waited for to the end."""
    ends_s = time.monotonic() + within_s
    while True:
        unit = look()
        if unit.active == "active":
            return None
        if unit.restarts > restarts_allowed:
            return f"it ended {unit.restarts} times before it was READY"
        if unit.active in ("failed", "inactive") and unit.sub not in ("auto-restart", "start-pre"):
            return f"the service is {unit.active} ({unit.result})"
        if time.monotonic() > ends_s:
            return f"it was not READY within {within_s:.0f} s: {unit.status or unit.sub}"
        time.sleep(0.25)


def wait_steady(for_s: float, confirm_s: float, word: Callable[[], tuple[bool, str] | None]) -> str | None:
    """Watch it for *for_s* after READY; else why not, in words.

    *word* is what the controller says: a refusal ends it at once. It is waited for until *confirm_s* after READY; a
    controller that has gone away decides nothing.
    """
    began_s = time.monotonic()
    first = look()
    while True:
        said = word()
        if said is not None and not said[0]:
            return said[1]
        unit = look()
        if unit.active != "active" or unit.invocation != first.invocation:
            return f"it was READY and then ended ({unit.result}, {unit.active})"
        if time.monotonic() - began_s > (for_s if said is not None else max(for_s, confirm_s)):
            return None
        time.sleep(0.5)
