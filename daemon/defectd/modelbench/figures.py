"""Samples in, figures out. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Sequence

from defectd.engine.choice import percentile


@dataclass(frozen=True)
class Latency:
    """Of one runtime's calls, in milliseconds; percentiles as they are when runtimes are chosen."""

    calls: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    longest_ms: float
    mean_ms: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Latency:
        """Raises ValueError if there are none."""
        if not samples_ms:
            raise ValueError("no samples")
        p50_ms, p95_ms, p99_ms = (percentile(samples_ms, share) for share in (0.5, 0.95, 0.99))
        return cls(len(samples_ms), p50_ms, p95_ms, p99_ms, max(samples_ms), statistics.fmean(samples_ms))

    @property
    def units_per_s(self) -> float:
        """What calls back to back get through."""
        return 1e3 / self.mean_ms


def units_per_s(batch: int, latency_ms: Sequence[float]) -> float:
    """Of calls back to back with *batch* units each. Raises ValueError if there are none."""
    if not latency_ms:
        raise ValueError("no samples")
    return 1e3 * batch * len(latency_ms) / sum(latency_ms)


def quantity(value: float) -> str:
    """At least three digits that count, three decimals at most: 0.412, 8.31, 14.2, 220, 1,028."""
    if value == 0:
        return "0"
    return f"{value:,.{min(3, max(0, 2 - math.floor(math.log10(abs(value)))))}f}"


def column(values: Sequence[float | None]) -> list[str]:
    """A column of a table: as many decimals for all as the smallest needs for three digits, so that they line up;
    integers have none."""
    present = [value for value in values if value is not None]
    least = min((abs(value) for value in present if value), default=1.0)
    decimals = min(3, max(0, 2 - math.floor(math.log10(least))))
    if all(isinstance(value, int) for value in present):
        decimals = 0
    return ["–" if value is None else f"{value:,.{decimals}f}" for value in values]


def times(ratio: float) -> str:
    """A ratio in words for people: 1.84×, 12×."""
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.0f}×"
