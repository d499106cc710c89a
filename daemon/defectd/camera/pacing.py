"""When the next unit of a paced source is due."""

from __future__ import annotations

import time

from defectd.clock import NS_PER_S, monotonic_ns


class Pace:
    """Unit *number* is due `(number - first) / rate_hz` after *origin_ns*."""

    def __init__(self, origin_ns: int, first: int, rate_hz: float) -> None:
        self._origin_ns, self._first, self._period_ns = origin_ns, first, NS_PER_S / rate_hz

    def due_ns(self, number: int) -> int:
        """CLOCK_MONOTONIC nanoseconds."""
        return self._origin_ns + int((number - self._first) * self._period_ns)

    def passed(self, number: int, now_ns: int) -> bool:
        """True if the unit after *number* is due already: *number* has left the camera's view."""
        return now_ns > self.due_ns(number + 1)

    def shift(self, number: int, now_ns: int) -> None:
        """The source was held up: *number* is due now, and the others after it in the same rhythm."""
        self._origin_ns = now_ns - int((number - self._first) * self._period_ns)


def sleep_until(due_ns: int, timeout_s: float) -> bool:
    """Sleep until *due_ns* or for *timeout_s*; True if it is due."""
    remaining_s = (due_ns - monotonic_ns()) / NS_PER_S
    time.sleep(max(0.0, min(remaining_s, timeout_s)))
    return remaining_s <= timeout_s
