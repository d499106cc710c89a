"""How fast the web moves, learned from the defects themselves: all of them move alike. PURE."""

from __future__ import annotations

import math
from collections import deque
from typing import Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from defectd.inspection.web_wire import Box

Speed = Tuple[float, float]
"""[x, y] in pixels per second."""

_PAIRS = 6  # of consecutive frames that vote together; at 10 Hz a change of speed is seen within half a second
_BOXES = 8  # of a frame that vote, so that a frame full of findings costs no more
_VOTES = 3  # at least, for another speed
_SUPPORT = 0.5  # of the steps that were possible: as long as so many agree, the speed is right
_LONGEST_STEP_S = 2.0
_LATEST_S = 0.5  # no time of arrival is later than that; after a longer gap a thing there is another one
_THINGS = 30  # of a frame that say how far it slipped: their votes are the fourth power of it
_TOLERANCE = 0.3  # of the size of a box
_TOLERANCE_LEAST_PX = 3.0

Floats = NDArray[np.float64]


class WebMotion:
    """Every step from a box of one frame to a box of the next votes for a speed. Wrong pairs disagree with each other,
    right ones do not. Something that stands still, dirt on the lens, votes for a web that stands still."""

    def __init__(self, start: Speed) -> None:
        self.px_per_s: Speed = start
        self._before: tuple[float, Floats, float] | None = None
        self._steps: deque[tuple[Floats, float, float, int]] = deque(maxlen=_PAIRS)

    def look(self, at_s: float, boxes: Sequence[Box]) -> bool:
        """Take note of the next frame. True if the web moves otherwise than was believed until now."""
        if not boxes:
            return False
        corners = np.asarray(boxes[:_BOXES], np.float64)
        centres, size_px = _centres(corners), float(np.sqrt(np.median(corners[:, 2] * corners[:, 3])))
        before, self._before = self._before, (at_s, centres, size_px)
        if before is None or not 0.0 < at_s - before[0] <= _LONGEST_STEP_S:
            self._steps.clear()
            return False
        step_s = at_s - before[0]
        moves = (centres[None, :, :] - before[1][:, None, :]).reshape(-1, 2) / step_s
        tolerance_px = max(_TOLERANCE * min(size_px, before[2]), _TOLERANCE_LEAST_PX)
        self._steps.append((moves, tolerance_px / step_s, step_s, min(len(centres), len(before[1]))))
        return self._weigh()

    def _weigh(self) -> bool:
        mine = self._votes(np.asarray([self.px_per_s]))[0]
        if mine >= _SUPPORT * sum(possible for *_, possible in self._steps):
            self.px_per_s = self._refined(np.asarray(self.px_per_s))
            return False
        candidates = np.concatenate([moves for moves, *_ in self._steps])
        votes = self._votes(candidates)
        best = int(votes.argmax())
        if votes[best] < _VOTES or votes[best] <= mine:
            return False
        self.px_per_s = self._refined(candidates[best])
        return True

    def _votes(self, speeds: Floats) -> NDArray[np.int64]:
        """For each of the (N, 2) *speeds*, how many steps agree with it."""
        count = np.zeros(len(speeds), np.int64)
        for moves, tolerance, *_ in self._steps:
            away = np.abs(moves[None, :, :] - speeds[:, None, :]).max(axis=2)
            count += (away <= tolerance).sum(axis=1)
        return count

    def _refined(self, speed: Floats) -> Speed:
        """The mean of those that agree with *speed*."""
        agree = [moves[np.abs(moves - speed).max(axis=1) <= tolerance] for moves, tolerance, *_ in self._steps]
        found = np.concatenate(agree)
        x, y = found.mean(axis=0) if len(found) else speed
        return float(x), float(y)


def slip_px(places: Sequence[Box], boxes: Sequence[Box], speed: Speed, step_s: float) -> Speed:
    """How far the web is from where its *speed* would have it, judged by things at *places* that are seen as *boxes*
    now, both as they lie on the web. Times of arrival jitter, and so does a web; by *step_s* at most. The first 30 of
    each vote."""
    late_s = min(step_s, _LATEST_S)
    pace = math.hypot(*speed)
    if not places or not boxes or pace * late_s < _TOLERANCE_LEAST_PX:
        return 0.0, 0.0
    before, now = np.asarray(places[:_THINGS], np.float64), np.asarray(boxes[:_THINGS], np.float64)
    moves = _centres(now)[None, :, :] - _centres(before)[:, None, :]
    along = np.asarray(speed) / pace
    ahead, aside = moves @ along, np.abs(moves @ np.array([-along[1], along[0]]))
    tolerance_px = max(_TOLERANCE * float(np.sqrt(np.median(now[:, 2] * now[:, 3]))), _TOLERANCE_LEAST_PX)
    possible = ahead[(aside <= tolerance_px) & (np.abs(ahead) <= pace * late_s)]
    votes = (np.abs(possible[:, None] - possible[None, :]) <= tolerance_px).sum(axis=1)
    if not len(votes) or votes.max() <= (np.abs(possible) <= tolerance_px).sum():
        return 0.0, 0.0
    best = min(possible[votes == votes.max()], key=abs)
    slip = float(possible[np.abs(possible - best) <= tolerance_px].mean())
    return slip * float(along[0]), slip * float(along[1])


def _centres(boxes: Floats) -> Floats:
    return boxes[:, :2] + boxes[:, 2:] / 2
