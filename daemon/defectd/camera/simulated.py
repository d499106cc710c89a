"""A production line drawn by us: boards with known defects pass at a steady pace and wait for nobody."""

from __future__ import annotations

import numpy as np

from defectd.camera.base import Allocate, Arrival, Pixels, SourceEnded
from defectd.camera.boards import BoardLine
from defectd.camera.pacing import Pace, sleep_until
from defectd.clock import NS_PER_MS, monotonic_ns, utc_now
from defectd.inspection.events import ErrorReason

_DRAW_AHEAD_NS = 60 * NS_PER_MS


class SimulatedSource:
    """Board *number* of the line passes at its due time; one that passed unseen is lost, and said so."""

    patient = False

    def __init__(
        self, line: BoardLine, rate_hz: float, units: int | None, first: int, origin_ns: int, number: int
    ) -> None:
        """*first* is the first trigger of this run, due at *origin_ns* (0: now, at the first `wait`); after *units*
        the line stops. Begin at *number*."""
        self._line, self._first, self._units = line, first, units
        self._rate_hz = rate_hz
        self._pace = Pace(origin_ns, first, rate_hz) if origin_ns else None
        self._started_ns = monotonic_ns()
        self._ahead: tuple[int, Pixels] | None = None
        self._next = number
        self._shot = False

    def wait(self, number: int, timeout_s: float) -> Arrival | None:
        """See Source."""
        if self._units is not None and number >= self._first + self._units:
            raise SourceEnded
        self._pace = self._pace or Pace(monotonic_ns(), self._first, self._rate_hz)
        self._next = number + 1
        if self._shot:
            self._shot = False
            self._draw(number)
            return Arrival(_unit_id(number), monotonic_ns(), utc_now(), frame_id=number)
        due_ns = self._pace.due_ns(number)
        if self._pace.passed(number, monotonic_ns()):
            lost: ErrorReason = "camera_lost" if due_ns < self._started_ns else "camera_overrun"
            return Arrival(_unit_id(number), due_ns, utc_now(), lost=lost)
        if not sleep_until(due_ns - _DRAW_AHEAD_NS, timeout_s):
            return None
        self._draw(number)
        if not sleep_until(due_ns, timeout_s):
            return None
        return Arrival(_unit_id(number), monotonic_ns(), utc_now(), frame_id=number)

    def shoot(self) -> None:
        """The next board is in front of the camera."""
        self._shot = True

    def idle(self) -> None:
        """Draw the next board. Raises SourceEnded behind the last one."""
        if self._units is not None and self._next >= self._first + self._units:
            raise SourceEnded
        self._draw(self._next)

    def fetch(self, allocate: Allocate) -> None:
        """See Source."""
        assert self._ahead is not None
        image = self._ahead[1]
        np.copyto(allocate(*image.shape[:2]), image)

    def close(self) -> None:
        """Nothing to release."""

    def _draw(self, number: int) -> None:
        if self._ahead is None or self._ahead[0] != number:
            self._ahead = number, self._line.board(number).image


def _unit_id(number: int) -> str:
    return f"board-{number:08d}"
