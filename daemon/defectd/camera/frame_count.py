"""Which frames of a camera never came, and when those that did were taken: from the numbers and times it sends."""

from __future__ import annotations

from collections import deque

from defectd.clock import NS_PER_MS, NS_PER_S

MOST_MISSING = 1000
_LAST_16_BIT = 0xFFFF
_WINDOW_NS = 60 * NS_PER_S  # a quartz that is 100 ppm off drifts 6 ms in it
_SLACK_NS = 60 * NS_PER_S  # a wall clock that says more than this about a frame has been set meanwhile


class FrameCount:
    """Counts the holes between the frame numbers of one camera. GigE Vision's have 16 bits and skip 0."""

    def __init__(self) -> None:
        self._last: int | None = None

    def missing_before(self, frame_id: int) -> int:
        """How many frames are missing between the last one and this one, MOST_MISSING at most. A camera that begins
        to count anew misses none."""
        last, self._last = self._last, frame_id
        if last is None or frame_id == last:
            return 0
        if frame_id > last:
            return min(frame_id - last - 1, MOST_MISSING)
        if last > _LAST_16_BIT:
            return 0
        wrapped = _LAST_16_BIT - last + max(frame_id, 1) - 1
        return wrapped if wrapped <= MOST_MISSING else 0

    def forget(self) -> None:
        """What comes next follows on nothing."""
        self._last = None


class CaptureClock:
    """When a frame was taken, on CLOCK_MONOTONIC: the camera's clock has the rhythm, the quickest of the last minute's
    frames says how far it is from ours."""

    def __init__(self) -> None:
        self._offsets: deque[tuple[int, int]] = deque()

    def captured_ns(self, camera_ns: int, wall_ns: int, wall_now_ns: int, now_ns: int) -> int:
        """*camera_ns* is the camera's time stamp, *wall_ns* the wall clock when the frame's first packet came; 0 where
        unknown. *wall_now_ns* and *now_ns* are the wall and the monotonic clock now."""
        age_ns = wall_now_ns - wall_ns
        if not wall_ns or not 0 <= age_ns <= _SLACK_NS:
            return now_ns
        arrived_ns = now_ns - age_ns
        if not camera_ns:
            return arrived_ns
        while self._offsets and self._offsets[0][0] < now_ns - _WINDOW_NS:
            self._offsets.popleft()
        offset_ns = arrived_ns - camera_ns
        if self._offsets and abs(offset_ns - self._offsets[-1][1]) > NS_PER_S:
            self._offsets.clear()  # its clock was set
        while self._offsets and self._offsets[-1][1] >= offset_ns:
            self._offsets.pop()  # the quickest is always the first
        self._offsets.append((now_ns, offset_ns))
        return camera_ns + self._offsets[0][1]


def spread(before_ns: int | None, until_ns: int, count: int) -> list[int]:
    """Times of *count* frames between two that came, evenly."""
    if before_ns is None or before_ns >= until_ns:
        return [until_ns - NS_PER_MS] * count
    return [before_ns + (until_ns - before_ns) * index // (count + 1) for index in range(1, count + 1)]
