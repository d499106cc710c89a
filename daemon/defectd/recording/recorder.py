"""Runs one camera as the daemon would, and saves what it delivers instead of judging it.

The camera has its own worker process and its own ring; pictures are written from the ring by a few threads. Where they
cannot keep up, the worker runs out of slots and says so: a unit without a picture is in the index, too.
"""

from __future__ import annotations

import os
import select
from collections import Counter, OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Callable

from defectd.camera.feed import CameraFeed
from defectd.camera.recorded import INDEX, RecordedUnit, RecordingHeader
from defectd.clock import NS_PER_S, monotonic_ns, ms_between, utc_now
from defectd.errors import CameraError, StateError
from defectd.evidence.retention import Disk
from defectd.inspection.events import ErrorReason
from defectd.inspection.frame import Frame
from defectd.recording.bounds import Bounds, Taken, full, no_room
from defectd.recording.pictures import bytes_at_most, save
from defectd.storage import sync_directory
from defectd.workers.process import Died, News, obituary
from defectd.workers.protocol import Framed, Kind, Missed, Named, Note, Triggered

_LOOK_EVERY_S = 0.02
_REAP_S = 2.0
_OPENS_WITHIN_S = 30.0
_WRITERS = min(4, os.cpu_count() or 1)


@dataclass
class Pending:
    """A unit that is not in the index yet."""

    unit_id: str
    captured_ns: int
    captured_at: datetime
    frame: Frame | None = None
    writing: Future[int] | None = None
    lost: ErrorReason | None = None
    detail: str = ""

    @property
    def is_settled(self) -> bool:
        """Its picture is on disk, or will not be."""
        return self.lost is not None or (self.writing is not None and self.writing.done())


@dataclass
class Recorded:
    """What lies in the folder now, and why it ended."""

    pictures: int = 0
    bytes: int = 0
    seconds: float = 0.0
    lost: Counter[str] = field(default_factory=Counter)
    ended: str = ""


class Recorder:
    """One recording of one camera, into a folder of its own."""

    def __init__(
        self,
        feed: CameraFeed,
        folder: Path,
        header: RecordingHeader,
        ending: str,
        bounds: Bounds,
        shoot_every_s: float | None,
        say: Callable[[str], None],
    ) -> None:
        """*ending* of the files: bmp or png. A camera that takes a picture when it is told to is told so every
        *shoot_every_s*."""
        self.recorded = Recorded()
        self._feed, self._folder, self._ending, self._bounds, self._say = feed, folder, ending, bounds, say
        self._header = header
        self._shoot_every_ns = None if shoot_every_s is None else int(shoot_every_s * NS_PER_S)
        self._shoot_due_ns = 0
        self._units: OrderedDict[int, Pending] = OrderedDict()
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._pending_bytes = 0
        self._started_ns = monotonic_ns()
        self._ready_ns: int | None = None
        self._first_ns: int | None = None
        self._trouble = "it said nothing"
        self._index = -1

    def run(self, is_stopped: Callable[[], bool]) -> Recorded:
        """Record until a bound is reached, the camera has no more units, or *is_stopped*. Raises CameraError if it
        never can deliver, StateError if nothing can be written; what was recorded until then is whole."""
        self._open_index()
        self._feed.start()
        try:
            while not self.recorded.ended:
                self._look()
                self.recorded.ended = self.recorded.ended or self._why_end(is_stopped)
        finally:
            self._feed.worker.stop()
            self._feed.worker.reap(_REAP_S)
            self._pool.shutdown(wait=True)
            try:
                self._leave_out_unseen()
                self._settle()
                os.fsync(self._index)
            finally:
                os.close(self._index)
        return self.recorded

    def _look(self) -> None:
        channel = self._feed.worker.channel
        select.select([] if channel is None else [channel], [], [], _LOOK_EVERY_S)
        for news in [*self._feed.receive(), *self._feed.tick(monotonic_ns())]:
            self._hear(news)
        if self._settle():
            self._pool.submit(os.fsync, self._index)  # not here: it may wait for the pictures
        self._shoot(monotonic_ns())
        self._feed.grant(units_in_flight=len(self._units))

    def _why_end(self, is_stopped: Callable[[], bool]) -> str:
        if is_stopped():
            return "stopped"
        if self._ready_ns is None and ms_between(self._started_ns, monotonic_ns()) > _OPENS_WITHIN_S * 1000:
            raise CameraError(f"camera {self._feed.name}: not open within {_OPENS_WITHIN_S:.0f} s: {self._trouble}")
        return full(self._bounds, self._taken())

    # -- from the camera -------------------------------------------------------------------------------------

    def _hear(self, news: News) -> None:
        if isinstance(news, Triggered):
            self._begin(news.number, Pending(news.unit_id, news.captured_ns, news.captured_at))
        elif isinstance(news, Named) and news.number in self._units:
            self._units[news.number].unit_id = news.unit_id
        elif isinstance(news, Framed):
            self._write(news.number, news.frame)
        elif isinstance(news, Missed):
            self._lose(news.number, news.reason, news.detail)
        elif isinstance(news, Died):
            self._on_died(news)
        elif isinstance(news, Note) and news.kind is Kind.ENDED:
            self.recorded.ended = self.recorded.ended or "the camera has no more units"
        elif isinstance(news, Note) and news.kind is Kind.READY:
            self._ready_ns = self._ready_ns or monotonic_ns()
        elif isinstance(news, Note) and news.kind is Kind.FAULT:
            self._trouble = f"{news.body.get('code')} {news.body.get('state')}: {news.body.get('detail')}"
            self._say(f"camera {self._feed.name}: {self._trouble}")

    def _begin(self, number: int, unit: Pending) -> None:
        self._first_ns = self._first_ns or unit.captured_ns
        self._units[number] = unit

    def _write(self, number: int, frame: Frame) -> None:
        unit = self._units.get(number)
        if unit is None or self.recorded.ended:
            self._feed.give_back(frame.slot)
            self._units.pop(number, None)
            return
        size = bytes_at_most(frame.width_px, frame.height_px)
        ended = no_room(self._bounds, self._taken(), Disk.of(self._folder), size)
        if ended:
            self.recorded.ended = ended
            self._write(number, frame)
            return
        self._pending_bytes += size
        pixels = self._feed.ring.pixels(frame.slot, frame.height_px, frame.width_px)
        unit.frame, unit.writing = frame, self._pool.submit(save, self._folder / self._name(number), pixels)

    def _lose(self, number: int, reason: ErrorReason, detail: str) -> None:
        unit = self._units.get(number)
        if unit is not None:
            unit.lost, unit.detail = reason, detail

    def _on_died(self, died: Died) -> None:
        if died.fatal_code == "unusable":
            raise CameraError(f"camera {self._feed.name}: {died.fatal_detail}")
        self._say(f"camera {self._feed.name}: {obituary(died)}")
        for unit in self._units.values():
            if unit.writing is None and unit.lost is None:
                unit.lost, unit.detail = "camera_lost", obituary(died)

    def _shoot(self, now_ns: int) -> None:
        if self._shoot_every_ns is None or not self._feed.worker.ready or now_ns < self._shoot_due_ns:
            return
        if any(unit.writing is None and unit.lost is None for unit in self._units.values()):
            return  # one after the other
        self._shoot_due_ns = now_ns + self._shoot_every_ns
        number, is_sent = self._feed.shoot(now_ns)
        if is_sent:
            self._begin(number, Pending(f"{self._feed.name}-{number:08d}", now_ns, utc_now()))

    # -- to the folder ---------------------------------------------------------------------------------------

    def _open_index(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._index = os.open(self._folder / INDEX, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._append(self._header.to_line())
            sync_directory(self._folder)
        except OSError as error:
            raise StateError(f"{self._folder}: {error.strerror}; expected a folder that this user may write") from error

    def _leave_out_unseen(self) -> None:
        """Units whose picture was still to come when it ended."""
        for number in [number for number, unit in self._units.items() if not unit.is_settled]:
            del self._units[number]

    def _settle(self) -> bool:
        """Enter what is finished into the index, up to the first unit that is not; True if there was any."""
        is_grown = False
        while self._units:
            number, unit = next(iter(self._units.items()))
            if not unit.is_settled:
                break
            del self._units[number]
            self._enter(number, unit)
            is_grown = True
        return is_grown

    def _enter(self, number: int, unit: Pending) -> None:
        size = None
        if unit.frame is not None and unit.writing is not None:
            self._feed.give_back(unit.frame.slot)
            self._pending_bytes -= bytes_at_most(unit.frame.width_px, unit.frame.height_px)
            try:
                size = unit.writing.result()
            except OSError as error:
                raise self._unwritable(error) from error
            self.recorded.pictures += 1
            self.recorded.bytes += size
        else:
            self.recorded.lost[str(unit.lost)] += 1
        line = RecordedUnit(
            trigger=number,
            unit_id=unit.unit_id,
            captured_at=unit.captured_at,
            offset_ms=round(max(0.0, ms_between(self._first_ns or 0, unit.captured_ns)), 3),
            frame_id=unit.frame.frame_id if unit.frame else None,
            file=self._name(number) if unit.frame else None,
            width_px=unit.frame.width_px if unit.frame else None,
            height_px=unit.frame.height_px if unit.frame else None,
            bytes=size,
            lost=unit.lost,
            detail=unit.detail,
        )
        self._append(line.to_line())

    def _append(self, line: bytes) -> None:
        try:
            os.write(self._index, line)
        except OSError as error:
            raise self._unwritable(error) from error
        self.recorded.bytes += len(line)

    def _unwritable(self, error: OSError) -> StateError:
        return StateError(f"{self._folder}: {error.strerror}; what was recorded until then is whole")

    def _name(self, number: int) -> str:
        return f"{number:08d}.{self._ending}"

    def _taken(self) -> Taken:
        if self._ready_ns is not None:
            self.recorded.seconds = ms_between(self._ready_ns, monotonic_ns()) / 1000
        coming = sum(unit.writing is not None for unit in self._units.values())
        return Taken(self.recorded.pictures + coming, self.recorded.bytes, self._pending_bytes, self.recorded.seconds)
