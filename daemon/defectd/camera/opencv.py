"""V4L2, RTSP and files through OpenCV.

A capture that once failed never recovers, though `isOpened()` goes on saying True: it is closed and opened anew.
FFmpeg's default read timeout is 30 s, and the BUFFERSIZE property does nothing for it (opencv #23430).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from defectd.camera.base import Allocate, Arrival, SourceEnded, Undecodable
from defectd.camera.pacing import Pace, sleep_until
from defectd.clock import monotonic_ns, utc_now
from defectd.errors import CameraError, CameraLost
from defectd.settings import without_password

_NETWORK_TIMEOUT_MS = 2000


class OpencvSource:
    """A live camera: `grab` is the trigger, `retrieve` decodes into the ring. A regular file ends; a camera is lost."""

    patient = False

    def __init__(
        self,
        name: str,
        source: int | str,
        width_px: int | None,
        height_px: int | None,
        rate_hz: float | None,
        number: int,
    ) -> None:
        """Begin at trigger *number*. OpenCV tells no frame numbers of a camera, so frames that pass while it is away
        are not counted."""
        self._camera = name
        self._name = f"/dev/video{source}" if isinstance(source, int) else without_password(source)
        self._is_file = isinstance(source, str) and Path(source).is_file()
        self._pace = Pace(monotonic_ns(), number, rate_hz) if rate_hz and self._is_file else None
        self._capture = _open(source)
        if not self._capture.isOpened():
            raise CameraLost(f"{self._name}: OpenCV cannot open it; is it plugged in, and may this user read it?")
        if width_px and height_px:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width_px)
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height_px)

    def wait(self, number: int, timeout_s: float) -> Arrival | None:
        """See Source. The device itself waits; the daemon's limit of silence bounds it."""
        if self._pace is not None and not sleep_until(self._pace.due_ns(number), timeout_s):
            return None
        if not self._capture.grab():
            if self._is_file:
                raise SourceEnded
            raise CameraLost(f"{self._name}: no frame")
        return Arrival(f"{self._camera}-{number:08d}", monotonic_ns(), utc_now())

    def shoot(self) -> None:
        """The settings do not allow it: what OpenCV gives next is older than this call."""
        raise CameraError(f"{self._name}: OpenCV cannot be told when to take a picture")

    def idle(self) -> None:
        """See `shoot`."""

    def fetch(self, allocate: Allocate) -> None:
        """See Source."""
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        target = allocate(height, width)
        try:
            ok, image = self._capture.retrieve(target)
        except cv2.error as error:
            raise Undecodable(f"{self._name}: {error}") from error
        if not ok:
            raise Undecodable(f"{self._name}: a frame that cannot be decoded")
        if image is not target:
            if image.shape != target.shape:  # the stream changed its size without saying so
                target = allocate(*image.shape[:2])
            np.copyto(target, image)

    def close(self) -> None:
        """See Source."""
        self._capture.release()


def _open(source: int | str) -> Any:
    if isinstance(source, int) or source.startswith("/dev/"):
        capture = cv2.VideoCapture(source, cv2.CAP_V4L2)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest picture, not the oldest in the driver's queue
        return capture
    if "://" in source:
        timeouts = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            _NETWORK_TIMEOUT_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            _NETWORK_TIMEOUT_MS,
        ]
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, timeouts)
    return cv2.VideoCapture(source)
