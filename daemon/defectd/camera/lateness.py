"""How late the pictures of a stream are, told by the stream's own timestamps. Pure.

A server, a network or a process that stood still sends afterwards what it has saved up. Such pictures look like any
other; only their timestamps lag behind the clock more than those of the pictures before.
"""

from __future__ import annotations

from defectd.clock import NS_PER_MS, NS_PER_S

MAX_LATE_NS = 400 * NS_PER_MS
_SETTLE_NS = 500 * NS_PER_MS
_FELL_NS = 50 * NS_PER_MS
_WINDOW_NS = 5 * NS_PER_S  # two clocks drift apart, and some cameras' timestamps by several ms a second


class Lateness:
    """Compares with the most punctual picture of the last 5 to 10 s.

    A stream may begin with what was saved up: it is not `settled` until for half a second none was more punctual than
    those before. `late_since_ns` is when the pictures began to come late, without a punctual one since.
    """

    def __init__(self) -> None:
        self.settled = False
        self.late_since_ns: int | None = None
        self._catching_up_from: tuple[int, int] | None = None
        self._before_ns = self._best_ns = 0
        self._window_ends_ns: int | None = None

    def of(self, stamp_ns: int | None, arrival_ns: int) -> int:
        """Nanoseconds, 0 or more. *stamp_ns*: the picture's own time, of any origin; None: it has none."""
        lag_ns = 0 if stamp_ns is None else arrival_ns - stamp_ns
        self._settle(lag_ns, arrival_ns)
        if self._window_ends_ns is None:
            self._before_ns = self._best_ns = lag_ns
            self._window_ends_ns = arrival_ns + _WINDOW_NS
        elif arrival_ns >= self._window_ends_ns:
            self._before_ns, self._best_ns = self._best_ns, lag_ns
            self._window_ends_ns = arrival_ns + _WINDOW_NS
        self._best_ns = min(self._best_ns, lag_ns)
        late_ns = lag_ns - min(self._before_ns, self._best_ns)
        if late_ns <= MAX_LATE_NS:
            self.late_since_ns = None
        elif self.late_since_ns is None:
            self.late_since_ns = arrival_ns
        return late_ns

    def _settle(self, lag_ns: int, arrival_ns: int) -> None:
        if self._catching_up_from is None or lag_ns < self._catching_up_from[1] - _FELL_NS:
            self._catching_up_from = arrival_ns, lag_ns
        self.settled = self.settled or arrival_ns - self._catching_up_from[0] >= _SETTLE_NS
