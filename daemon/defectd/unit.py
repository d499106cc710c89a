"""One unit between its trigger and its place in the outbox, and the looks that cameras had at it."""

from __future__ import annotations

from dataclasses import dataclass, field

from defectd.camera.feed import CameraFeed, SlotLease
from defectd.inspection.events import InspectionEvent, UnitIdSource
from defectd.inspection.frame import Trigger
from defectd.inspection.record import EngineAnswer, Look
from defectd.inspection.verdict import Judgement, refuse


@dataclass(eq=False)
class View:
    """One look of one camera at a unit. `shot` counts from 1; `number` is of the camera's own triggers."""

    unit: Unit
    feed: CameraFeed
    shot: int
    number: int
    lease: SlotLease | None = None
    framed_ns: int = 0
    judgement: Judgement | None = None
    answer: EngineAnswer | None = None

    @property
    def name(self) -> str:
        """The camera's, and which shot it is where there are several."""
        return view_name(self.feed, self.shot)

    @property
    def look(self) -> Look:
        """For its event."""
        frame = self.lease.frame if self.lease is not None else None
        return Look(self.name, self.number, frame, self.judgement, self.answer)

    def too_late(self, engine_ready: bool) -> Judgement:
        """The deadline is over: how far it came."""
        if self.lease is None:
            return refuse("frame_missing", "the trigger came, its frame did not")
        if not engine_ready:
            return refuse("engine_unavailable", "no engine was ready before the deadline")
        return refuse("deadline_exceeded", "the engine did not answer before the deadline")


@dataclass(eq=False)
class Unit:
    """One unit. `trigger` is its birth; `number` in it counts the units of its line."""

    trigger: Trigger
    unit_id_source: UnitIdSource
    decide_by_ns: int
    position: str | None = None
    views: list[View] = field(default_factory=list)
    decided: bool = False
    event: InspectionEvent | None = None
    pictures_by_ns: int | None = None

    @property
    def finished(self) -> bool:
        """Nothing more will be known about it."""
        return self.decided and self.pictures_by_ns is None

    def named(self, unit_id: str, source: UnitIdSource, position: str | None = None) -> None:
        """It is known now what it is called, and where that is known from."""
        self.trigger, self.unit_id_source, self.position = self.trigger.named(unit_id), source, position

    def seen_by(self, feed: CameraFeed) -> int:
        """How often that camera has looked, or was told to."""
        return sum(view.feed is feed for view in self.views)


def view_name(feed: CameraFeed, shot: int) -> str:
    """`top`, or `top#2` for the second shot of a camera that takes several of each unit."""
    return feed.name if feed.plan.shots == 1 else f"{feed.name}#{shot}"
