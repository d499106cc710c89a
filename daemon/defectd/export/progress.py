"""Long work says now and then how far it is."""

from __future__ import annotations

from typing import Callable

from defectd.clock import monotonic_ns

Say = Callable[[str], None]
_EVERY_S = 5.0


class Progress:
    """Of *total* steps called *label*: a line about every five seconds, with an estimate."""

    def __init__(self, say: Say, label: str, total: int) -> None:
        self._say, self._label, self._total = say, label, total
        self._done = 0
        self._started_ns = self._said_ns = monotonic_ns()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        now_ns = monotonic_ns()
        if (now_ns - self._said_ns) / 1e9 >= _EVERY_S and self._done < self._total:
            self._said_ns = now_ns
            left_s = (now_ns - self._started_ns) / 1e9 / self._done * (self._total - self._done)
            self._say(f"  {self._label}: {self._done} of {self._total}, about {left_s:.0f} s left")
