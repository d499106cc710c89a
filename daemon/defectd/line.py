"""The units of one place on the line, from trigger to outbox, in the order of their triggers.

One camera sees them, or several, or one several times: each look is a view, and the verdict waits for all views. A
unit is owed a verdict from its trigger on. `decide` gives it, once; `store_finished` hands the events on in order, so
that a position on disk means: everything up to here is on disk, too.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Callable, Iterator, Mapping, Protocol, Sequence

from defectd.announced import Announced
from defectd.camera.feed import CameraFeed, SlotLease
from defectd.clock import NS_PER_MS, monotonic_ns, utc_now
from defectd.evidence.keeper import EvidenceKeeper
from defectd.inspection.events import Conditions, InspectionEvent, Model
from defectd.inspection.frame import Trigger
from defectd.inspection.record import EngineAnswer, StationIdentity, record
from defectd.inspection.verdict import Judgement, combine, refuse
from defectd.keeping import Keeping
from defectd.unit import Unit, View, view_name
from defectd.workers.protocol import Framed, Missed, Named, Triggered

_LATENCIES_KEPT = 1000
_STORED_KEPT = 50  # a view that comes after its unit's verdict must not begin another one


class Store(Protocol):
    """Where finished inspections go; must not block. *positions* are committed together with the event."""

    def __call__(self, event: InspectionEvent, positions: Mapping[str, int]) -> None: ...


Keeps = Callable[[InspectionEvent, int], bool]
"""(event, captured_ns) -> whether its pictures are evidence. Called once with each verdict, as soon as it is out."""


def fails_or_errors(event: InspectionEvent, captured_ns: int) -> bool:
    """What most cameras keep pictures of."""
    del captured_ns
    return event.verdict in ("failed", "error")


@dataclass
class Tally:
    """Counts since the start, by name (triggers, each verdict, dropped, deaths of workers), and recent latencies."""

    counts: Counter[str] = field(default_factory=Counter)
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))


@dataclass(frozen=True)
class LinePlan:
    """`name` is the camera's, or that of the units which several cameras see. Triggers of cameras that came within
    `pair_within_ms` are of the same unit. `interval_ms`: the daemon begins a unit so often. `announced_ids`: messages
    name the units that the camera triggers."""

    name: str
    next_number: int
    deadline_ms: float
    pair_within_ms: float = 100.0
    interval_ms: float | None = None
    announced_ids: bool = False


class Line:
    """Used from the loop's thread only."""

    def __init__(
        self,
        plan: LinePlan,
        feeds: Sequence[CameraFeed],
        station: StationIdentity,
        keeper: EvidenceKeeper | None,
        serving: Callable[[], Model | None],
        store: Store,
        tally: Tally,
        conditions: Callable[[], Conditions | None] = lambda: None,
        sheds: Callable[[], bool] = lambda: False,
        keeps: Keeps = fails_or_errors,
    ) -> None:
        """*sheds*: the machine is too hot for pictures with boxes."""
        self.plan, self.feeds = plan, list(feeds)
        self.announced = Announced()
        self.ended = False
        self.keeping = Keeping(keeper, tally.counts, sheds)
        self._conditions, self._keeps = conditions, keeps
        self._station, self._serving = station, serving
        self._store, self._tally = store, tally
        deadline_ns = int(plan.deadline_ms * NS_PER_MS)
        self._decide_after_ns = deadline_ns - min(10 * NS_PER_MS, deadline_ns // 25)  # the verdict is in time, too
        self._pair_within_ns = int(plan.pair_within_ms * NS_PER_MS)
        self._expected = [(feed, shot) for feed in feeds for shot in range(1, feed.plan.shots + 1)]
        self._is_single = len(self._expected) == 1
        self._free_run = feeds[0].plan.mode == "free_run"
        self._next_number = plan.next_number
        self._units: OrderedDict[int, Unit] = OrderedDict()
        self._stored: deque[Unit] = deque(maxlen=_STORED_KEPT)
        self._views: dict[tuple[int, int], View] = {}
        self._waiting: deque[View] = deque()
        self._dropped = 0
        self._last_dropped: Unit | None = None

    @property
    def name(self) -> str:
        """Of its one camera, or of its units."""
        return self.plan.name

    @property
    def commanded(self) -> bool:
        """True if units are born by `bear`, not by a camera."""
        return self.feeds[0].plan.commanded

    # -- units are born --------------------------------------------------------------------------------------

    def triggered(self, feed: CameraFeed, news: Triggered) -> None:
        """A camera has seen a unit: a new one, or one that another camera has just seen, too."""
        captured_ns = min(news.captured_ns, monotonic_ns())  # a camera's clock may run ahead of ours
        unit = self._seen_by_another(feed, captured_ns)
        if unit is not None:
            self._look(unit, feed, news.number)
            return
        number, unit_id = (news.number, news.unit_id) if self._is_single else (self._next_number, None)
        unit = self._begin(number, unit_id, captured_ns, news.captured_at)
        self._look(unit, feed, news.number)
        if (coming := self.announced.take(monotonic_ns())) is not None:
            unit.named(coming.unit_id, "message", coming.position)
            if coming.refusal is not None:
                self.decide(unit, coming.refusal)

    def bear(self, unit_id: str | None, position: str | None, asked_ns: int) -> None:
        """The daemon begins a unit: all its cameras take their pictures now. *unit_id* None: it is counted."""
        unit = self._begin(self._next_number, None, asked_ns, utc_now())
        if unit_id is not None:
            unit.named(unit_id, "message", position)
        for feed, _ in self._expected:
            number, sent = feed.shoot(asked_ns)
            view = self._look(unit, feed, number)
            if not sent and not unit.decided:
                self.settle(view, refuse("camera_lost", "the camera is not open"))

    def refuse_birth(self, unit_id: str, position: str | None, judgement: Judgement) -> None:
        """A unit of which no picture can be taken has a verdict, too. Only where units are born by `bear`."""
        unit = self._begin(self._next_number, None, monotonic_ns(), utc_now())
        unit.named(unit_id, "message", position)
        self.decide(unit, judgement)

    def _begin(self, number: int, unit_id: str | None, captured_ns: int, captured_at: datetime) -> Unit:
        assert number not in self._units, "a number is of one unit"
        self._next_number = number + 1
        source = "counter" if unit_id is None else self.feeds[0].plan.unit_id_source
        trigger = Trigger(self.name, number, unit_id or f"{self.name}-{number:08d}", captured_ns, captured_at)
        unit = Unit(trigger, source, captured_ns + self._decide_after_ns)
        self._units[number] = unit
        self._tally.counts["triggers"] += 1
        return unit

    def _seen_by_another(self, feed: CameraFeed, captured_ns: int) -> Unit | None:
        """The nearest unit that this camera has not seen, and another one has, a moment ago; decided ones, too."""
        if self._is_single:
            return None
        lacking = [
            (abs(captured_ns - unit.trigger.captured_ns), unit.trigger.number, unit)
            for unit in [*self._stored, *self._units.values()]
            if unit.seen_by(feed) < feed.plan.shots
        ]
        away_ns, _, unit = min(lacking, default=(self._pair_within_ns + 1, 0, None))
        return unit if away_ns <= self._pair_within_ns else None

    def _look(self, unit: Unit, feed: CameraFeed, number: int) -> View:
        view = View(unit, feed, unit.seen_by(feed) + 1, number)
        unit.views.append(view)
        if unit.decided:
            self._tally.counts["late_views"] += 1  # its pictures are for nobody
        else:
            self._views[feed.index, number] = view
        return view

    # -- from the cameras ------------------------------------------------------------------------------------

    def named(self, feed: CameraFeed, news: Named) -> None:
        """The picture itself says which unit it is. What a message has said counts more."""
        view = self._views.get((feed.index, news.number))
        if view is not None and view.unit.unit_id_source == "counter" and not view.unit.decided:
            view.unit.named(news.unit_id, "file" if feed.plan.unit_id_source == "file" else "code")

    def framed(self, feed: CameraFeed, news: Framed) -> None:
        """A frame is complete, and waits for the engine. In free-run mode older ones give way to it."""
        lease = SlotLease(feed, news.frame)
        view = self._views.get((feed.index, news.number))
        if view is None or view.unit.decided or view.judgement is not None or view.lease is not None:
            lease.release()  # too late, or once more
            return
        if self._free_run:
            while (older := self.oldest_waiting) is not None:
                self._waiting.popleft()
                self._drop(older.unit)
        view.lease, view.framed_ns = lease, monotonic_ns()
        self._waiting.append(view)

    def missed(self, feed: CameraFeed, news: Missed) -> None:
        """There will be no frame."""
        view = self._views.get((feed.index, news.number))
        if view is None or view.unit.decided or view.judgement is not None or view.lease is not None:
            return
        if self._free_run and news.reason == "camera_overrun":
            self._drop(view.unit)
        else:
            self.settle(view, refuse(news.reason, news.detail))

    def refuse_without_frame(self, feed: CameraFeed, judgement: Judgement) -> None:
        """No frame will come any more for what this camera has seen, or was told to look at."""
        for unit in self.undecided():
            for view in unit.views:
                if view.feed is feed and view.lease is None and view.judgement is None and not unit.decided:
                    self.settle(view, judgement)

    # -- to the engine ---------------------------------------------------------------------------------------

    @property
    def oldest_waiting(self) -> View | None:
        """The view whose turn is next."""
        while self._waiting and self._waiting[0].unit.decided:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def take_waiting(self) -> View:
        """The engine takes the oldest one; its slot is held until `release_from_engine`."""
        view = self._waiting.popleft()
        assert view.lease is not None
        view.lease.hold()
        return view

    def take_back(self, view: View) -> None:
        """The engine failed, and another one is ready: the view is the next one again."""
        self._waiting.appendleft(view)

    @staticmethod
    def release_from_engine(view: View) -> None:
        """The engine no longer reads the slot."""
        assert view.lease is not None
        view.lease.release()

    # -- the verdict -----------------------------------------------------------------------------------------

    def settle(self, view: View, judgement: Judgement, answer: EngineAnswer | None = None) -> None:
        """What one view shows. With the last one the unit is decided."""
        assert view.judgement is None and not view.unit.decided
        view.judgement, view.answer = judgement, answer
        unit = view.unit
        if sum(each.judgement is not None for each in unit.views) == len(self._expected):
            self.decide(unit, self._combined(unit))

    def decide(self, unit: Unit, judgement: Judgement) -> None:
        """The verdict, once. From here on the unit waits for its pictures, if any, and for its elders."""
        assert not unit.decided
        now_ns = monotonic_ns()
        event = record(
            self._station,
            unit.trigger,
            [view.look for view in unit.views],
            judgement,
            self._serving(),
            is_single=self._is_single,
            verdict_ns=now_ns,
            unit_id_source=unit.unit_id_source,
            position=unit.position,
            simulated=self.feeds[0].plan.simulated,
            conditions=self._conditions(),
        )
        unit.decided, unit.event = True, event
        self._tally.counts[judgement.verdict] += 1
        self._tally.latencies_ms.append(event.timing_ms.capture_to_verdict)
        self.keeping.keep(unit, event, now_ns, is_evidence=self._keeps(event, unit.trigger.captured_ns))
        for view in unit.views:
            if view.lease is not None:
                view.lease.release()

    def undecided(self) -> Iterator[Unit]:
        """Units that are owed a verdict, oldest first."""
        return (unit for unit in list(self._units.values()) if not unit.decided)

    def refuse_late(self, now_ns: int, *, engine_ready: bool) -> None:
        """Whoever has not got a verdict by its deadline gets none any more."""
        for unit in self.undecided():
            if now_ns < unit.decide_by_ns:
                continue
            for view in unit.views:
                view.judgement = view.judgement or view.too_late(engine_ready)
            self.decide(unit, self._combined(unit))

    def _combined(self, unit: Unit) -> Judgement:
        """Of all views that the unit should have; those that nobody began are missing."""
        if self._is_single:
            judgement = unit.views[0].judgement
            assert judgement is not None
            return judgement
        looks = {view.name: view.judgement for view in unit.views}
        missing = refuse("view_missing", "no picture of this unit")
        return combine(
            [(name, looks.get(name) or missing) for name in (view_name(feed, shot) for feed, shot in self._expected)]
        )

    # -- to the outbox ---------------------------------------------------------------------------------------

    def store_finished(self) -> None:
        """Hand on what is finished, up to the first unit that is not. Dropped frames are told by the next event."""
        while self._units:
            number, unit = next(iter(self._units.items()))
            if not unit.finished:
                return
            del self._units[number]
            for view in unit.views:
                self._views.pop((view.feed.index, view.number), None)
            if not self._is_single:
                self._stored.append(unit)
            if unit.event is None:
                self._dropped, self._last_dropped = self._dropped + 1, unit
            else:
                positions = {f"trigger/{view.feed.name}": view.number for view in unit.views}
                positions[f"trigger/{self.name}"] = number
                self._store(unit.event.after_drops(self._dropped), positions)
                self._dropped, self._last_dropped = 0, None

    def tell_drops(self) -> None:
        """No event will follow that could tell of the last drops: the newest of them becomes a `skipped` one."""
        self.store_finished()
        unit = self._last_dropped
        if unit is not None and self.empty:
            self._units[unit.trigger.number] = unit
            unit.decided = False
            for view in unit.views:
                view.lease = None
            self._dropped -= 1
            self._tally.counts["dropped"] -= 1
            self.decide(unit, Judgement("skipped", error_detail="given up for a newer frame that was not judged"))
            self.store_finished()

    def abort(self, judgement: Judgement) -> None:
        """The end: whatever is undecided gets *judgement*, and no event waits for its pictures."""
        for unit in self.undecided():
            self.decide(unit, judgement)
        self.keeping.give_up()
        self.tell_drops()

    @property
    def half_judged(self) -> bool:
        """A unit has the answer of the model for one of its views, and waits for that for another one."""
        return not self._is_single and any(
            any(view.answer is not None for view in unit.views) for unit in self.undecided()
        )

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
        for view in unit.views:
            if view.lease is not None:
                view.lease.release()
