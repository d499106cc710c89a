"""Time: the monotonic clock for durations and deadlines, UTC for the wire."""

from __future__ import annotations

import random
import time
from datetime import datetime, timezone

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC in nanoseconds; the same origin in every process of this boot."""
    return time.monotonic_ns()


def utc_now() -> datetime:
    """The wall clock, in UTC; for the wire only, it may step."""
    return datetime.now(timezone.utc)


def ms_between(start_ns: int, end_ns: int) -> float:
    """Milliseconds from *start_ns* to *end_ns*."""
    return (end_ns - start_ns) / NS_PER_MS


class Backoff:
    """Delays that double from *first_s* to *longest_s*, each with ±25 % jitter so that a fleet spreads out."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._next_s = first_s

    def next_s(self) -> float:
        """The delay before the next attempt, in seconds."""
        delay_s = self._next_s * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret
        self._next_s = min(self._next_s * 2, self._longest_s)
        return delay_s

    def reset(self) -> None:
        """Begin again with the first delay: the attempt succeeded."""
        self._next_s = self._first_s
