"""One cell of the fault grid: a rollout on a real station that is struck in one state, and what must hold after it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Mapping

from defectd.clock import utc_now
from defectd.models.bundle import open_bundle
from defectd.models.store import Store
from defectd.models.trust import read_root
from defectd.rollout.injection import FAULT, HANG_S, KINDS, ONCE
from defectd.rollout.ledger import Floors, Ledger, Step
from defectd.rollout.starts import clean_stop
from defectd.rollout.states import FINAL, MAX_ATTEMPTS, MAX_TRANSITIONS, RESTART, State, end_for
from defectd.rollout.steps import STEPS
from support.audit import audit
from support.coded_pictures import misjudged
from support.collector import wall_time_s
from support.models import Convolving
from support.proving import Short
from support.rolling import QUICK, Rolling, rolling
from support.signed import tiny_bundle
from support.station import RESTART_S, DaemonProcess

_UNITS, _RATE_HZ = 3600, 20.0
_UNITS_BEFORE, _UNITS_AFTER = 15, 10
_WITHIN_S = 150.0
_HANG_S = "3"
_SEEDED_SEQ = 7
_MAX_DEATHS = 1  # each cell has one strike
_RECORD = re.compile(r"^(?=\d\d:\d\d:\d\d )", re.MULTILINE)
_ASKED_FOR = "RuntimeError: a fault that was asked for\n"
FROM_OUTSIDE = ("daemon", "engines")
"""Kinds of strikes beside injection's."""
UNDER_WAY = tuple(RESTART)
"""All states in which a rollout can be struck."""
_WITHOUT_A_CANDIDATE = list(STEPS)[: list(STEPS).index(State.WARMING)]


@dataclass(frozen=True)
class Bundles:
    """Made once for all cells: what the stations serve, and what they are to serve."""

    old: Path
    new: Path

    @classmethod
    def made_in(cls, directory: Path) -> Bundles:
        """Two networks of other bytes, which judge alike."""
        return cls(
            tiny_bundle(directory / "old", seq=1, version="1"),
            tiny_bundle(directory / "new", seq=2, version="2", scripted=Convolving()),
        )


@dataclass(frozen=True)
class Cell:
    """Where a rollout is struck, and how: by the daemon itself, on entering *state*; or from outside, by SIGKILL of
    the `daemon` or of all `engines`, so long after. *back*: one that a rollback command begins."""

    state: State
    kind: str
    back: bool = False
    after_s: float = 0.0

    def __str__(self) -> str:
        later = f"-{self.after_s:.2f}s" if self.kind in FROM_OUTSIDE else ""
        return f"{self.state.value}-{self.kind}{later}{'-back' if self.back else ''}"

    @property
    def ends(self) -> tuple[State, ...]:
        """What the table of states promises: a crash or a hang goes on or goes back, a failure ends it, and without
        its engines a rollout ends as soon as it needs one of its own. From outside the state is not known so well."""
        if self.kind == "daemon":
            return (State.COMMITTED, State.ROLLED_BACK)
        if self.kind == "engines":
            return (State.COMMITTED, State.FAILED, State.ROLLED_BACK)
        if self.kind in ("kill", "hang"):
            resume_at = RESTART[self.state].resume_at
            return (resume_at if resume_at in FINAL else State.COMMITTED,)
        if self.kind == "worker" and self.state in _WITHOUT_A_CANDIDATE:
            return (State.COMMITTED,)
        return (end_for(self.state),)


@dataclass
class Seen:
    """What became of a cell; it is broken if there are problems."""

    cell: Cell
    end: str = "-"
    code: str = ""
    attempts: int = 0
    deaths: int = 0
    units: int = 0
    took_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For a report."""
        told = f"{self.cell}: {self.end} {self.code}".rstrip()
        return f"{told}: {'; '.join(self.problems)}" if self.problems else told


def run_cell(directory: Path, cell: Cell, bundles: Bundles) -> Seen:
    """A rollout from command to final state, struck once, restarted as systemd does. Never raises for what the
    daemon does: that is a problem of the cell."""
    seen, started_s = Seen(cell), time.monotonic()
    try:
        with rolling(directory, _UNITS, _RATE_HZ, factory=bundles.old, started=False) as station:
            _Run(station, seen, bundles, directory).go()
    except Exception as error:  # noqa: BLE001 - one cell must not end the others
        seen.problems.append(f"{type(error).__name__}: {error}")
    seen.took_s = time.monotonic() - started_s
    return seen


class _Run:
    def __init__(self, station: Rolling, seen: Seen, bundles: Bundles, directory: Path) -> None:
        self.station, self.seen = station, seen
        self.struck = directory / "struck"
        self.new = Path(shutil.copytree(bundles.new, station.usb / "new"))
        self.models = directory / "state" / "models"
        self.floors = [Floors(0, 0, 0)]
        self.cell = seen.cell
        extra = {ONCE: str(self.struck)}
        if self.cell.kind in KINDS:
            extra[FAULT] = f"{self.cell.state.value}:{self.cell.kind}"
        if self.cell.kind == "hang":
            extra[HANG_S] = _HANG_S
        station.here.daemon = self.daemon = DaemonProcess(station.here.daemon.config, **extra)
        self.old_sha256 = _seed(self.models, bundles, station.root, back=self.cell.back)
        station.seq = _SEEDED_SEQ

    def go(self) -> None:
        try:
            self.daemon.start()
            self.daemon.wait_ready()
            self._await(lambda: len(self.station.here.collector.inspections) >= _UNITS_BEFORE, "units before it")
            self._roll()
            ended_s = time.time()
            self._await(lambda: self.station.here.collector.good_since(ended_s) >= _UNITS_AFTER, "units after its end")
            self.station.here.terminate()
        finally:
            self.daemon.end()
        self._judge(ended_s)

    def _roll(self) -> None:
        """Send it, and keep the station alive until it has ended."""
        goes_back = self.cell.state is State.ROLLING_BACK
        policy = {**QUICK, "probation_units": 1_000_000} if goes_back else QUICK
        if self.cell.back:
            request = self.station.send(action="rollback", policy=policy)
        else:
            request = self.station.send(self.new, policy=policy)
        if goes_back:
            self._await(lambda: self.station.rollout(request).get("state") == "probation", "probation")
            self.station.send(action="rollback", of=request)
        if self.cell.kind in FROM_OUTSIDE:
            self._strike(request)
        self._await(lambda: self.station.rollout(request).get("finished"), f"the end of {request}")
        found = self.station.rollout(request)
        self.seen.end, self.seen.code, self.seen.attempts = found["state"], found["code"], found["attempts"]

    def _strike(self, request: str) -> None:
        """From outside, in that state or a little later."""
        there = {state.value for state in (*UNDER_WAY[UNDER_WAY.index(self.cell.state) :], *FINAL)}
        self._await(
            lambda: self.station.rollout(request).get("state") in there, f"{request} is {self.cell.state.value}"
        )
        time.sleep(self.cell.after_s)
        if self.cell.kind == "daemon":
            self.daemon.kill()
        else:
            for pid in self.daemon.workers("engine"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.struck.touch()

    def _await(self, true: Callable[[], object], what: str) -> None:
        """Until *true*; restarts a daemon that has died, and listens to what the station says of its floors."""
        give_up_s = time.monotonic() + _WITHIN_S
        while not true():
            if time.monotonic() > give_up_s:
                raise Short(f"not within {_WITHIN_S:.0f} s: {what}; {self._last_words()}")
            if self.daemon.exit_code is not None:
                self._restart()
            told = self.station.reported
            if told and "rollout" in told:
                self.floors.append(Floors(told["floor_release_seq"], told["floor_command_seq"], 0))
            time.sleep(0.05)

    def _restart(self) -> None:
        self.seen.deaths += 1
        if self.seen.deaths > _MAX_DEATHS:
            raise Short(f"the daemon died again, with {self.daemon.exit_code}; {self._last_words()}")
        self.daemon.kill()  # its workers must go with it
        time.sleep(RESTART_S)
        self.daemon.start()
        self.daemon.wait_ready()

    def _last_words(self) -> str:
        rollout = self.station.reported.get("rollout") or {}
        told = {key: rollout.get(key) for key in ("request_id", "state", "code", "detail", "attempts", "waits_for")}
        return f"it said last: {told}; log: {self.daemon.log()[-1500:]}"

    # -- afterwards ------------------------------------------------------------------------------------------

    def _judge(self, ended_s: float) -> None:
        here, problems = self.station.here, self.seen.problems
        if not self.struck.exists():
            problems.append("the fault never struck")
        wanted = [state.value for state in self.cell.ends]
        if self.seen.end not in wanted:
            problems.append(f"expected {' or '.join(wanted)}; {self._last_words()}")
        if self.seen.deaths != (self.cell.kind in ("kill", "daemon")):
            problems.append(f"the daemon died {self.seen.deaths} times")
        log = "".join(record for record in _RECORD.split(here.daemon.log()) if _ASKED_FOR not in record)
        result = audit(here.collector, here.outbox, log, None)
        self.seen.units = result.units
        problems += result.problems
        problems += [told for told in map(misjudged, self._good(0.0)) if told][:5]
        problems += self._on_disk(ended_s)

    def _good(self, since_s: float) -> list[dict[str, object]]:
        """Units that a model passed or failed, captured after *since_s*."""
        return [
            event
            for event in self.station.here.collector.inspections
            if event["verdict"] in ("passed", "failed") and wall_time_s(event["started_at"]) > since_s
        ]

    def _on_disk(self, ended_s: float) -> list[str]:
        """Pointers, floors, states and every byte of the models, read by the daemon's own code."""
        store = Store(self.models)
        try:
            ledger = Ledger(store)
            pointers, rollout = store.pointers(), ledger.find(self.station.sent[0])
            assert rollout is not None
            steps, floors = ledger.steps(rollout.request_id), ledger.floors()
            for pointer, sha256 in pointers.items():
                release = store.release(sha256)
                assert release is not None, f"{pointer} names no release"
                open_bundle(release.directory, read_root(self.station.root), now=None)
        finally:
            store.close()
        committed = rollout.state is State.COMMITTED
        assert rollout.manifest_sha256 is not None
        current = rollout.manifest_sha256 if committed else self.old_sha256
        return [
            *self._models(current, rollout.manifest_sha256, steps, ended_s),
            *self._floors_kept(floors, release_seq=2 if committed else 1),
            *(
                []
                if pointers.get("current") == current
                else [f"{rollout.state.value}, but the pointers are {pointers}"]
            ),
            *(["there still is a candidate"] if "candidate" in pointers else []),
            *(["its end on disk is another one"] if rollout.state.value != self.seen.end else []),
            *([] if rollout.attempts <= MAX_ATTEMPTS else [f"{rollout.attempts} attempts"]),
            *([] if rollout.transitions <= MAX_TRANSITIONS else [f"{rollout.transitions} transitions"]),
        ]

    def _models(self, current: str, new: str, steps: list[Step], ended_s: float) -> list[str]:
        """Old or new, the new one only once every gate before it was passed, and in the end what is committed."""
        judges = {event["model"]["sha256"] for event in self._good(0.0)}  # type: ignore[index]
        after = {event["model"]["sha256"] for event in self._good(ended_s)}  # type: ignore[index]
        problems = [] if judges <= {self.old_sha256, new} else [f"units were judged by {judges}"]
        if after != {current}:
            problems.append(f"after its end units are judged by {after}, expected {current}")
        first_s = min(
            (wall_time_s(str(event["started_at"])) for event in self._good(0.0) if event["model"]["sha256"] == new),  # type: ignore[index]
            default=None,
        )
        switched_s = [step.at.timestamp() for step in steps if step.state is State.SWITCHING]
        if first_s is not None and not (switched_s and first_s > min(switched_s) - 1):
            problems.append("the new model judged a unit before it was switched to")
        return problems

    def _floors_kept(self, floors: Floors, release_seq: int) -> list[str]:
        told = [*self.floors, Floors(floors.release_seq, floors.command_seq, 0)]
        fallen = [
            (before, after)
            for before, after in zip(told[1:], told[2:])
            if after.release_seq < before.release_seq or after.command_seq < before.command_seq
        ]
        problems = [f"a floor fell: {fallen[0]}"] if fallen else []
        if (floors.release_seq, floors.command_seq) != (release_seq, self.station.seq) or not floors.signed_time:
            problems.append(f"{floors}, expected release {release_seq} and command {self.station.seq}")
        return problems


def _seed(models: Path, bundles: Bundles, root: Path, *, back: bool) -> str:
    """The store of a station that was rolled out to before, and stopped cleanly: the old bundle is committed, *back*
    in place of the new one, and there are floors that could fall. Returns the sha256 of its manifest."""
    old, new = (open_bundle(each, read_root(root), now=utc_now()) for each in (bundles.old, bundles.new))
    store = Store(models)
    try:
        ledger = Ledger(store)
        store.import_bundle(old, "factory")
        store.import_bundle(new if back else old, "current")
        for bundle in (old, new) if back else (old,):
            store.accept(bundle.manifest_sha256, bundle.signed_by)
        long_ago = datetime(2026, 5, 2, tzinfo=timezone.utc)
        rollout = ledger.begin("seeded", _SEEDED_SEQ, "deploy", b"{}", long_ago, old.manifest_sha256, 1)
        for state in list(STEPS)[1 : list(STEPS).index(State.PROBATION) + 1]:
            rollout = ledger.move(rollout, state)
        ledger.commit(rollout)
        clean_stop(store)
    finally:
        store.close()
    return old.manifest_sha256


def table(cells: Mapping[tuple[State, str], Seen]) -> str:
    """States down, kinds across; a cell that is broken is marked."""
    states = [state for state in UNDER_WAY if any(state is there for there, _ in cells)]
    rows = [[state.value, *(_entry(cells.get((state, kind))) for kind in KINDS)] for state in states]
    lines = [["", *KINDS], *rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines)


def _entry(seen: Seen | None) -> str:
    if seen is None:
        return "-"
    return f"{'BROKEN ' if seen.problems else ''}{seen.end}{f'/{seen.attempts}' if seen.attempts > 1 else ''}"
