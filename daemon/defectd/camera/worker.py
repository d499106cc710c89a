"""The camera worker: announce each unit, write its picture into a granted slot, say so.

Run by the daemon as `python -m defectd.camera.worker`. It blocks in the camera's driver and nowhere else; while it
waits on purpose it says ALIVE, so that silence means stuck.
"""

from __future__ import annotations

import contextlib
import logging
import time
import zlib
from collections import deque
from pathlib import Path
from typing import Any

from defectd.camera.base import Allocate, Arrival, FrameTooLarge, Pixels, Source, SourceEnded, Undecodable
from defectd.clock import Backoff
from defectd.errors import CameraError, CameraLost
from defectd.inspection.frame import Frame
from defectd.workers.channel import Channel
from defectd.workers.child import Unusable, run_worker
from defectd.workers.protocol import NO_SLOT, Alive, Framed, Grant, Kind, Missed, Note, Triggered
from defectd.workers.ring import FrameRing

log = logging.getLogger(__name__)

_PATIENCE_S = 0.5
_FIRST_GRANT_S = 1.0
_SAMPLED_ROWS = 16  # every so manieth row tells a frozen picture: sensor noise makes any two of them differ


def work(channel: Channel, configuration: dict[str, Any], rings: list[FrameRing]) -> None:
    """Deliver units until the daemon closes the channel."""
    camera = CameraLoop(channel, rings[0], configuration["camera"])
    camera.open_until_it_works()
    channel.send(Note(Kind.READY, {"kind": configuration["camera"]["kind"]}))
    camera.await_first_grant()
    while True:
        try:
            camera.deliver_one()
        except CameraLost as error:
            camera.lost(error)
            camera.open_until_it_works()
        except SourceEnded:
            channel.send(Note(Kind.ENDED, {}))
            camera.idle_for_ever()


class CameraLoop:
    """One source, the slots that were granted to it, and the number of its next trigger."""

    def __init__(self, channel: Channel, ring: FrameRing, camera: dict[str, Any]) -> None:
        self._channel, self._ring, self._camera = channel, ring, camera
        self._grants: deque[int] = deque()
        self._next: int = camera["next_trigger"]
        self._frozen = FrozenPicture(camera["frozen_after"])
        self._backoff = Backoff(0.2, 10.0)
        self._source: Source | None = None
        self._is_lost = False

    def open_until_it_works(self) -> None:
        """Open the source, again and again with jittered back-off. Raises Unusable if it never can."""
        while self._source is None:
            try:
                self._source = open_source(self._camera, self._next)
            except CameraLost as error:
                self.lost(error)
                self._wait_alive(self._backoff.next_s())
            except CameraError as error:
                raise Unusable(str(error)) from error
        if self._is_lost:
            self._is_lost = False
            self._say("camera_lost", "end", "open again")

    def await_first_grant(self) -> None:
        """The daemon answers READY with slots; a line that does not wait should not lose its first unit to that."""
        record = self._channel.receive(timeout_s=_FIRST_GRANT_S)
        if isinstance(record, Grant):
            self._grants.append(record.slot)

    def lost(self, error: CameraLost) -> None:
        """Close the source and tell the daemon, once."""
        if self._source is not None:
            with contextlib.suppress(Exception):
                self._source.close()
            self._source = None
        if not self._is_lost:
            self._is_lost = True
            self._say("camera_lost", "begin", str(error))

    def deliver_one(self) -> None:
        """Wait for the next unit and deliver it, or say ALIVE if none came for a while."""
        assert self._source is not None
        if self._source.patient:
            self._take_grants(wait=True)
        arrival = self._source.wait(self._next, _PATIENCE_S)
        self._take_grants(wait=False)
        if arrival is None:
            self._channel.send(Alive())
            return
        number, self._next = self._next, self._next + 1
        self._channel.send(Triggered(number, arrival.captured_ns, arrival.captured_at, arrival.unit_id))
        self._deliver_picture(self._source, number, arrival)
        self._backoff.reset()

    def idle_for_ever(self) -> None:
        """The source has ended; stay, so that the station stays READY."""
        while True:
            self._wait_alive(_PATIENCE_S)

    def _deliver_picture(self, source: Source, number: int, arrival: Arrival) -> None:
        if arrival.lost is not None:
            self._channel.send(Missed(number, NO_SLOT, arrival.lost, "the unit passed without a picture"))
        elif not self._grants:
            detail = "all slots of the frame ring are in use"
            self._channel.send(Missed(number, NO_SLOT, "camera_overrun", detail))
        else:
            slot = self._grants.popleft()
            try:
                self._channel.send(self._picture(source, number, slot, arrival.frame_id))
            except CameraLost as error:
                self._channel.send(Missed(number, slot, "camera_lost", str(error)))
                raise

    def _picture(self, source: Source, number: int, slot: int, frame_id: int | None) -> Framed | Missed:
        try:
            pixels, generation = self._write(source, slot)
        except Undecodable as error:
            return Missed(number, slot, "frame_undecodable", str(error))
        except FrameTooLarge as error:
            return Missed(number, slot, "frame_too_large", str(error))
        if self._is_frozen(pixels):
            return Missed(number, slot, "frame_frozen", f"the same picture {self._frozen.repeats} times in a row")
        height, width = pixels.shape[:2]
        return Framed(number, Frame(slot, generation, width, height, frame_id))

    def _write(self, source: Source, slot: int) -> tuple[Pixels, int]:
        written: list[Pixels] = []

        def allocate(height_px: int, width_px: int) -> Pixels:
            try:
                written.append(self._ring.pixels(slot, height_px, width_px))
            except ValueError as error:
                raise FrameTooLarge(f"{error}; raise the camera's max_pixels") from error
            return written[-1]

        checked: Allocate = allocate
        self._ring.begin_write(slot)
        source.fetch(checked)
        return written[-1], self._ring.end_write(slot)

    def _is_frozen(self, pixels: Pixels) -> bool:
        before = self._frozen.frozen
        now = self._frozen.see(pixels)
        if now and not before:
            self._say("camera_frozen", "begin", f"{self._frozen.repeats} identical pictures in a row")
        elif before and not now:
            self._say("camera_frozen", "end", "the picture changes again")
        return now

    def _take_grants(self, wait: bool) -> None:
        """Take the slots that the daemon has granted; with *wait*, until there is one."""
        while True:
            record = self._channel.receive(timeout_s=_PATIENCE_S if wait and not self._grants else 0)
            if isinstance(record, Grant):
                self._grants.append(record.slot)
            elif self._grants or not wait:
                return
            else:
                self._channel.send(Alive())

    def _wait_alive(self, duration_s: float) -> None:
        due_s = time.monotonic() + duration_s
        while (remaining_s := due_s - time.monotonic()) > 0:
            self._channel.send(Alive())
            record = self._channel.receive(timeout_s=min(remaining_s, _PATIENCE_S))
            if isinstance(record, Grant):
                self._grants.append(record.slot)

    def _say(self, code: str, state: str, detail: str) -> None:
        self._channel.send(Note(Kind.FAULT, {"code": code, "state": state, "detail": detail}))


class FrozenPicture:
    """Counts identical pictures in a row; *limit* of them are a frozen camera (None: never)."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._last, self.repeats = limit, -1, 0

    @property
    def frozen(self) -> bool:
        """True while the picture stands still."""
        return self._limit is not None and self.repeats >= self._limit

    def see(self, pixels: Pixels) -> bool:
        """Take note of a picture; True if the camera is frozen."""
        if self._limit is None:
            return False
        checksum = zlib.crc32(pixels[::_SAMPLED_ROWS].tobytes())
        self.repeats = self.repeats + 1 if checksum == self._last else 1
        self._last = checksum
        return self.frozen


def open_source(camera: dict[str, Any], number: int) -> Source:
    """The source that *camera* configures, about to see trigger *number*. Raises CameraLost, CameraError."""
    kind = camera["kind"]
    if kind == "replay":
        from defectd.camera.replay import ReplaySource  # noqa: PLC0415 - a worker loads one kind only

        return ReplaySource(Path(camera["path"]), camera["rate_hz"], camera["loop"], camera["first_trigger"], number)
    if kind == "simulated":
        from defectd.camera.boards import BoardLine  # noqa: PLC0415
        from defectd.camera.simulated import SimulatedSource  # noqa: PLC0415

        line = BoardLine(camera["seed"], camera["width_px"], camera["height_px"], camera["defect_rate"])
        return SimulatedSource(line, camera["rate_hz"], camera["units"], camera["first_trigger"], camera["origin_ns"])
    from defectd.camera.opencv import OpencvSource  # noqa: PLC0415

    return OpencvSource(
        camera["name"], camera["source"], camera["width_px"], camera["height_px"], camera["rate_hz"], number
    )


if __name__ == "__main__":
    run_worker(work)
