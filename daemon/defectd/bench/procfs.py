"""What the kernel knows about processes: their memory, and where the cores' time went."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_NAMES = {
    "defectd.engine.worker": "engine",
    "defectd.camera.worker": "camera",
    "defectd.evidence.worker": "evidence",
}


def peak_mb(pid: int) -> float:
    """Most memory that *pid* ever had resident, shared pages included. 10^6 bytes."""
    return peak_of(Path(f"/proc/{pid}/status").read_text())


def peak_of(status: str) -> float:
    """VmHWM in the text of a /proc/PID/status. 10^6 bytes."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError("no VmHWM: the process has ended")


def workers_of(daemon: int) -> dict[str, int]:
    """The daemon and its workers, by name."""
    pids = {"daemon": daemon}
    for children in Path(f"/proc/{daemon}/task").glob("*/children"):
        for pid in children.read_text().split():
            arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            names = [_NAMES[argument] for argument in arguments if argument in _NAMES]
            if names:
                pids[names[0]] = int(pid)
    return pids


@dataclass(frozen=True)
class CoreTime:
    """Seconds of processor time so far: of each process by name, and of the whole machine, idle time left out."""

    process_s: dict[str, float]
    machine_s: float

    @classmethod
    def now(cls, pids: dict[str, int]) -> CoreTime:
        """Read it; processes that have ended are left out."""
        process_s: dict[str, float] = {}
        for name, pid in pids.items():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                process_s[name] = _process_s(Path(f"/proc/{pid}/stat").read_text())
        return cls(process_s, _machine_s(Path("/proc/stat").read_text()))

    def since(self, earlier: CoreTime) -> CoreTime:
        """What was used in between."""
        process_s = {
            name: now_s - earlier.process_s[name] for name, now_s in self.process_s.items() if name in earlier.process_s
        }
        return CoreTime(process_s, self.machine_s - earlier.machine_s)

    @property
    def others_s(self) -> float:
        """Of processes that were not asked for; among them whatever disturbs the measurement."""
        return max(0.0, self.machine_s - sum(self.process_s.values()))


def _process_s(stat: str) -> float:
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _machine_s(stat: str) -> float:
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in stat.split()[1:8])
    return (user + nice + system + irq + softirq) / _TICKS_PER_S
