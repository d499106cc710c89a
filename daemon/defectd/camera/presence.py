"""Units seen by a camera that nobody triggers: something stands before a background that is known.

`PresenceRule` decides from small grey views; `PresenceSource` feeds it with the frames of any other source.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from defectd.camera.base import Allocate, Arrival, Pixels, Source, Undecodable
from defectd.camera.empty_view import read_empty_view, write_empty_view
from defectd.camera.health import Say
from defectd.clock import NS_PER_S, monotonic_ns
from defectd.errors import CameraError

log = logging.getLogger(__name__)

View = NDArray[np.float32]

_SIDE_PX, _AVERAGED_PX = 160, 4  # of a view, and how many pixels of a side go into one of its own
_FIRST_VIEWS = 5  # the background is their median
_LEARN = 1 / 256  # of each empty view goes into the background
_STILL_SHARE = 0.01
_UNREADABLE_MOST = 10  # frames in a row that were lost or are no pictures: a unit could pass unseen
_KEEP_EVERY_S = 600.0


@dataclass(frozen=True)
class PresenceLimits:
    """A unit is there when `min_share` of the pixels in `region` (x, y, width, height; None: all) differ from the
    background by `min_change` grey levels. `background` is the file in which the empty view is kept."""

    region: Sequence[int] | None = None
    min_share: float = 0.1
    min_change: int = 25
    settle_frames: int = 2
    absent_frames: int = 2
    stuck_s: float = 60.0
    background: str | None = None


class Seen(Enum):
    """What one more view means."""

    NOTHING = "nothing new"
    BORN = "a unit is there, and its picture has settled"
    PASSED = "a unit has gone before its picture settled"


class PresenceRule:
    """When a unit is born. Knows the background from the first views, and follows it while nothing is there."""

    def __init__(self, limits: PresenceLimits) -> None:
        self.limits = limits
        self.background: View | None = None
        self._first: list[View] = []
        self._before: View | None = None
        self.here = False
        self._born = False
        self._still = self._absent = 0

    def see(self, view: View) -> Seen:
        """Take note of the next view."""
        before, self._before = self._before, view
        if self.background is None or self.background.shape != view.shape:
            self._begin(view)
            return Seen.NOTHING
        if self._changed(view, self.background) >= self.limits.min_share:
            return self._present(view, before)
        self._absent += 1
        if self.here and self._absent >= self.limits.absent_frames:
            return self._gone()
        if not self.here:
            self.background += _LEARN * (view - self.background)
        return Seen.NOTHING

    def reopened(self) -> None:
        """Frames are missing. Who is there now might be another one, and is judged: twice is better than never."""
        self.here = self._born = False
        self._before = None
        self._still = self._absent = 0

    def _present(self, view: View, before: View | None) -> Seen:
        self.here, self._absent = True, 0
        if self._born:
            return Seen.NOTHING
        moved = before is None or before.shape != view.shape or self._changed(view, before) > _STILL_SHARE
        self._still = 0 if moved else self._still + 1
        self._born = self._still >= self.limits.settle_frames
        return Seen.BORN if self._born else Seen.NOTHING

    def _gone(self) -> Seen:
        seen = Seen.NOTHING if self._born else Seen.PASSED
        self.here = self._born = False
        self._still = 0
        return seen

    def _begin(self, view: View) -> None:
        self._first = [each for each in self._first if each.shape == view.shape] + [view]
        if len(self._first) == _FIRST_VIEWS:
            self.background = np.median(self._first, axis=0).astype(np.float32)
            self._first.clear()

    def _changed(self, view: View, other: View) -> float:
        return float(np.mean(np.abs(view - other) >= self.limits.min_change))


def small_view(pixels: Pixels, region: Sequence[int] | None) -> View:
    """The green channel of *region*, averaged down to about 160 pixels: sensor noise and belt texture are gone.
    Raises CameraError if the region is not within the picture."""
    if region is not None:
        x, y, width, height = region
        frame, pixels = pixels, pixels[y : y + height, x : x + width]
        if pixels.shape[:2] != (height, width):
            seen = f"the picture has {frame.shape[1]}x{frame.shape[0]} pixels"
            raise CameraError(f"camera.presence.region = {list(region)} lies outside: {seen}")
    step = max(1, max(pixels.shape[:2]) // (_SIDE_PX * _AVERAGED_PX))
    grid = pixels[::step, ::step, 1]
    side = min(_AVERAGED_PX, *grid.shape)
    rows, columns = grid.shape[0] // side, grid.shape[1] // side
    total = np.zeros((rows, columns), np.uint16)
    for row in range(side):
        for column in range(side):
            total += grid[row : rows * side : side, column : columns * side : side]
    return np.asarray(total, np.float32) / np.float32(side * side)


class PresenceSource:
    """A free-running source as one that has units: most frames are only looked at, in memory of our own."""

    def __init__(
        self,
        source: Source,
        name: str,
        number: int,
        rule: PresenceRule,
        say: Say,
        stands_still: Callable[[Pixels], object],
    ) -> None:
        """*number* is the first frame to ask *source* for; *rule* outlives a camera that is opened anew.
        *stands_still* is shown each frame: a frozen camera would never show a unit."""
        self.patient = source.patient
        self._source, self._name, self._next = source, name, number
        self._rule, self._limits, self._say, self._stands_still = rule, rule.limits, say, stands_still
        self._pixels = np.zeros((1, 1, 3), np.uint8)
        self._unreadable = 0
        self._here_since_ns: int | None = None
        self._stuck = False
        self._has_asked = False
        self._kept_ns = 0

    def wait(self, number: int, timeout_s: float) -> Arrival | None:
        """See Source."""
        due_ns = monotonic_ns() + int(timeout_s * NS_PER_S)
        while True:
            arrival = self._source.wait(self._next, max(0.0, (due_ns - monotonic_ns()) / NS_PER_S))
            if arrival is None:
                return None
            self._next += 1
            if self._look(arrival):
                self._stands_still(self._pixels)
                self._remember()
                seen = self._rule.see(small_view(self._pixels, self._limits.region))
                self._watch(arrival)
                unit = replace(arrival, unit_id=f"{self._name}-{number:08d}")
                if seen is Seen.BORN:
                    return unit
                if seen is Seen.PASSED:
                    return replace(unit, lost="frame_missing")
            if monotonic_ns() >= due_ns:
                return None

    def shoot(self) -> None:
        """Presence says when; nobody else does."""

    def idle(self) -> None:
        """See Source."""
        self._source.idle()

    def fetch(self, allocate: Allocate) -> None:
        """See Source."""
        np.copyto(allocate(*self._pixels.shape[:2]), self._pixels)

    def close(self) -> None:
        """See Source. Its faults end with it: who opens the camera anew knows nothing of them."""
        self._end_stuck("the camera was closed")
        self._end_unreadable("the camera was closed")
        self._source.close()

    def _look(self, arrival: Arrival) -> bool:
        """Fetch the frame; False if it is no picture, which is a fault if it goes on: no unit would be seen."""
        detail = f"{arrival.lost}"
        if arrival.lost is None:
            try:
                self._source.fetch(self._allocate)
            except Undecodable as error:
                detail = str(error)
            else:
                self._end_unreadable("a frame is a picture again")
                return True
        self._unreadable += 1
        if self._unreadable == _UNREADABLE_MOST:
            self._say("frames_unreadable", "begin", f"{_UNREADABLE_MOST} frames in a row are no pictures: {detail}")
        return False

    def _allocate(self, height_px: int, width_px: int) -> Pixels:
        if self._pixels.shape[:2] != (height_px, width_px):
            self._pixels = np.zeros((height_px, width_px, 3), np.uint8)
        return self._pixels

    def _watch(self, arrival: Arrival) -> None:
        """Presence without an end is a line that stands still, or a background that is no longer true."""
        if not self._rule.here:
            self._here_since_ns = None
            self._end_stuck("the view is empty again")
            self._keep(arrival.captured_ns)
            return
        self._here_since_ns = self._here_since_ns or arrival.captured_ns
        if not self._stuck and arrival.captured_ns - self._here_since_ns > self._limits.stuck_s * NS_PER_S:
            self._stuck = True
            file = self._limits.background
            remedy = f"delete {file} and restart" if file else "restart"
            self._say(
                "presence_stuck", "begin",
                f"something is before the camera for more than {self._limits.stuck_s:g} s. If the line does not stand "
                f"still: the light or the view has changed; {remedy} while nothing is before the camera",
            )  # fmt: skip

    def _end_stuck(self, detail: str) -> None:
        if self._stuck:
            self._say("presence_stuck", "end", detail)
        self._stuck = False

    def _end_unreadable(self, detail: str) -> None:
        if self._unreadable >= _UNREADABLE_MOST:
            self._say("frames_unreadable", "end", detail)
        self._unreadable = 0

    def _remember(self) -> None:
        """The background that a worker before has kept: only with a picture it is known whether it fits."""
        file = self._limits.background
        if file is not None and self._rule.background is None and not self._has_asked:
            self._rule.background = read_empty_view(Path(file), self._limits.region, self._picture_px)
        self._has_asked = True

    @property
    def _picture_px(self) -> tuple[int, int]:
        return self._pixels.shape[0], self._pixels.shape[1]

    def _keep(self, now_ns: int) -> None:
        """A worker that starts while a unit is there needs the background of its predecessor."""
        file, background = self._limits.background, self._rule.background
        if file is None or background is None or (self._kept_ns and now_ns - self._kept_ns < _KEEP_EVERY_S * NS_PER_S):
            return
        self._kept_ns = now_ns
        try:
            write_empty_view(Path(file), background, self._limits.region, self._picture_px)
        except OSError as error:
            log.warning("%s: the empty view is not kept over a restart: %s", file, error.strerror)


def presence_rule(table: Mapping[str, Any]) -> PresenceRule:
    """The rule of the camera's `presence` table."""
    return PresenceRule(PresenceLimits(**table))
