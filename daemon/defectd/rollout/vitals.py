"""What the machine has left: memory and temperature. What is not known is no reason to stop."""

from __future__ import annotations

from dataclasses import dataclass

from defectd.clock import NS_PER_S
from defectd.telemetry.sample import DeviceSample

_FRESH_NS = 30 * NS_PER_S


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


def vitals_of(sample: DeviceSample | None, now_ns: int) -> Vitals:
    """From the latest look at the machine; None: there was none yet. An old one says nothing of now."""
    if sample is None or now_ns - sample.at_ns > _FRESH_NS:
        return Vitals()
    free_mb = sample.mem_available_mb
    return Vitals(None if free_mb is None else int(free_mb), sample.hottest_c)
