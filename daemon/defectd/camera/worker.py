"""The camera worker: announce each unit, write its picture into a granted slot, say so.

Run by the daemon as `python -m defectd.camera.worker`. It blocks in the camera's driver and nowhere else; while it
waits on purpose it says ALIVE, so that silence means stuck.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from pathlib import Path
from typing import Any

from defectd.camera.base import Arrival, FrameTooLarge, Pixels, Source, SourceEnded, Undecodable
from defectd.camera.examination import Examination
from defectd.camera.pipelines import PIPELINES
from defectd.camera.presence import PresenceRule, PresenceSource, presence_rule
from defectd.clock import NS_PER_S, Backoff, monotonic_ns
from defectd.errors import CameraError, CameraLost
from defectd.inspection.frame import Frame
from defectd.workers.channel import Channel, ChannelClosed
from defectd.workers.child import Unusable, run_worker
from defectd.workers.protocol import NO_SLOT, Alive, Framed, Grant, Kind, Missed, Named, Note, Shoot, Triggered
from defectd.workers.ring import FrameRing

log = logging.getLogger(__name__)

_PATIENCE_S = 0.5
_IDLE_S = 0.1
_FIRST_GRANT_S = 1.0
_GOOD_AFTER_S = 5.0  # open for so long, and not lost: it waits for its trigger


def work(channel: Channel, configuration: dict[str, Any], rings: list[FrameRing]) -> None:
    """Deliver units until the daemon closes the channel."""
    camera = CameraLoop(channel, rings[0], configuration["camera"])
    camera.open_until_it_works()
    channel.send(Note(Kind.READY, {"kind": configuration["camera"]["kind"]}))
    camera.await_first_grant()
    deliver = camera.obey if configuration["camera"]["commanded"] else camera.deliver_one
    while True:
        try:
            deliver()
        except CameraLost as error:
            camera.lost(error)
            camera.open_again()
        except CameraError as error:
            raise Unusable(str(error)) from error
        except SourceEnded:
            channel.send(Note(Kind.ENDED, {}))
            camera.idle_for_ever()


class CameraLoop:
    """One source, the slots that were granted to it, and the number of its next trigger."""

    def __init__(self, channel: Channel, ring: FrameRing, camera: dict[str, Any]) -> None:
        self._channel, self._ring, self._camera = channel, ring, camera
        self._grants: deque[int] = deque()
        self._asked: deque[Shoot] = deque()
        self._next: int = camera["next_trigger"]
        try:
            self._examination = Examination(camera, self._say)
        except CameraError as error:
            raise Unusable(str(error)) from error
        presence = camera.get("presence")
        self._presence = None if presence is None else presence_rule(presence)
        self._backoff = Backoff(0.2, 10.0)
        self._source: Source | None = None
        self._is_lost = self._has_worked = self._hung_up = False
        self._opened_ns = 0

    def open_again(self) -> None:
        """At once if it had worked; one that opens and gives nothing is no better than one that does not open."""
        if not self._has_worked:
            self._wait_alive(self._backoff.next_s())
        self._has_worked = False
        self.open_until_it_works()

    def open_until_it_works(self) -> None:
        """Open the source, again and again with jittered back-off. Raises Unusable if it never can."""
        while self._source is None:
            try:
                source = open_source(self._camera, self._next)
                self._source = source if self._presence is None else self._seeing_units(source, self._presence)
            except CameraLost as error:
                self.lost(error)
                self._wait_alive(self._backoff.next_s())
            except CameraError as error:
                raise Unusable(str(error)) from error
        self._opened_ns = monotonic_ns()

    def await_first_grant(self) -> None:
        """The daemon answers READY with slots; a line that does not wait should not lose its first unit to that."""
        self._hear(_FIRST_GRANT_S)

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
            self._works(after_s=_GOOD_AFTER_S)
            return
        self._works()
        number, self._next = self._next, self._next + 1
        self._channel.send(Triggered(number, arrival.captured_ns, arrival.captured_at, arrival.unit_id))
        self._deliver_picture(self._source, number, arrival)

    def obey(self) -> None:
        """Take the picture that the daemon asks for next, or say ALIVE if it asks for none."""
        assert self._source is not None
        if not self._asked:
            self._source.idle()
            self._works(after_s=_GOOD_AFTER_S)
            self._hear(_IDLE_S)
        if not self._asked:
            self._channel.send(Alive())
            return
        shot = self._asked.popleft()
        try:
            arrival = self._shoot(self._source, shot)
        except CameraLost as error:
            self._channel.send(Missed(shot.number, NO_SLOT, "camera_lost", str(error)))
            raise
        except SourceEnded:
            self._channel.send(Missed(shot.number, NO_SLOT, "frame_missing", "there are no more pictures"))
            raise
        if arrival is not None:
            self._works()
            self._take_grants(wait=False)
            if self._camera["kind"] == "replay":
                self._channel.send(Named(shot.number, arrival.unit_id))
            self._deliver_picture(self._source, shot.number, arrival)

    def idle_for_ever(self) -> None:
        """The source has ended; stay, so that the station stays READY."""
        while True:
            self._wait_alive(_PATIENCE_S, "there are no more pictures")

    def _works(self, after_s: float = 0.0) -> None:
        """A unit came; or none, and the camera has been open for *after_s* without being lost."""
        if self._has_worked or monotonic_ns() - self._opened_ns < after_s * NS_PER_S:
            return
        self._has_worked = True
        self._backoff.reset()
        if self._is_lost:
            self._is_lost = False
            self._say("camera_lost", "end", "it works again")

    def _shoot(self, source: Source, shot: Shoot) -> Arrival | None:
        """Its picture; None, and said so, if none comes in time."""
        due_ns = shot.asked_ns + int(self._camera["shot_s"] * NS_PER_S)
        if monotonic_ns() < due_ns:
            source.shoot()
        while (remaining_ns := due_ns - monotonic_ns()) > 0:
            arrival = source.wait(shot.number, min(remaining_ns / NS_PER_S, _PATIENCE_S))
            if arrival is not None:
                return arrival
            self._channel.send(Alive())
        self._channel.send(Missed(shot.number, NO_SLOT, "frame_missing", "the camera gave no picture in time"))
        return None

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
        if self._presence is None and (frozen := self._examination.stands_still(pixels)) is not None:
            return Missed(number, slot, "frame_frozen", frozen)
        finding = self._examination.examine(pixels)
        if finding.unit_id is not None:
            self._channel.send(Named(number, finding.unit_id))
        if finding.refused is not None:
            return Missed(number, slot, *finding.refused)
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

        self._ring.begin_write(slot)
        source.fetch(allocate)
        return written[-1], self._ring.end_write(slot)

    def _take_grants(self, wait: bool) -> None:
        """Take the slots that the daemon has granted; with *wait*, until there is one."""
        while self._hear(_PATIENCE_S if wait and not self._grants else 0) or (wait and not self._grants):
            pass

    def _hear(self, timeout_s: float) -> bool:
        """Take note of what the daemon says next; False if it says nothing, and ALIVE if that took a while."""
        try:
            record = self._channel.receive(timeout_s=timeout_s)
        except ChannelClosed:
            if self._hung_up:
                raise
            self._hung_up = True  # the picture in hand is still wanted
            return False
        if isinstance(record, Grant):
            self._grants.append(record.slot)
        elif isinstance(record, Shoot):
            self._asked.append(record)
        elif timeout_s:
            self._channel.send(Alive())
        return record is not None

    def _wait_alive(self, duration_s: float, why: str = "the camera is not open") -> None:
        """Nothing can be delivered; who asks for a picture is told so."""
        due_s = time.monotonic() + duration_s
        while (remaining_s := due_s - time.monotonic()) > 0:
            self._channel.send(Alive())
            self._hear(min(remaining_s, _PATIENCE_S))
            while self._asked:
                number = self._asked.popleft().number
                self._channel.send(Missed(number, NO_SLOT, "camera_lost", why))

    def _seeing_units(self, source: Source, rule: PresenceRule) -> Source:
        rule.reopened()
        return PresenceSource(source, self._camera["name"], self._next, rule, self._say, self._examination.stands_still)

    def _say(self, code: str, state: str, detail: str) -> None:
        self._channel.send(Note(Kind.FAULT, {"code": code, "state": state, "detail": detail}))


def open_source(camera: dict[str, Any], number: int) -> Source:
    """The source that *camera* configures, about to see trigger *number*. Raises CameraLost, CameraError."""
    kind = camera["kind"]
    if kind == "replay":
        from defectd.camera.replay import ReplaySource  # noqa: PLC0415 - a worker loads one kind only

        path, pace = Path(camera["path"]), camera.get("pace", "rate")
        return ReplaySource(path, camera["rate_hz"], camera["loop"], camera["first_trigger"], number, pace)
    if kind == "simulated":
        from defectd.camera.boards import BoardLine  # noqa: PLC0415
        from defectd.camera.simulated import SimulatedSource  # noqa: PLC0415

        line = BoardLine(camera["seed"], camera["width_px"], camera["height_px"], camera["defect_rate"])
        first, origin_ns = camera["first_trigger"], camera["origin_ns"]
        return SimulatedSource(line, camera["rate_hz"], camera["units"], first, origin_ns, number)
    if kind == "aravis":
        from defectd.camera.aravis import AravisSource  # noqa: PLC0415
        from defectd.camera.aravis_opening import AravisPlan  # noqa: PLC0415

        return AravisSource(AravisPlan.of(camera))
    if kind in PIPELINES:
        from defectd.camera.gstreamer import GstreamerSource  # noqa: PLC0415

        return GstreamerSource(camera)
    from defectd.camera.opencv import OpencvSource  # noqa: PLC0415

    return OpencvSource(
        camera["name"], camera["source"], camera["width_px"], camera["height_px"], camera["rate_hz"], number
    )


if __name__ == "__main__":
    run_worker(work)
