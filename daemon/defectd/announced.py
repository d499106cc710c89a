"""Units that a message has named before a camera saw them: the next trigger is the oldest of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from defectd.clock import NS_PER_S
from defectd.inspection.verdict import Judgement

MOST = 100


@dataclass(frozen=True)
class Announcement:
    """What will come; it is believed until `until_ns` (CLOCK_MONOTONIC). `refusal`: it is not judged, whatever it
    looks like."""

    unit_id: str
    position: str | None
    until_ns: int
    refusal: Judgement | None = None


class Announced:
    """First in, first out. Bounded: *MOST* at a time."""

    def __init__(self) -> None:
        self._coming: deque[Announcement] = deque()

    def add(
        self, unit_id: str, position: str | None, now_ns: int, valid_s: float, refusal: Judgement | None = None
    ) -> bool:
        """False if too many are waited for already."""
        if len(self._coming) >= MOST:
            return False
        self._coming.append(Announcement(unit_id, position, now_ns + int(valid_s * NS_PER_S), refusal))
        return True

    def take(self, now_ns: int) -> Announcement | None:
        """The unit that is here now; None if nobody has announced it. What is over is left for `overdue`."""
        for each in list(self._coming):
            if each.until_ns >= now_ns:
                self._coming.remove(each)
                return each
        return None

    def forget(self) -> list[Announcement]:
        """Triggers were lost, so that nobody knows which one the next is: all that was waited for."""
        coming, self._coming = list(self._coming), deque()
        return coming

    def overdue(self, now_ns: int) -> list[Announcement]:
        """Those that did not come; each is told once."""
        late = [each for each in self._coming if each.until_ns < now_ns]
        for each in late:
            self._coming.remove(each)
        return late
