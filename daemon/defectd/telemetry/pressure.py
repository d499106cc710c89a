"""What the kernel says of tasks that wait: /proc/pressure, which JetPack 5 does not have, and /proc/loadavg."""

from __future__ import annotations

import os
from pathlib import Path

from defectd.telemetry.explain import Pressure
from defectd.telemetry.sample import Roots


def read_pressure(roots: Roots, at_ns: int) -> Pressure:
    """Now. Never raises."""
    cpu, io, memory = (_text(roots.proc / "pressure" / name) for name in ("cpu", "io", "memory"))
    return Pressure.of(at_ns, cpu, io, memory, _text(roots.proc / "loadavg"), os.cpu_count() or 1)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
