"""When an engine is warm. Pure: durations in, decision and report out.

The first call of a TorchScript module runs unoptimised, the second compiles, the third is the first real one;
after that, clocks, caches and allocators settle.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any, Callable

COLD_CALLS = 3
"""Calls per input shape that say nothing about the steady state."""
_WINDOW = 50
_TOLERANCE = 0.02


@dataclass(frozen=True)
class WarmupLimits:
    """At least `minimum` and at most `maximum` iterations, both counting the cold calls."""

    minimum: int
    maximum: int

    @classmethod
    def of(cls, device: str, minimum: int | None, maximum: int | None) -> WarmupLimits:
        """The defaults of *device* ("cuda" or "cpu"), each replaced where configured."""
        default_minimum, default_maximum = (100, 300) if device == "cuda" else (10, 30)
        least = max(COLD_CALLS + 1, default_minimum if minimum is None else minimum)
        return cls(least, max(least, default_maximum if maximum is None else maximum))


@dataclass(frozen=True)
class WarmupResult:
    """The fields of `inspection.events.WarmupReport`. `steady` is false if it gave up at the maximum."""

    cold_first_call_ms: float
    iterations: int
    steady: bool
    steady_p50_ms: float
    steady_p99_ms: float

    def to_json(self) -> dict[str, Any]:
        """For READY."""
        return asdict(self)


def warm_up(
    call: Callable[[], float], settle: Callable[[], None], limits: WarmupLimits, between: Callable[[], None]
) -> WarmupResult:
    """Repeat *call*, which returns its milliseconds, until steady; *settle* runs once after the cold calls and is
    not counted, *between* runs after each."""
    samples_ms: list[float] = []
    while len(samples_ms) < limits.maximum:
        if len(samples_ms) == COLD_CALLS:
            settle()
        samples_ms.append(call())
        between()
        if len(samples_ms) >= limits.minimum and is_steady(samples_ms[COLD_CALLS:]):
            return report(samples_ms, steady=True)
    return report(samples_ms, steady=False)


def is_steady(samples_ms: list[float]) -> bool:
    """The median of the last window is within 2 % of that of the window before. A window has 50 samples; with
    fewer than 100 samples, half of them."""
    window = min(_WINDOW, len(samples_ms) // 2)
    if window == 0:
        return False
    last = statistics.median(samples_ms[-window:])
    before = statistics.median(samples_ms[-2 * window : -window])
    return abs(last - before) <= _TOLERANCE * before


def report(samples_ms: list[float], steady: bool) -> WarmupResult:
    """The report on all calls in order; the percentiles are those of the two windows compared last."""
    settled = sorted(samples_ms[COLD_CALLS:][-2 * _WINDOW :])
    return WarmupResult(
        cold_first_call_ms=round(samples_ms[0], 3),
        iterations=len(samples_ms),
        steady=steady,
        steady_p50_ms=round(statistics.median(settled), 3),
        steady_p99_ms=round(settled[min(len(settled) - 1, int(0.99 * len(settled)))], 3),
    )
