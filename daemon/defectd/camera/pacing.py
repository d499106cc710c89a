"""When the next unit of a paced source is due."""

from __future__ import annotations

import time
from typing import Sequence

from defectd.clock import NS_PER_MS, NS_PER_S, monotonic_ns


class Pace:
    """Unit *number* is due `(number - first) / rate_hz` after *origin_ns*."""

    def __init__(self, origin_ns: int, first: int, rate_hz: float) -> None:
        self._origin_ns, self._first, self._period_ns = origin_ns, first, NS_PER_S / rate_hz

    def due_ns(self, number: int) -> int:
        """CLOCK_MONOTONIC nanoseconds."""
        return self._origin_ns + self._after_ns(number)

    def passed(self, number: int, now_ns: int) -> bool:
        """True if the unit after *number* is due already: *number* has left the camera's view."""
        return now_ns > self.due_ns(number + 1)

    def shift(self, number: int, now_ns: int) -> None:
        """The source was held up: *number* is due now, and the others after it in the same rhythm."""
        self._origin_ns = now_ns - self._after_ns(number)

    def _after_ns(self, number: int) -> int:
        """From the first unit to *number*."""
        return int((number - self._first) * self._period_ns)


class RecordedPace(Pace):
    """Units come as they did when they were recorded. A loop begins again after one interval of the average length."""

    def __init__(self, origin_ns: int, first: int, number: int, offsets_ms: Sequence[float]) -> None:
        """Unit *first* is the first recorded one; *number* is due at *origin_ns*. *offsets_ms* rise."""
        intervals = max(1, len(offsets_ms) - 1)
        self._offsets_ms = [offset - offsets_ms[0] for offset in offsets_ms]
        self._lap_ms = self._offsets_ms[-1] + max(1.0, self._offsets_ms[-1] / intervals)
        super().__init__(origin_ns, first, 1.0)
        self.shift(number, origin_ns)

    def _after_ns(self, number: int) -> int:
        laps, index = divmod(number - self._first, len(self._offsets_ms))
        return int((laps * self._lap_ms + self._offsets_ms[index]) * NS_PER_MS)


def sleep_until(due_ns: int, timeout_s: float) -> bool:
    """Sleep until *due_ns* or for *timeout_s*; True if it is due."""
    remaining_s = (due_ns - monotonic_ns()) / NS_PER_S
    time.sleep(max(0.0, min(remaining_s, timeout_s)))
    return remaining_s <= timeout_s
