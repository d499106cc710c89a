"""What all checks know about the station before they look closer."""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from defectd.app import topics_of
from defectd.checked import Checked
from defectd.settings import Settings
from defectd.telemetry.sample import Board, DeviceSample, Roots

_LOCK = ".lock"


@dataclass(frozen=True)
class Occupancy:
    """Whether a daemon uses the state directory. None: this user may not know. `pid` where the kernel tells it."""

    occupied: bool | None
    pid: int | None = None

    @property
    def by(self) -> str:
        """For people; empty if it is free."""
        if self.occupied is None:
            return "a daemon may run (its lock is not for this user)"
        if not self.occupied:
            return ""
        return "a daemon runs"


@dataclass(frozen=True)
class Places:
    """Where the system is looked for; tests give others."""

    roots: Roots = field(default_factory=Roots.of_environment)
    dev: Path = Path("/dev")
    run: Path = Path("/run")


@dataclass(frozen=True)
class Patient:
    """The station. `settings` is None if they cannot be read, `checked` if they do not fit the world; `problems` say
    why. `busy` is not empty while a daemon runs, or may run: then nothing is done that it could feel."""

    config: Path
    board: Board
    sample: DeviceSample
    settings: Settings | None = None
    checked: Checked | None = None
    problems: tuple[str, ...] = ()
    occupancy: Occupancy = Occupancy(False)
    places: Places = field(default_factory=Places)
    quick: bool = False
    dev: bool = False

    @property
    def busy(self) -> str:
        """Why this machine is not ours alone."""
        return self.occupancy.by

    @property
    def owner(self) -> int | None:
        """The number of the user to whom the state belongs, as whom the daemon runs; None before its first start."""
        try:
            return None if self.settings is None else self.settings.state.directory.stat().st_uid
        except OSError:
            return None

    @property
    def is_stranger(self) -> bool:
        """Who asks is neither the daemon's user nor root: what is closed to them tells nothing about the daemon."""
        return self.owner is not None and os.geteuid() not in (0, self.owner)

    @property
    def is_jetson(self) -> bool:
        """It has a Tegra inside."""
        return self.board.platform != "pc"

    @property
    def machine(self) -> str:
        """For people."""
        return f"{self.board.model}, L4T {self.board.l4t}" if self.board.l4t else self.board.model

    @property
    def station(self) -> str:
        """site/area/line/station, if that is known."""
        return "a station" if self.settings is None else topics_of(self.settings).levels

    @property
    def unread(self) -> str:
        """Why a check that needs settings cannot be made."""
        return f"needs settings, and {self.config} cannot be read"


def occupancy_of(state: Path, proc: Path = Path("/proc")) -> Occupancy:
    """By the lock that a daemon holds in *state* for as long as it lives. It is tried for an instant, and shared, so
    that two doctors do not see each other."""
    try:
        descriptor = os.open(state / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return Occupancy(False)
    except OSError:
        return Occupancy(None)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Occupancy(True, _holder(proc, os.fstat(descriptor).st_ino))
    except OSError:
        return Occupancy(None)
    finally:
        os.close(descriptor)
    return Occupancy(False)


def _holder(proc: Path, inode: int) -> int | None:
    """Of /proc/locks: `5: FLOCK  ADVISORY  WRITE 4711 08:01:131085 0 EOF`."""
    try:
        text = (proc / "locks").read_text()
    except OSError:
        return None
    found = re.search(rf"FLOCK\s+ADVISORY\s+WRITE\s+(\d+)\s+\S+:{inode}\s", text)
    return int(found.group(1)) if found and int(found.group(1)) > 0 else None
