"""A camera over a moving web: its judged frames become tracks, with a birth and an end, and stretches."""

from __future__ import annotations

import logging
from typing import Callable, Iterator, Literal, Mapping, NamedTuple

from defectd.clock import NS_PER_S, utc_now
from defectd.inspection.events import InspectionEvent, StoredEvent
from defectd.inspection.web_wire import StretchEvent, TrackEvent
from defectd.tracking.account import Account
from defectd.tracking.tracker import Tracker
from defectd.tracking.tracks import Change, Rules, Seen, Track, Tracks

log = logging.getLogger(__name__)

_NUMBER_EVERY_NS = NS_PER_S
_RECOVERED_AFTER_NS = 60 * NS_PER_S
Reason = Literal["gone", "stopped", "tracker_failed"]


class Told(NamedTuple):
    """What goes to the outbox together; without an event, the positions alone."""

    event: StoredEvent | None
    positions: Mapping[str, int]


class WebLine:
    """One tracked camera. Each frame comes twice: to `see` when it is judged, to `take` when its pictures are on disk;
    both in the order of triggers. One thread.

    A stretch commits `trigger/{camera}`: up to here all is told. `seen/{camera}` goes ahead of it, each second and with
    each birth, so that no number that an event has named is given twice after a crash; the frames between the two are
    told as lost. A commit for each frame would wear out the disk.
    """

    def __init__(
        self, camera: str, rules: Rules, report_every_s: float, make_tracker: Callable[[], Tracker],
        *, told_trigger: int, next_trigger: int,
    ) -> None:  # fmt: skip
        """*told_trigger* is the last one that a stretch has told, *next_trigger* the one to come."""
        self.trouble: str | None = None  # why tracks were lost within the last minute of frames
        self._failed_ns = 0
        self._camera, self._tracks = camera, Tracks(rules, make_tracker)
        self._report_every_ns = int(report_every_s * NS_PER_S)
        self._account = Account(told_trigger + 1, lost=next_trigger - told_trigger - 1)
        self._changes: dict[str, list[tuple[Change, Reason]]] = {}
        self._latest: InspectionEvent | None = None
        self._positions: Mapping[str, int] = {}
        self._report_due_ns = self._number_due_ns = 0

    def see(self, event: InspectionEvent, captured_ns: int) -> bool:
        """A frame has its verdict; True if its picture is to be kept: a defect is born in it."""
        if event.verdict not in ("passed", "failed"):
            return False
        frame = Seen(event.frame.trigger, captured_ns, event.started_at, tuple(event.defects))
        try:
            change = self._tracks.see(frame)
        except Exception as error:  # no frame may be lost over it
            if self.trouble is None:
                log.exception("%s: the tracker failed; a new one begins with nothing", self._camera)
            self.trouble, self._failed_ns = f"{type(error).__name__}: {error}", captured_ns
            self._changes[event.id] = [(self._tracks.forget(), "tracker_failed")]
            return False
        if captured_ns - self._failed_ns >= _RECOVERED_AFTER_NS:
            self.trouble = None
        self._changes[event.id] = [(change, "gone")]
        return bool(change.born)

    def take(self, event: InspectionEvent, positions: Mapping[str, int], now_ns: int) -> Iterator[Told]:
        """The frame is finished: what there is to tell. *positions* are committed with the next stretch."""
        if self._account.is_empty:
            self._report_due_ns = now_ns + self._report_every_ns
        self._account.add(event)
        self._latest, self._positions = event, {**positions, self._seen: event.frame.trigger}
        for change, reason in self._changes.pop(event.id, ()):
            yield from self._tell(change, reason)
        yield from self.tend(now_ns)

    def tend(self, now_ns: int) -> Iterator[Told]:
        """What is due without a new frame."""
        if self._latest is None:
            return
        if not self._account.is_empty and now_ns >= self._report_due_ns:
            yield self._stretch()
        elif not self._account.is_empty and now_ns >= self._number_due_ns:
            self._number_due_ns = now_ns + _NUMBER_EVERY_NS
            yield Told(None, {self._seen: self._account.to_trigger})

    def close(self) -> Iterator[Told]:
        """The daemon stops: nothing stays open, and no frame untold."""
        yield from self._tell(self._tracks.forget(), "stopped")
        if not self._account.is_empty:
            yield self._stretch()

    @property
    def _seen(self) -> str:
        return f"seen/{self._camera}"

    def _tell(self, change: Change, reason: Reason) -> Iterator[Told]:
        self._account.note(change)
        if self._latest is None:
            return
        at = {self._seen: self._latest.frame.trigger}
        for track in change.born:
            yield Told(self._track(self._latest, track, None), at)
        for track in change.ended:
            yield Told(self._track(self._latest, track, reason), at)

    def _track(self, event: InspectionEvent, track: Track, reason: Reason | None) -> TrackEvent:
        named_by = track.named_by
        return TrackEvent(
            station=event.station,
            boot_id=event.boot_id,
            created_at=utc_now(),
            track_id=track.id,
            state="born" if reason is None else "ended",
            reason=reason,
            camera=self._camera,
            recipe=event.recipe,
            model=event.model,
            simulated=event.simulated,
            first_trigger=track.first.frame.trigger,
            last_trigger=track.last.frame.trigger,
            first_seen_at=track.first.frame.captured_at,
            last_seen_at=track.last.frame.captured_at,
            frames=track.frames,
            code=named_by.code,
            codes=dict(track.codes),
            category=named_by.category,
            class_name=named_by.class_name,
            description=named_by.description,
            priority=named_by.priority,
            confidence=track.best.defect.confidence,
            best_trigger=track.best.frame.trigger,
            first_bbox_px=track.first.defect.bbox_px,
            best_bbox_px=track.best.defect.bbox_px,
            last_bbox_px=track.last.defect.bbox_px,
            web_px_per_s=self._tracks.web_px_per_s,
            images=event.images if reason is None else [],
        )

    def _stretch(self) -> Told:
        """Tell the account, and begin the next one right behind it."""
        account, event = self._account, self._latest
        assert event is not None and account.from_at is not None and account.to_at is not None
        self._account = Account(account.to_trigger + 1)
        return Told(
            StretchEvent(
                station=event.station,
                boot_id=event.boot_id,
                created_at=utc_now(),
                camera=self._camera,
                from_trigger=account.from_trigger,
                to_trigger=account.to_trigger,
                from_at=account.from_at,
                to_at=account.to_at,
                frames=account.to_trigger - account.from_trigger + 1,
                inspected=sum(account.verdicts.values()),
                dropped=account.dropped,
                lost=account.lost,
                verdicts=dict(account.verdicts),
                errors=dict(account.errors),
                needs_review=account.needs_review,
                tracks_born=account.born,
                tracks_ended=account.ended,
                tracks_open=len(self._tracks.born),
                flickers=account.flickers,
                left_out=account.left_out,
            ),
            self._positions,
        )
