"""What the machine has left: memory and temperature, as the kernel tells. What cannot be read is no error."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from defectd.engine.background import available_memory_mb

_PLAUSIBLE_C = (-60.0, 150.0)
"""Zones that are off say -256, or 2^31 / 1000, or the like."""
_CONSTANT_ZONES = ("PMIC-Die",)
"""Xavier: always 100 °C."""


@dataclass(frozen=True)
class Vitals:
    """`free_mb` is MemAvailable in MiB, on a Jetson the GPU's, too; `hottest_c` is of all zones. None: not readable."""

    free_mb: int | None = None
    hottest_c: float | None = None

    def or_worse(self, other: Vitals) -> Vitals:
        """The least memory and the highest temperature of both."""
        free_mb = [mb for mb in (self.free_mb, other.free_mb) if mb is not None]
        heat_c = [celsius for celsius in (self.hottest_c, other.hottest_c) if celsius is not None]
        return Vitals(min(free_mb, default=None), max(heat_c, default=None))

    def lacks_memory(self, least_mb: int) -> str | None:
        """Why, in words; None if it does not, or cannot be known."""
        if self.free_mb is None or self.free_mb >= least_mb:
            return None
        return f"{self.free_mb} MB of memory are available, {least_mb} MB must be (min_free_mb)"

    def is_too_hot(self, most_c: int) -> str | None:
        """Why, in words; None if it is not, or cannot be known."""
        if self.hottest_c is None or self.hottest_c <= most_c:
            return None
        return f"the hottest zone has {self.hottest_c:.1f} °C, {most_c} °C are allowed (max_temp_c); look at the fan"


def read_vitals(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Vitals:
    """Now. Never raises for what the machine does not tell."""
    zones = [_zone_c(zone) for zone in sorted(sys.glob("class/thermal/thermal_zone*"))]
    return Vitals(
        free_mb=available_memory_mb(proc / "meminfo"),
        hottest_c=max((celsius for celsius in zones if celsius is not None), default=None),
    )


def _zone_c(zone: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        if _read(zone / "type") not in _CONSTANT_ZONES:
            celsius = int(_read(zone / "temp")) / 1000
            low, high = _PLAUSIBLE_C
            return celsius if low < celsius < high else None
    return None


def _read(path: Path) -> str:
    """Raises OSError. Not `read_text`: the zone of a GPU that is switched off answers EAGAIN, on which Python's
    buffered reading raises TypeError. One attempt; it says so for as long as the GPU is off."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 64).decode("ascii", "replace").strip("\0\n ")
    finally:
        os.close(descriptor)
