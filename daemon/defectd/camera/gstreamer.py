"""RTSP, CSI and any other GStreamer pipeline, through GStreamer's own bindings."""

from __future__ import annotations

import time
from collections import deque
from datetime import timedelta
from typing import Any, Mapping

import cv2
import numpy as np

from defectd.camera.appsink import MAX_STAMPS, Picture, Stamp
from defectd.camera.base import Allocate, Arrival, Pixels, SourceEnded
from defectd.camera.lateness import MAX_LATE_NS, Lateness
from defectd.camera.pipelines import plan_pipeline
from defectd.camera.running import Ended, RunningPipeline, has_element, load_gstreamer
from defectd.clock import NS_PER_S, monotonic_ns, utc_now
from defectd.errors import CameraError, CameraLost
from defectd.inspection.events import ErrorReason

_OPEN_S = 3.0  # at most, for the worker is silent meanwhile
_FIRST_PICTURE_S = 10.0  # a stream begins with its next key frame, which may be seconds away
_LATE_FOR_NS = 3 * NS_PER_S
_LISTEN_EVERY_S = 0.05


class GstreamerSource:
    """The newest picture of a running pipeline. Those that nobody took in time are lost, and said so; so are those
    that a stream had saved up while it stood still."""

    patient = False

    def __init__(self, camera: Mapping[str, Any]) -> None:
        """*camera*: of kind csi, rtsp or gstreamer. Raises CameraLost, CameraError."""
        self._camera = camera["name"]
        gst = load_gstreamer()
        self._plan = plan_pipeline(camera, lambda name: has_element(gst, name))
        try:
            self._pipeline = RunningPipeline(gst, self._plan, min(self._plan.timeout_s or _OPEN_S, _OPEN_S))
        except (CameraLost, CameraError) as error:
            raise type(error)(f"{self._camera}: {error}") from error
        self._is_live: bool | None = None
        self._lateness = Lateness()
        self._lost: deque[tuple[int, ErrorReason]] = deque(maxlen=MAX_STAMPS)
        self._next: tuple[int, Picture] | None = None
        self._announced: Picture | None = None
        self._commanded = False
        self._not_before_ns = 0
        self._heard_s = time.monotonic()
        self._silence_s = None if self._plan.timeout_s is None else max(_FIRST_PICTURE_S, self._plan.timeout_s)

    def wait(self, number: int, timeout_s: float) -> Arrival | None:
        """See Source."""
        if self._announced is not None:
            self._announced.release()
            self._announced = None
        due_s = time.monotonic() + timeout_s
        while not self._lost and self._next is None:
            remaining_s = due_s - time.monotonic()
            self._look(max(0.0, min(remaining_s, _LISTEN_EVERY_S)))
            if remaining_s <= 0 and not self._lost and self._next is None:
                return None
        if self._lost:
            return self._arrival(number, *self._lost.popleft())
        assert self._next is not None
        (captured_ns, self._announced), self._next = self._next, None
        return self._arrival(number, captured_ns, None)

    def shoot(self) -> None:
        """See Source. Of what comes on command only the picture counts: what passes meanwhile is no unit."""
        self._commanded = True
        self.idle()
        self._not_before_ns = monotonic_ns() + self._plan.delay_ns

    def idle(self) -> None:
        """See Source."""
        self._drop()
        self._look(0.0)
        self._drop()

    def fetch(self, allocate: Allocate) -> None:
        """See Source."""
        picture, self._announced = self._announced, None
        assert picture is not None
        try:
            with picture.pixels() as rows:
                _convert(rows, allocate(*rows.shape[:2]))
        finally:
            picture.release()

    def close(self) -> None:
        """See Source."""
        self._drop()
        self._pipeline.close()

    def _look(self, timeout_s: float) -> None:
        """Take what has come. Raises CameraLost, SourceEnded."""
        passed, picture = self._pipeline.pictures.take(timeout_s)
        if picture is None:
            self._listen()
            return
        self._pipeline.hear()
        self._heard_s, self._silence_s = time.monotonic(), self._plan.timeout_s
        if self._is_live is None:
            self._is_live = self._pipeline.is_live()
        for stamp in passed:
            self._judge(stamp, "camera_overrun")
        waited_ns = monotonic_ns() - picture.stamp.arrival_ns if self._plan.own_clock else 0
        captured_ns = self._judge(picture.stamp, "camera_overrun" if waited_ns > MAX_LATE_NS else None)
        if captured_ns is None:
            picture.release()
        else:
            self._next = captured_ns, picture

    def _judge(self, stamp: Stamp, lost: ErrorReason | None) -> int | None:
        """When the picture was taken, if it may be judged. If not, it is *lost*, late or torn, and noted as such."""
        late_ns = self._lateness.of(stamp.pts_ns, stamp.arrival_ns) if self._is_live else 0
        exposed_ns = self._pipeline.exposed_ns(stamp) if self._is_live else None
        captured_ns = stamp.arrival_ns - late_ns if exposed_ns is None else exposed_ns
        since_ns = self._lateness.late_since_ns
        if since_ns is not None and stamp.arrival_ns - since_ns > _LATE_FOR_NS:
            raise CameraLost(f"{self._camera}: its pictures are {late_ns / NS_PER_S:.1f} s late, and do not catch up")
        if captured_ns < self._not_before_ns or (self._plan.own_clock and not self._lateness.settled):
            return None
        if lost is None and late_ns > MAX_LATE_NS:
            lost = "camera_overrun"
        elif lost is None and stamp.corrupted:
            lost = "frame_incomplete"
        if lost is None:
            return captured_ns
        if not self._commanded:
            self._lost.append((captured_ns, lost))
        return None

    def _listen(self) -> None:
        try:
            self._pipeline.listen()
        except CameraLost as error:
            raise CameraLost(f"{self._camera}: {error}") from error
        except Ended:
            if self._is_live is False:
                raise SourceEnded from None
            raise CameraLost(f"{self._camera}: the stream has ended") from None
        if self._silence_s is not None and time.monotonic() - self._heard_s > self._silence_s:
            raise CameraLost(f"{self._camera}: no picture for {self._silence_s:g} s")

    def _drop(self) -> None:
        """Nobody wants what has come."""
        for picture in (self._announced, self._next[1] if self._next else None):
            if picture is not None:
                picture.release()
        self._announced = self._next = None
        self._lost.clear()

    def _arrival(self, number: int, captured_ns: int, lost: ErrorReason | None) -> Arrival:
        """Who lost a picture is told why, even if its deadline would be over by now."""
        now_ns = monotonic_ns()
        captured_at = utc_now() - timedelta(seconds=(now_ns - captured_ns) / NS_PER_S)
        unit_id = f"{self._camera}-{number:08d}"
        return Arrival(unit_id, captured_ns if lost is None else now_ns, captured_at, lost=lost)


def _convert(rows: Pixels, target: Pixels) -> None:
    if rows.ndim == 2:
        cv2.cvtColor(rows, cv2.COLOR_GRAY2BGR, dst=target)
    elif rows.shape[2] == 4:
        cv2.cvtColor(rows, cv2.COLOR_BGRA2BGR, dst=target)
    else:
        np.copyto(target, rows)
