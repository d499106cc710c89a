"""The daemon's half of a camera: its worker, its ring, and which slots the worker may write."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from defectd.inspection.events import UnitIdSource
from defectd.inspection.frame import Frame
from defectd.workers.process import Died, News, Worker, WorkerLimits, WorkerSpec
from defectd.workers.protocol import NO_SLOT, Framed, Grant, Missed, Shoot, Triggered
from defectd.workers.ring import FrameRing, Leases, RingLayout

RING_SLOTS = 12  # for one picture of a unit; two more for each further shot
_GRANTS = 3  # one being written, two in reserve for a line that does not wait
_PATIENT_UNITS = 3  # files wait: one in the engine, one complete, one being decoded keep all cores busy


@dataclass(frozen=True)
class CameraPlan:
    """What the camera worker is told, and how the daemon treats it.

    `first_trigger` is the first number of this run, `next_trigger` the one to begin with. `unit` is the name of the
    line that its views belong to, its own where it is alone; of each unit it takes `shots`. A `commanded` one takes
    a picture when it is told to.
    """

    name: str
    kind: str
    mode: Literal["triggered", "free_run"]
    unit_id_source: UnitIdSource
    simulated: bool
    patient: bool
    frame_bytes: int
    stall_s: float
    first_trigger: int
    next_trigger: int
    source: dict[str, Any]
    unit: str = ""
    shots: int = 1
    commanded: bool = False
    shot_s: float = 1.0


class SlotLease:
    """A slot that somebody still needs. It is given back when the last holder lets go."""

    def __init__(self, feed: CameraFeed, frame: Frame) -> None:
        self.feed, self.frame = feed, frame
        self._holders = 1

    def hold(self) -> None:
        """One more needs the pixels."""
        self._holders += 1

    def release(self) -> None:
        """One less; the last one returns the slot to the camera."""
        self._holders -= 1
        if self._holders == 0:
            self.feed.give_back(self.frame.slot)


class CameraFeed:
    """One camera as the inspection loop sees it. Used from the loop's thread only."""

    def __init__(self, plan: CameraPlan, index: int, log_level: str) -> None:
        self.plan, self.index = plan, index
        slots = RING_SLOTS + 2 * (plan.shots - 1)
        self.ring = FrameRing.create(RingLayout(slots, plan.frame_bytes))
        self._leases = Leases(slots)
        self._granted: deque[int] = deque()
        self._next_trigger = plan.next_trigger
        self._origin_ns = 0  # when the first unit of this run came; a line keeps its rhythm over its workers
        self._log_level = log_level
        limits = WorkerLimits(alive_extends_start=True, silence_s=plan.stall_s, backoff_longest_s=10.0)
        spec = WorkerSpec(f"camera/{plan.name}", "defectd.camera.worker", self._configuration, (self.ring,), limits)
        self.worker = Worker(spec)

    @property
    def name(self) -> str:
        """As configured."""
        return self.plan.name

    def start(self) -> None:
        """Start the worker."""
        self.worker.start()

    def receive(self) -> list[News]:
        """What the worker has to say. Grants that it used are no longer its own."""
        return self._settle(self.worker.receive())

    def tick(self, now_ns: int) -> list[News]:
        """See Worker.tick."""
        return self._settle(self.worker.tick(now_ns))

    def shoot(self, asked_ns: int) -> tuple[int, bool]:
        """Tell the camera to take a picture; the number it has, and False if nobody is there to take it."""
        number, self._next_trigger = self._next_trigger, self._next_trigger + 1
        return number, self.worker.ready and self.worker.send(Shoot(number, asked_ns))

    def grant(self, units_in_flight: int) -> None:
        """Give the worker the slots it may write; fewer if its units can wait and *units_in_flight* do."""
        limit = min(_GRANTS, _PATIENT_UNITS - units_in_flight) if self.plan.patient else _GRANTS + self.plan.shots - 1
        while self.worker.ready and len(self._granted) < limit:
            slot = self._leases.take()
            if slot is None or not self.worker.send(Grant(slot)):
                if slot is not None:
                    self._leases.give_back(slot)
                return
            self._granted.append(slot)

    def lend(self) -> int | None:
        """A slot for the daemon's own use (the probe inference); None if all are in use."""
        return self._leases.take()

    def give_back(self, slot: int) -> None:
        """Nobody needs the slot any longer."""
        self._leases.give_back(slot)

    def reclaim(self) -> None:
        """The worker is dead: what it might have written to is free again."""
        while self._granted:
            self._leases.give_back(self._granted.popleft())

    def _settle(self, news: list[News]) -> list[News]:
        """Keep the books on slots. A worker that uses a slot it was not granted is replaced at once."""
        settled: list[News] = []
        is_broken = False
        for record in news:
            if isinstance(record, Triggered):
                self._origin_ns = self._origin_ns or record.captured_ns
                self._next_trigger = record.number + 1
            elif isinstance(record, (Framed, Missed)):
                if is_broken:
                    continue  # which slot it speaks of, nobody can believe
                slot = record.frame.slot if isinstance(record, Framed) else record.slot
                if slot in self._granted:
                    self._granted.remove(slot)
                elif isinstance(record, Framed) or slot != NO_SLOT:
                    is_broken = True
                    continue
                if isinstance(record, Missed) and slot != NO_SLOT:
                    self.give_back(slot)
            elif isinstance(record, Died):
                self.reclaim()
            settled.append(record)
        return [*settled, *self._settle(self.worker.kill("protocol"))] if is_broken else settled

    def _configuration(self) -> dict[str, Any]:
        camera = {
            **self.plan.source,
            "kind": self.plan.kind,
            "first_trigger": self.plan.first_trigger,
            "next_trigger": self._next_trigger,
            "origin_ns": self._origin_ns,
            "commanded": self.plan.commanded,
            "shot_s": self.plan.shot_s,
        }
        return {"log_level": self._log_level, "camera": camera}
