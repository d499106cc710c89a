"""Which boxes of a frame are the same things as in the frames before: Similari's SORT, and nothing else is asked of it.

The only module that imports similari (Rust; neither torch nor OpenCV).
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Iterator, Protocol, Sequence

from defectd.errors import StartupError
from defectd.inspection.web_wire import Box

_MISSING = "similari is not installed for this Python; expected pip install 'defectd[track]'"
_IOU_LEAST, _IOU_MOST = 0.01, 0.99  # it panics at 0 and 1
# One that has panicked panics again when it is freed: Python says so on stderr, and goes on. Each has a thread, too.
_wrecks: deque[Any] = deque(maxlen=8)


class TrackerFailed(Exception):
    """It cannot go on; a new one can."""


class Tracker(Protocol):
    """Knows things again."""

    def match(self, boxes: Sequence[Box]) -> list[int]:
        """A number for each box of the next frame, that of before if it is the same thing. Raises TrackerFailed."""


def why_no_tracker() -> str | None:
    """What is missing, and what to do; None if nothing is."""
    return None if find_spec("similari") is not None else _MISSING


class SimilariTracker:
    """Boxes that overlap by *min_iou* with where a thing should be are that thing, unless it was not seen in more than
    *lost_frames* frames. Raises StartupError if the package is missing."""

    def __init__(self, min_iou: float, lost_frames: int) -> None:
        try:
            import similari  # noqa: PLC0415 - stations without a web do not need it
        except ImportError as error:
            raise StartupError(f"[camera.track]: {error}: {_MISSING}") from error
        self._box = similari.BoundingBox
        threshold = min(max(min_iou, _IOU_LEAST), _IOU_MOST)
        with _panics_are_failures():
            self._sort: Any = similari.Sort(
                shards=1,
                bbox_history=1,
                max_idle_epochs=lost_frames,
                method=similari.PositionalMetricType.iou(threshold=threshold),
                min_confidence=0.0,
            )

    def match(self, boxes: Sequence[Box]) -> list[int]:
        """See Tracker."""
        try:
            with _panics_are_failures():
                asked = [(self._box(x, y, max(width, 1.0), max(height, 1.0)).as_xyaah(), index)
                         for index, (x, y, width, height) in enumerate(boxes)]  # fmt: skip
                found = {track.custom_object_id: track.id for track in self._sort.predict(asked)}
                self._sort.wasted()  # what has expired is compared with every box until somebody asks for it
        except TrackerFailed:
            _wrecks.append(self._sort)
            raise
        return [found[index] for index in range(len(boxes))]


@contextmanager
def _panics_are_failures() -> Iterator[None]:
    """A panic of Rust is no Exception. Raises TrackerFailed for it, and for any error."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TrackerFailed(str(error)) from error
