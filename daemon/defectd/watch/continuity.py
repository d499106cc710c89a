"""Which numbers of a consecutive sequence were seen. PURE."""

from __future__ import annotations

from typing import Iterable, Tuple

Range = Tuple[int, int]  # first and last, both included

_HOLES_KEPT = 1000


class Continuity:
    """Begins with the first number that it sees: a viewer comes when it comes. Memory is bounded by the holes."""

    def __init__(self) -> None:
        self.first = self.last = 0
        self.count = self.duplicates = 0
        self._holes: list[Range] = []
        self._excused: list[Range] = []

    def see(self, number: int) -> bool:
        """True if *number* is new; a late one closes its hole, one that was seen before is counted."""
        if self.count == 0:
            self.first = self.last = number
        elif number > self.last:
            if number > self.last + 1:
                self._holes = [*self._holes, (self.last + 1, number - 1)][-_HOLES_KEPT:]
            self.last = number
        elif number < self.first:
            self._holes = _without([(number, self.first - 1), *self._holes], (number, number))[-_HOLES_KEPT:]
            self.first = number
        elif any(low <= number <= high for low, high in self._holes):
            self._holes = _without(self._holes, (number, number))
        else:
            self.duplicates += 1
            return False
        self.count += 1
        return True

    def excuse(self, ranges: Iterable[Range]) -> None:
        """These will never come, and somebody said why; before or after the hole shows."""
        self._excused = [*self._excused, *ranges][-_HOLES_KEPT:]

    @property
    def holes(self) -> list[Range]:
        """What is missing and was not explained, oldest first."""
        holes = self._holes
        for excused in self._excused:
            holes = _without(holes, excused)
        return holes

    @property
    def missing(self) -> int:
        """How many are missing without an explanation."""
        return sum(high - low + 1 for low, high in self.holes)


def _without(ranges: list[Range], cut: Range) -> list[Range]:
    """*ranges* less what lies in *cut*."""
    left = []
    for low, high in ranges:
        if cut[1] < low or high < cut[0]:
            left.append((low, high))
            continue
        if low < cut[0]:
            left.append((low, cut[0] - 1))
        if cut[1] < high:
            left.append((cut[1] + 1, high))
    return left
