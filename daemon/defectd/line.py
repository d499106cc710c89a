"""One camera's units, from trigger to outbox, in the order of their triggers.

A unit is owed a verdict from its trigger on. `decide` gives it, once; `store_finished` hands the events on in order,
so that a position on disk means: everything up to here is on disk, too.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Callable, Iterator, Mapping, Protocol, Sequence

from defectd.camera.feed import CameraFeed, SlotLease
from defectd.clock import NS_PER_MS, monotonic_ns
from defectd.evidence.keeper import EvidenceKeeper
from defectd.inspection.events import Conditions, Image, InspectionEvent, Model
from defectd.inspection.frame import Trigger
from defectd.inspection.record import EngineAnswer, StationIdentity, record
from defectd.inspection.verdict import Judgement, refuse
from defectd.workers.protocol import Framed, Missed, Triggered

_PICTURES_TAKE_NS = 1000 * NS_PER_MS  # at most, for their hashes; a 12 MP frame takes a third of a second
_LATENCIES_KEPT = 1000


class Store(Protocol):
    """Where finished inspections go; must not block. *positions* are committed together with the event."""

    def __call__(self, event: InspectionEvent, positions: Mapping[str, int]) -> None: ...


@dataclass
class Tally:
    """Counts since the start, by name (triggers, each verdict, dropped, deaths of workers), and recent latencies."""

    counts: Counter[str] = field(default_factory=Counter)
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))


@dataclass
class Unit:
    """One unit between its trigger and its place in the outbox."""

    trigger: Trigger
    decide_by_ns: int
    lease: SlotLease | None = None
    framed_ns: int = 0
    decided: bool = False
    event: InspectionEvent | None = None
    pictures_by_ns: int | None = None

    @property
    def finished(self) -> bool:
        """Nothing more will be known about it."""
        return self.decided and self.pictures_by_ns is None


class Line:
    """The units of one camera. Used from the loop's thread only."""

    def __init__(
        self,
        feed: CameraFeed,
        station: StationIdentity,
        deadline_ms: float,
        keeper: EvidenceKeeper | None,
        serving: Callable[[], Model | None],
        store: Store,
        tally: Tally,
        conditions: Callable[[], Conditions | None] = lambda: None,
        sheds: Callable[[], bool] = lambda: False,
    ) -> None:
        """*sheds*: the machine is too hot for pictures with boxes."""
        self.feed = feed
        self._conditions, self._sheds = conditions, sheds
        self._station, self._keeper, self._serving = station, keeper, serving
        self._store, self._tally = store, tally
        deadline_ns = int(deadline_ms * NS_PER_MS)
        self._decide_after_ns = deadline_ns - min(10 * NS_PER_MS, deadline_ns // 25)  # the verdict is in time, too
        self._units: OrderedDict[int, Unit] = OrderedDict()
        self._waiting: deque[Unit] = deque()
        self._for_pictures: dict[str, Unit] = {}
        self._dropped = 0
        self._last_dropped: Unit | None = None

    # -- from the camera -------------------------------------------------------------------------------------

    def triggered(self, news: Triggered) -> None:
        """A unit is here; the clock runs."""
        self._units[news.number] = Unit(self.feed.trigger(news), news.captured_ns + self._decide_after_ns)
        self._tally.counts["triggers"] += 1

    def framed(self, news: Framed) -> None:
        """Its frame is complete, and waits for the engine. In free-run mode older ones give way to it."""
        lease = SlotLease(self.feed, news.frame)
        unit = self._units.get(news.number)
        if unit is None or unit.decided:
            lease.release()  # too late: its verdict is out
            return
        if self.feed.plan.mode == "free_run":
            while self.oldest_waiting is not None:
                self._drop(self._waiting.popleft())
        unit.lease, unit.framed_ns = lease, monotonic_ns()
        self._waiting.append(unit)

    def missed(self, news: Missed) -> None:
        """It will have no frame."""
        unit = self._units.get(news.number)
        if unit is None or unit.decided:
            return
        if self.feed.plan.mode == "free_run" and news.reason == "camera_overrun":
            self._drop(unit)
        else:
            self.decide(unit, refuse(news.reason, news.detail))

    # -- to the engine ---------------------------------------------------------------------------------------

    @property
    def oldest_waiting(self) -> Unit | None:
        """The unit whose turn is next."""
        while self._waiting and self._waiting[0].decided:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def take_waiting(self) -> Unit:
        """The engine takes the oldest one; its slot is held until `release_from_engine`."""
        unit = self._waiting.popleft()
        assert unit.lease is not None
        unit.lease.hold()
        return unit

    def take_back(self, unit: Unit) -> None:
        """The engine failed, and another one is ready: the unit is the next one again."""
        self._waiting.appendleft(unit)

    @staticmethod
    def release_from_engine(unit: Unit) -> None:
        """The engine no longer reads the slot."""
        assert unit.lease is not None
        unit.lease.release()

    # -- the verdict -----------------------------------------------------------------------------------------

    def decide(self, unit: Unit, judgement: Judgement, answer: EngineAnswer | None = None) -> None:
        """The verdict, once. From here on the unit waits for its pictures, if any, and for its elders."""
        assert not unit.decided
        now_ns = monotonic_ns()
        plan = self.feed.plan
        event = record(
            self._station,
            unit.trigger,
            unit.lease.frame if unit.lease else None,
            judgement,
            answer,
            self._serving(),
            verdict_ns=now_ns,
            unit_id_source=plan.unit_id_source,
            simulated=plan.simulated,
            conditions=self._conditions(),
        )
        unit.decided, unit.event = True, event
        self._tally.counts[judgement.verdict] += 1
        self._tally.latencies_ms.append(event.timing_ms.capture_to_verdict)
        if unit.lease is None:
            return
        if judgement.verdict in ("failed", "error") and self._keep_pictures(event, unit.lease):
            unit.pictures_by_ns = now_ns + _PICTURES_TAKE_NS
            self._for_pictures[event.id] = unit
        unit.lease.release()

    def undecided(self) -> Iterator[Unit]:
        """Units that are owed a verdict, oldest first."""
        return (unit for unit in list(self._units.values()) if not unit.decided)

    def refuse_late(self, now_ns: int, *, engine_ready: bool) -> None:
        """Whoever has not got a verdict by its deadline gets none any more."""
        for unit in self.undecided():
            if now_ns < unit.decide_by_ns:
                continue
            if unit.lease is None:
                self.decide(unit, refuse("frame_missing", "the trigger came, its frame did not"))
            elif not engine_ready:
                self.decide(unit, refuse("engine_unavailable", "no engine was ready before the deadline"))
            else:
                self.decide(unit, refuse("deadline_exceeded", "the engine did not answer before the deadline"))

    def refuse_without_frame(self, judgement: Judgement) -> None:
        """No frame will come for the units that still wait for one."""
        for unit in self.undecided():
            if unit.lease is None:
                self.decide(unit, judgement)

    # -- to the outbox ---------------------------------------------------------------------------------------

    def pictures(self, event_id: str, images: Sequence[Image]) -> None:
        """The pictures of one unit are on disk, or will not be. Ignored if the event has gone without them."""
        unit = self._for_pictures.pop(event_id, None)
        if unit is None:
            return
        assert unit.event is not None
        unit.event = unit.event.model_copy(update={"images": list(images)})
        unit.pictures_by_ns = None
        self._tally.counts["evidence" if images else "evidence_missed"] += 1

    def give_up_pictures(self, now_ns: int) -> None:
        """Events do not wait for ever."""
        for event_id, unit in list(self._for_pictures.items()):
            if unit.pictures_by_ns is not None and now_ns >= unit.pictures_by_ns:
                self.pictures(event_id, ())

    def store_finished(self) -> None:
        """Hand on what is finished, up to the first unit that is not. Dropped frames are told by the next event."""
        while self._units:
            number, unit = next(iter(self._units.items()))
            if not unit.finished:
                return
            del self._units[number]
            if unit.event is None:
                self._dropped, self._last_dropped = self._dropped + 1, unit
            else:
                self._store(unit.event.after_drops(self._dropped), {f"trigger/{self.feed.name}": number})
                self._dropped, self._last_dropped = 0, None

    def tell_drops(self) -> None:
        """No event will follow that could tell of the last drops: the newest of them becomes a `skipped` one."""
        self.store_finished()
        unit = self._last_dropped
        if unit is not None and self.empty:
            self._units[unit.trigger.number] = unit
            unit.decided, unit.lease = False, None
            self._dropped -= 1
            self._tally.counts["dropped"] -= 1
            self.decide(unit, Judgement("skipped", error_detail="given up for a newer frame that was not judged"))
            self.store_finished()

    def abort(self, judgement: Judgement) -> None:
        """The end: whatever is undecided gets *judgement*, and no event waits for its pictures."""
        for unit in self.undecided():
            self.decide(unit, judgement)
        for event_id in list(self._for_pictures):
            self.pictures(event_id, ())
        self.tell_drops()

    @property
    def empty(self) -> bool:
        """Every unit has been stored."""
        return not self._units

    def due_ns(self) -> Iterator[int]:
        """When something must happen here without news."""
        for unit in self._units.values():
            if not unit.decided:
                yield unit.decide_by_ns
            elif unit.pictures_by_ns is not None:
                yield unit.pictures_by_ns

    # --------------------------------------------------------------------------------------------------------

    def _drop(self, unit: Unit) -> None:
        """Free-run: this frame gives way to a newer one, whose event will count it."""
        unit.decided = True
        self._tally.counts["dropped"] += 1
        if unit.lease is not None:
            unit.lease.release()

    def _keep_pictures(self, event: InspectionEvent, lease: SlotLease) -> bool:
        day = event.started_at.date().isoformat()
        return self._keeper is not None and self._keeper.keep(
            event.id, day, lease, [] if self._sheds() else event.defects
        )
