"""Where verdicts go: to the outbox each, or, of a tracked camera, to its web; and to whoever looks on."""

from __future__ import annotations

import logging
from functools import partial
from typing import Callable, Iterable, Mapping, Sequence

from defectd.camera_settings import CameraSettings
from defectd.clock import monotonic_ns
from defectd.errors import StartupError
from defectd.faults import Faults
from defectd.inspection.events import InspectionEvent
from defectd.line import fails_or_errors
from defectd.messaging.outbox import Outbox
from defectd.tracking.tracker import SimilariTracker
from defectd.tracking.tracks import Rules
from defectd.tracking.web import Told, WebLine

log = logging.getLogger(__name__)

Observer = Callable[[InspectionEvent], None]


class Decided:
    """Of the inspection loop's thread. *observers* may grow until the loop runs."""

    def __init__(
        self, outbox: Outbox, webs: Mapping[str, WebLine], observers: Sequence[Observer], faults: Faults
    ) -> None:
        self._outbox, self._webs, self._observers, self._faults = outbox, webs, observers, faults

    def keeps(self, event: InspectionEvent, captured_ns: int) -> bool:
        """A verdict is out; True if its pictures are evidence."""
        web = self._webs.get(event.frame.camera)
        if web is not None:
            is_birth = web.see(event, captured_ns)
            self._tell_trouble(f"camera/{event.frame.camera}", web.trouble)
            return is_birth
        return fails_or_errors(event, captured_ns)

    def store(self, event: InspectionEvent, positions: Mapping[str, int]) -> None:
        """The unit is finished; see line.Store."""
        web = self._webs.get(event.frame.camera)
        if web is not None:
            self._put(web.take(event, positions, monotonic_ns()))
        else:
            self._outbox.put(event, positions)
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # they only look on: no unit may be lost over them
                log.exception("%r stumbled over unit %s", observer, event.unit_id)

    def tend(self) -> None:
        """Called often: what a web has to tell without a new frame."""
        for web in self._webs.values():
            self._put(web.tend(monotonic_ns()))

    def close(self) -> None:
        """No verdict will follow."""
        for web in self._webs.values():
            self._put(web.close())

    def _tell_trouble(self, component: str, trouble: str | None) -> None:
        if trouble is not None:
            self._faults.begin(component, "tracker_failed", f"{trouble}; all tracks ended, new ones begin")
        else:
            self._faults.end(component, "tracker_failed", "it has followed the web for a minute")

    def _put(self, told: Iterable[Told]) -> None:
        for event, positions in told:
            if event is None:
                self._outbox.set_positions(positions)
            else:
                self._outbox.put(event, positions)


def plan_webs(cameras: Sequence[CameraSettings], positions: Mapping[str, int]) -> dict[str, WebLine]:
    """The tracked cameras by name, which go on behind what *positions* say. Raises StartupError if the tracker's
    package is missing."""
    webs = {}
    for camera in cameras:
        track = camera.track
        if track is None:
            continue
        told = positions.get(f"trigger/{camera.name}", 0)
        rules = Rules(track.confirm_frames, track.lost_frames, track.motion_px_per_s)
        try:
            webs[camera.name] = WebLine(
                camera.name, rules, track.report_every_s,
                partial(SimilariTracker, track.min_iou, track.lost_frames),
                told_trigger=told, next_trigger=max(told, positions.get(f"seen/{camera.name}", 0)) + 1,
            )  # fmt: skip
        except StartupError as error:
            raise StartupError(f"camera {camera.name}: {error}") from error
    return webs
