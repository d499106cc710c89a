"""Units that a message has named before a camera saw them: the next trigger is the oldest of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from defectd.clock import NS_PER_S

MOST = 100


@dataclass(frozen=True)
class Announcement:
    """What will come; it is believed until `until_ns` (CLOCK_MONOTONIC)."""

    unit_id: str
    position: str | None
    until_ns: int


class Announced:
    """First in, first out. Bounded: *MOST* at a time."""

    def __init__(self) -> None:
        self._coming: deque[Announcement] = deque()

    def add(self, unit_id: str, position: str | None, now_ns: int, valid_s: float) -> bool:
        """False if too many are waited for already."""
        if len(self._coming) >= MOST:
            return False
        self._coming.append(Announcement(unit_id, position, now_ns + int(valid_s * NS_PER_S)))
        return True

    def take(self, now_ns: int) -> Announcement | None:
        """The unit that is here now; None if nobody has announced it. What is over is left for `overdue`."""
        for each in list(self._coming):
            if each.until_ns >= now_ns:
                self._coming.remove(each)
                return each
        return None

    def overdue(self, now_ns: int) -> list[Announcement]:
        """Those that did not come; each is told once."""
        late = [each for each in self._coming if each.until_ns < now_ns]
        for each in late:
            self._coming.remove(each)
        return late
