"""Which boxes of a frame are the same things as in the frames before: Similari's SORT, and nothing else is asked of it.

The only module that imports similari (Rust; neither torch nor OpenCV).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Protocol, Sequence

from defectd.errors import StartupError
from defectd.inspection.web_wire import Box

_MISSING = "similari is not installed for this Python; expected pip install 'defectd[track]'"
_IOU_LEAST, _IOU_MOST = 0.01, 0.99  # it panics at 0 and 1
_CLEAR_EVERY = 100  # frames; what has expired stays in memory until it is cleared
_wrecks: list[Any] = []  # one that has panicked panics again when it is freed, in whatever runs at that moment


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
        self._frames = 0
        self._sort: Any = similari.Sort(
            shards=1,
            bbox_history=1,
            max_idle_epochs=lost_frames,
            method=similari.PositionalMetricType.iou(threshold=min(max(min_iou, _IOU_LEAST), _IOU_MOST)),
            min_confidence=0.0,
        )

    def match(self, boxes: Sequence[Box]) -> list[int]:
        """See Tracker."""
        asked = [(self._box(x, y, max(width, 1.0), max(height, 1.0)).as_xyaah(), index)
                 for index, (x, y, width, height) in enumerate(boxes)]  # fmt: skip
        self._frames += 1
        try:
            found = {track.custom_object_id: track.id for track in self._sort.predict(asked)}
            if self._frames % _CLEAR_EVERY == 0:
                self._sort.clear_wasted()
        except BaseException as error:  # a panic of Rust is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            _wrecks.append(self._sort)
            raise TrackerFailed(str(error)) from error
        return [found[index] for index in range(len(boxes))]
