"""Units that no camera announces: one at each interval, or one for each message on `cmd/unit`.

Where a camera triggers by itself, a message names the unit that comes next. Each message that was accepted ends in a
verdict, or in a fault that says which unit did not come.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Callable, Iterator, Sequence

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
        self._arrived: deque[bytes] = deque(maxlen=_WAITING_MOST)
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._next_ns: dict[str, int] = {}

    def announce(self, payload: bytes) -> None:
        """A message has arrived."""
        self._arrived.append(payload)
        self._wake()

    def due_ns(self) -> Iterator[int]:
        """When the next unit is due."""
        return iter(self._next_ns.values())

    def attend(self, now_ns: int, open_for_units: bool) -> None:
        """Begin what is due. Before the cameras are open no interval begins, and a message's unit is refused."""
        while self._arrived:
            self._obey(self._arrived.popleft(), now_ns, open_for_units)
        for line in self._lines.values():
            if line.plan.interval_ms is not None:
                self._keep_interval(line, line.plan.interval_ms, now_ns, open_for_units and not line.ended)
            for late in line.announced.overdue(now_ns):
                detail = f"unit {late.unit_id} was announced, and did not come within {ANNOUNCED_FOR_S:.0f} s"
                self._faults.note(_COMPONENT, "unit_did_not_come", detail)

    def _keep_interval(self, line: Line, interval_ms: float, now_ns: int, is_open: bool) -> None:
        if not is_open:
            self._next_ns.pop(line.name, None)
            return
        due_ns = self._next_ns.get(line.name, now_ns)
        if now_ns >= due_ns:
            line.bear(None, None, now_ns)
            due_ns = max(due_ns + int(interval_ms * NS_PER_MS), now_ns)
        self._next_ns[line.name] = due_ns

    def _obey(self, payload: bytes, now_ns: int, open_for_units: bool) -> None:
        try:
            command = read_unit_command(payload)
            line = self._line(command)
        except ValueError as error:
            self._faults.begin(_COMPONENT, "bad_message", str(error))
            return
        self._faults.end(_COMPONENT, "bad_message", "a good one has come")
        if command.id in self._ids:
            return
        self._ids[command.id] = None
        if len(self._ids) > _IDS_KEPT:
            self._ids.popitem(last=False)
        trouble = self._trouble(command, line)
        if trouble is not None:
            line.refuse_birth(command.unit_id, command.position, trouble)
        elif line.commanded and open_for_units:
            line.bear(command.unit_id, command.position, now_ns)
        elif line.commanded:
            not_open = refuse("camera_lost", "the station was not ready when the message came")
            line.refuse_birth(command.unit_id, command.position, not_open)
        elif not line.announced.add(command.unit_id, command.position, now_ns, ANNOUNCED_FOR_S):
            detail = f"unit {command.unit_id}: more units were announced than came"
            self._faults.note(_COMPONENT, "too_many_announced", detail)

    def _line(self, command: UnitCommand) -> Line:
        names = ", ".join(sorted(self._lines))
        if command.unit is None:
            if len(self._lines) > 1:
                raise ValueError(f"unit: is missing; this station has {names}")
            return next(iter(self._lines.values()))
        line = self._lines.get(command.unit)
        if line is None:
            raise ValueError(f"unit: got {command.unit!r}, expected one of {names}")
        return line

    def _trouble(self, command: UnitCommand, line: Line) -> Judgement | None:
        if line.ended:
            return refuse("camera_lost", "the camera has no more pictures")
        if command.recipe is not None and command.recipe != self._recipe.name:
            return refuse("wrong_recipe", f"the message says {command.recipe}, this station has {self._recipe.name}")
        age_s = (utc_now() - command.sent_at).total_seconds() if command.sent_at is not None else 0.0
        if age_s > OLD_AFTER_S:
            return refuse("deadline_exceeded", f"the message is {age_s:.1f} s old: another unit is there by now")
        return None
