"""The pure part of the benchmark: samples in, figures out. No clocks, no processes."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Sequence


@dataclass(frozen=True)
class Latency:
    """Of one thing over all rounds: `p50_ms` is the median of the rounds' medians, `p99_ms` is of all samples."""

    p50_ms: float
    p99_ms: float
    samples: int

    @classmethod
    def of(cls, rounds_ms: Sequence[Sequence[float]]) -> Latency:
        """From the samples of each round. Raises ValueError if there are none."""
        together_ms = [sample_ms for round_ms in rounds_ms for sample_ms in round_ms]
        medians_ms = [statistics.median(round_ms) for round_ms in rounds_ms if round_ms]
        return cls(median(medians_ms), percentile(together_ms, 0.99), len(together_ms))


@dataclass(frozen=True)
class Timing:
    """`timing_ms` of one judged unit."""

    queue_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    capture_to_verdict_ms: float

    @property
    def elsewhere_ms(self) -> float:
        """What no stage accounts for: the picture's way into its slot, two messages, and the judging."""
        staged_ms = self.queue_ms + self.preprocess_ms + self.inference_ms + self.postprocess_ms
        return self.capture_to_verdict_ms - staged_ms


@dataclass(frozen=True)
class Target:
    """One thing that must hold: *values*, one per round, by their median against *limit*."""

    name: str
    values: tuple[float, ...]
    limit: float
    at_most: bool
    unit: str = "x"

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return median(self.values)

    @property
    def met(self) -> bool:
        """True if the median keeps the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def at_most(name: str, values: Sequence[float], limit: float, unit: str = "x") -> Target:
    """A target with an upper bound."""
    return Target(name, tuple(values), limit, True, unit)


def at_least(name: str, values: Sequence[float], limit: float, unit: str = "x") -> Target:
    """A target with a lower bound."""
    return Target(name, tuple(values), limit, False, unit)


def median(values: Sequence[float]) -> float:
    """The middle one. Raises ValueError if there is none."""
    if not values:
        raise ValueError("no samples")
    return float(statistics.median(values))


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that *share* (0..1) of all do not exceed: nearest rank, never an invented value."""
    if not samples:
        raise ValueError("no samples")
    ranked = sorted(samples)
    return float(ranked[max(0, math.ceil(share * len(ranked)) - 1)])


def rate_hz(starts_s: Sequence[float], skip: int = 0) -> float:
    """Units per second of a run of starting (or ending) times, without the first *skip* of them."""
    steady = sorted(starts_s)[skip:]
    if len(steady) < 2:
        raise ValueError("a rate needs two moments")
    return (len(steady) - 1) / (steady[-1] - steady[0])
