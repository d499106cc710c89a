"""Holds what an MES received against what the station has on disk, and both against the invariants."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from support.collector import Collector, Event, wall_time_s

PENDING, DELIVERED, DEAD = 0, 1, 2
_GOOD = ("passed", "failed")
_NEVER_IN_THE_LOG = ("Traceback (most recent call last)", "no progress in", "does not end")
_STOPPED = re.compile(r"stopped: (\d+) units: (\d+) passed, (\d+) failed, (\d+) errors")


@dataclass(frozen=True)
class Stored:
    """One row of outbox.db. `settled_s` is when it was acknowledged, in seconds since 1970."""

    event: Event
    state: int
    settled_s: float | None


@dataclass
class Audit:
    """`problems` is empty if every invariant holds."""

    verdicts: Counter[str]
    reasons: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    copies: int = 0
    lost_in_broker: int = 0
    explained_by_gap: int = 0

    @property
    def units(self) -> int:
        """How many have a verdict."""
        return sum(self.verdicts.values())

    def figure(self) -> str:
        """For the report."""
        counts = " + ".join(f"{count} {verdict}" for verdict, count in sorted(self.verdicts.items()))
        if self.reasons:
            counts += f" ({', '.join(f'{count} {reason}' for reason, count in self.reasons.most_common())})"
        extras = [f"{self.copies} sent twice"] if self.copies else []
        extras += [f"{self.lost_in_broker} acknowledged and lost by the broker"] if self.lost_in_broker else []
        extras += [f"{self.explained_by_gap} told by evt/gap"] if self.explained_by_gap else []
        return ", ".join([f"{self.units} units = {counts}", *extras])


def read_outbox(path: Path) -> list[Stored]:
    """All rows, in order of acceptance. The daemon may run or have been killed."""
    with closing(sqlite3.connect(str(path), timeout=10)) as database:
        rows = database.execute(
            "SELECT payload, state, settled_ns FROM events JOIN payloads USING (row_id) ORDER BY row_id"
        ).fetchall()
    return [Stored(json.loads(payload), state, None if ns is None else ns / 1e9) for payload, state, ns in rows]


def audit(
    collector: Collector,
    outbox: Path,
    log: str,
    expected_units: Sequence[str] | None,
    broker_killed_s: Iterable[float] = (),
    free_run: bool = False,
) -> Audit:
    """Check every invariant on one station after its end. *expected_units* are the unit ids that must have exactly
    one verdict each; None if pictures were shown more than once. *broker_killed_s*: when the broker was killed, since
    it forgets what it acknowledged in its last second. *free_run*: frames may be dropped, so that triggers are no
    measure."""
    stored = read_outbox(outbox)
    inspections = [row.event for row in stored if _stream(row.event) == "inspection"]
    result = Audit(
        Counter(event["verdict"] for event in inspections),
        Counter(event["error"] for event in inspections if event["error"]),
        copies=collector.copies,
    )
    problems = result.problems
    problems += _delivery(collector, stored, list(broker_killed_s), result)
    problems += _identities(stored)
    problems += _sequences([row.event for row in stored], result)
    problems += [] if free_run else [*_triggers(inspections), *_tallies(log, inspections)]
    problems += _units(inspections, expected_units) if expected_units is not None else []
    problems += _faults(stored)
    problems += [f"in the log: {text}" for text in _NEVER_IN_THE_LOG if text in log]
    return result


def outage_s(inspections: Sequence[Event], since_s: float) -> float:
    """The longest time without a unit passed or failed, from *since_s* (time.time) on."""
    good = sorted(wall_time_s(event["ended_at"]) for event in inspections if event["verdict"] in _GOOD)
    return max((later - earlier for earlier, later in zip(good, good[1:]) if later > since_s), default=float("inf"))


def _stream(event: Mapping[str, Any]) -> str:
    return str(event["schema"].partition("/")[0].rpartition(".")[2])


def _delivery(collector: Collector, stored: list[Stored], killed_s: list[float], result: Audit) -> list[str]:
    """Everything on disk arrived, and nothing else did."""
    problems = []
    on_disk = {row.event["id"]: row for row in stored}
    invented = [event_id for event_id in collector.events if event_id not in on_disk]
    if invented:
        problems.append(f"{len(invented)} events were published that are not on disk")
    for event_id, row in on_disk.items():
        if event_id in collector.events:
            if collector.events[event_id] != row.event:
                problems.append(f"{event_id} differs between disk and wire")
        elif row.state == DELIVERED and any(-4 < (row.settled_s or 0) - at_s < 1 for at_s in killed_s):
            result.lost_in_broker += 1
        else:
            problems.append(f"{_stream(row.event)} seq {row.event['seq']} (state {row.state}) never arrived")
    waiting = sum(row.state == PENDING for row in stored)
    if waiting:
        problems.append(f"{waiting} events are still to be delivered")
    if collector.changed_copies:
        problems.append(f"{len(collector.changed_copies)} events changed when they were sent again")
    if not killed_s and not collector.copies:
        problems += _order(collector)
    return problems


def _order(collector: Collector) -> list[str]:
    seqs = [event["seq"] for event in collector.inspections]
    return [] if seqs == sorted(seqs) else ["events arrived out of order though nothing was sent twice"]


def _identities(stored: list[Stored]) -> list[str]:
    ids = Counter(row.event["id"] for row in stored)
    return [f"id {event_id} stands {count} times on disk" for event_id, count in ids.items() if count > 1]


def _sequences(events: list[Event], result: Audit) -> list[str]:
    """seq is 1..N for each epoch and stream, or a gap event covers the hole."""
    seqs: dict[tuple[str, str], list[int]] = defaultdict(list)
    covered: dict[tuple[str, str], set[int]] = defaultdict(set)
    for event in events:
        seqs[event["epoch"], _stream(event)].append(event["seq"])
        if _stream(event) == "gap":
            lost = {seq for first, last in event["ranges"] for seq in range(first, last + 1)}
            covered[event["epoch"], event["of_stream"]] |= lost
    problems = []
    for (epoch, stream), numbers in seqs.items():
        if len(set(numbers)) != len(numbers):
            problems.append(f"{stream}: a seq was given twice")
        holes = set(range(1, max(numbers) + 1)) - set(numbers)
        explained = covered[epoch, stream]
        result.explained_by_gap += len(holes & explained)
        if holes - explained:
            problems.append(f"{stream}: seq {sorted(holes - explained)[:5]} missing and told by no gap")
    return problems


def _triggers(inspections: list[Event]) -> list[str]:
    """Per camera, every trigger from 1 to N has exactly one verdict."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for event in inspections:
        numbers[event["frame"]["camera"]].append(event["frame"]["trigger"])
    problems = []
    for camera, triggers in numbers.items():
        counts = Counter(triggers)
        twice = sorted(number for number, count in counts.items() if count > 1)
        missing = sorted(set(range(1, max(triggers) + 1)) - set(triggers))
        problems += [f"camera {camera}: triggers {twice[:5]} have more than one verdict"] if twice else []
        problems += [f"camera {camera}: triggers {missing[:5]} have no verdict"] if missing else []
    return problems


def _units(inspections: list[Event], expected: Sequence[str]) -> list[str]:
    seen, wanted = Counter(event["unit_id"] for event in inspections), Counter(expected)
    if seen == wanted:
        return []
    missing, extra = wanted - seen, seen - wanted
    return [f"{sum(missing.values())} pictures without a verdict, {sum(extra.values())} verdicts too many: "
            f"{[*missing, *extra][:5]}"]  # fmt: skip


def _tallies(log: str, inspections: list[Event]) -> list[str]:
    """Where a daemon could say goodbye, the triggers it counted are the verdicts on disk of its start."""
    boots = list(dict.fromkeys(event["boot_id"] for event in inspections))
    farewells = [found for found in _STOPPED.findall(log) if found[0] != "0"]  # ended before its first unit
    if not farewells or not boots:
        return []
    triggers, passed, failed, errors = (int(text) for text in farewells[-1])
    verdicts = Counter(event["verdict"] for event in inspections if event["boot_id"] == boots[-1])
    told = (triggers, passed, failed, errors)
    found = (sum(verdicts.values()), verdicts["passed"], verdicts["failed"], verdicts["error"])
    return [] if told == found else [f"the daemon counted {told} (triggers, passed, failed, error), on disk: {found}"]


def _faults(stored: list[Stored]) -> list[str]:
    """What was raised was cleared, unless the daemon that raised it is gone."""
    events = [row.event for row in stored if _stream(row.event) == "fault"]
    last_boot = stored[-1].event["boot_id"] if stored else ""
    active = {}
    for event in events:
        key = event["component"], event["code"]
        if event["state"] == "raised" and event["boot_id"] == last_boot:
            active[key] = event
        elif event["state"] == "cleared":
            active.pop(key, None)
    return [f"{component}: {code} was never cleared" for component, code in active]
