"""Units that no camera announces: one at each interval, or one for each message on `cmd/unit`.

Where a camera triggers by itself, a message names the unit that comes next. Each message that was accepted ends in a
verdict, or in a fault that says which unit did not come.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Callable, Iterator, Sequence

from defectd.announced import Announcement
from defectd.clock import NS_PER_MS, utc_now
from defectd.faults import Faults
from defectd.inspection.recipe import Recipe
from defectd.inspection.unit_command import UnitCommand, read_unit_command
from defectd.inspection.verdict import Judgement, refuse
from defectd.line import Line

ANNOUNCED_FOR_S = 10.0
OLD_AFTER_S = 2.0
_WAITING_MOST = 1000
_IDS_KEPT = 10_000
_COMPONENT = "cmd/unit"


class Births:
    """`announce` from any thread, the rest from the loop's."""

    def __init__(self, lines: Sequence[Line], recipe: Recipe, faults: Faults, wake: Callable[[], None]) -> None:
        self._lines = {line.name: line for line in lines}
        self._recipe, self._faults, self._wake = recipe, faults, wake
        self._arrived: deque[bytes] = deque()
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._next_ns: dict[str, int] = {}

    def announce(self, payload: bytes) -> None:
        """A message has arrived. Of more than the station can look at, the newest are dropped, and told."""
        if len(self._arrived) >= _WAITING_MOST:
            self._faults.begin(_COMPONENT, "too_many_messages", f"over {_WAITING_MOST} at once; the newest are dropped")
            return
        self._arrived.append(payload)
        self._wake()

    def due_ns(self) -> Iterator[int]:
        """When the next unit is due."""
        return iter(self._next_ns.values())

    def attend(self, now_ns: int, open_for_units: bool) -> None:
        """Begin what is due. Before the cameras are open no interval begins, and a message's unit is refused."""
        for _ in range(len(self._arrived)):
            self._obey(self._arrived.popleft(), now_ns, open_for_units)
        for line in self._lines.values():
            if line.plan.interval_ms is not None:
                self._keep_interval(line, line.plan.interval_ms, now_ns, open_for_units and not line.ended)
            for late in line.announced.overdue(now_ns):
                self._did_not_come(late, f"did not come within {ANNOUNCED_FOR_S:.0f} s")

    def triggers_were_lost(self, line: Line, why: str) -> None:
        """The names that were waited for may be those of units that passed unseen: none of them is used."""
        for announcement in line.announced.forget():
            self._did_not_come(announcement, f"may have passed unseen: {why}")

    def _did_not_come(self, announcement: Announcement, what: str) -> None:
        detail = f"unit {announcement.unit_id} was announced, and {what}"
        self._faults.note(_COMPONENT, "unit_did_not_come", detail)

    def _keep_interval(self, line: Line, interval_ms: float, now_ns: int, is_open: bool) -> None:
        if not is_open:
            self._next_ns.pop(line.name, None)
            return
        due_ns = self._next_ns.get(line.name, now_ns)
        if now_ns >= due_ns:
            line.bear(None, None, now_ns)
            interval_ns = int(interval_ms * NS_PER_MS)
            due_ns += interval_ns * (1 + (now_ns - due_ns) // interval_ns)  # in the same rhythm, after a stall, too
        self._next_ns[line.name] = due_ns

    def _obey(self, payload: bytes, now_ns: int, open_for_units: bool) -> None:
        try:
            command = read_unit_command(payload)
            line = self._line(command)
        except ValueError as error:
            self._faults.begin(_COMPONENT, "bad_message", str(error))
            return
        self._faults.end(_COMPONENT, "bad_message", "a good one has come")
        self._faults.end(_COMPONENT, "too_many_messages", "they are taken again")
        if command.id in self._ids:
            return
        self._ids[command.id] = None
        if len(self._ids) > _IDS_KEPT:
            self._ids.popitem(last=False)
        refusal = self._refusal(command, line, open_for_units)
        if not line.commanded:
            self._announce_unit(line, command, now_ns, refusal)
        elif refusal is not None:
            line.refuse_birth(command.unit_id, command.position, refusal)
        else:
            line.bear(command.unit_id, command.position, now_ns)

    def _announce_unit(self, line: Line, command: UnitCommand, now_ns: int, refusal: Judgement | None) -> None:
        """Its camera will trigger it. An old message is of a unit that has passed, under whatever name."""
        if refusal is not None and refusal.error == "deadline_exceeded":
            detail = f"unit {command.unit_id}: {refusal.error_detail}"
            self._faults.note(_COMPONENT, "announced_too_late", detail)
        elif not line.announced.add(command.unit_id, command.position, now_ns, ANNOUNCED_FOR_S, refusal):
            detail = f"unit {command.unit_id}: more units were announced than came"
            self._faults.note(_COMPONENT, "too_many_announced", detail)

    def _line(self, command: UnitCommand) -> Line:
        listening = {
            name: line
            for name, line in self._lines.items()
            if line.plan.announced_ids or (line.commanded and line.plan.interval_ms is None)
        }
        names = ", ".join(sorted(listening)) or 'none: neither trigger = "message" nor announced_ids is set'
        if command.unit is None and len(listening) == 1:
            return next(iter(listening.values()))
        if command.unit is None:
            raise ValueError(f"unit: is missing; those that listen are {names}")
        if command.unit not in listening:
            raise ValueError(f"unit: got {command.unit!r}, expected one of {names}")
        return listening[command.unit]

    def _refusal(self, command: UnitCommand, line: Line, open_for_units: bool) -> Judgement | None:
        if command.recipe is not None and command.recipe != self._recipe.name:
            return refuse("wrong_recipe", f"the message says {command.recipe}, this station has {self._recipe.name}")
        age_s = (utc_now() - command.sent_at).total_seconds() if command.sent_at is not None else 0.0
        if age_s > OLD_AFTER_S:
            return refuse("deadline_exceeded", f"the message is {age_s:.1f} s old: another unit is there by now")
        if line.commanded and line.ended:
            return refuse("camera_lost", "the camera has no more pictures")
        if line.commanded and not open_for_units:
            return refuse("camera_lost", "the station was not ready when the message came")
        return None
