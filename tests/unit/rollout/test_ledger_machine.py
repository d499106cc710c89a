"""Random rollouts on a real database, with the process killed between and within transactions."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from defectd.models.catalog import Catalog
from defectd.rollout.ledger import Busy, Floors, Ledger, Rollout
from defectd.rollout.starts import begin_start, clean_stop, start_is_good
from defectd.rollout.states import EDGES, FINAL, MAX_ATTEMPTS, MAX_TRANSITIONS, State, end_for

CREATED = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
BUNDLES = [f"{number:02x}" * 32 for number in range(1, 5)]


class Killed(BaseException):
    """The process ends here."""


class Mortal(Catalog):
    """Dies after `survives` more statements; what is on disk then is in `grave`."""

    survives: int | None = None
    grave: Path

    @contextmanager
    def transaction(self):
        with super().transaction() as change:
            yield change._replace(execute=self.unless_killed(change.execute), point=self.unless_killed(change.point))
            self.unless_killed(lambda: None)()  # before the transaction is committed

    def unless_killed(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*arguments):
            if self.survives == 0:
                shutil.copytree(str(self.directory), str(self.grave))
                raise Killed
            self.survives = None if self.survives is None else self.survives - 1
            return act(*arguments)

        return acting


class Rollouts(RuleBasedStateMachine):
    """A station with four bundles, of which the first is what it came with."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Path(tempfile.mkdtemp())
        self.lives = 0
        self.store = Mortal(self.home())
        with self.store.transaction() as change:
            for number, bundle in enumerate(BUNDLES, 1):
                change.execute(
                    "INSERT INTO releases VALUES (?, 'pcb', '1', ?, ?, '')", (bundle, number, f"{number}-{bundle[:12]}")
                )
            change.point("factory", BUNDLES[0])
            change.point("current", BUNDLES[0])
        self.now = CREATED
        self.committed, self.serves, self.proven = "", BUNDLES[0], {BUNDLES[0]}
        self.ended: dict[str, Rollout] = {}
        self.floors = Floors(0, 0, 0)
        self.known: list[str] = []

    def home(self) -> Path:
        """The directory of the store of this life."""
        path = self.room / str(self.lives)
        path.mkdir(exist_ok=True)
        return path

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store)

    def teardown(self) -> None:
        for _ in range(MAX_TRANSITIONS + 1):  # a station that only crashes comes to an end, too
            active = self.ledger.active()
            if active is not None:
                self.ledger.resume(active, clean=False)
        assert self.ledger.active() is None
        self.store.close()
        shutil.rmtree(str(self.room))

    def reborn(self, files: Path, clean: bool) -> None:
        """A new process finds *files* as they are; the old one closes nothing."""
        self.lives += 1
        shutil.copytree(str(files), str(self.room / str(self.lives)))
        self.store.close()  # the copy knows nothing of it
        self.store = Mortal(self.home())
        self.now += timedelta(seconds=20)
        self.what_was_committed_last_serves()
        decision = begin_start(self.store, self.now)
        assert decision.after_clean_stop == clean
        if decision.pointer != "current":
            assert decision.quarantined == self.serves
            self.serves = self.store.pointers()["current"]
            assert self.serves in self.proven
        active = self.ledger.active()
        if active is not None:
            resumed = self.ledger.resume(active, clean=clean)
            assert resumed.state in EDGES[active.state] or (clean and resumed == active)

    def mortal(self, survives: int | None, act: Callable[[], object]) -> None:
        """*act*, in the midst of which the process may be killed."""
        self.store.survives, self.store.grave = survives, self.room / f"grave-{self.lives}"
        try:
            act()
        except Killed:
            self.reborn(self.store.grave, clean=False)
        self.store.survives = None

    survival = st.one_of(st.none(), st.none(), st.integers(0, 9))

    @rule(bundle=st.sampled_from(BUNDLES), action=st.sampled_from(["deploy", "rollback"]), survives=survival)
    def begin(self, bundle: str, action: str, survives: int | None) -> None:
        busy = self.ledger.active() is not None
        name, seq = f"r-{len(self.known)}", len(self.known) + 1
        self.known.append(name)
        release_seq = BUNDLES.index(bundle) + 1

        def act() -> None:
            try:
                self.ledger.begin(name, seq, action, b"{}", self.now, bundle, release_seq)
                assert not busy
            except Busy:
                assert busy

        self.mortal(survives, act)

    @rule(data=st.data(), survives=survival)
    def go_on(self, data: st.DataObject, survives: int | None) -> None:
        rollout = self.ledger.active()
        if rollout is None:
            return
        choices = EDGES[rollout.state]
        onward = [each for each in choices if each not in FINAL and each is not rollout.state]
        state = data.draw(st.sampled_from([*onward, *onward, *onward, *choices]))
        if rollout.transitions >= MAX_TRANSITIONS and state is not State.ROLLING_BACK and state not in FINAL:
            state = end_for(rollout.state)
        reason = "bad" if state in (State.FAILED, State.ROLLED_BACK) else None

        def act() -> None:
            if state is State.COMMITTED:
                self.ledger.commit(rollout)
                return
            if state is State.BUILDING:
                with self.store.transaction() as change:
                    change.point("candidate", rollout.manifest_sha256)
            self.ledger.move(rollout, state, quarantine=reason)

        self.mortal(survives, act)

    @rule(bundle=st.sampled_from(BUNDLES), steps=st.integers(1, 14), survives=st.one_of(st.none(), st.integers(0, 50)))
    def go_well(self, bundle: str, steps: int, survives: int | None) -> None:
        """Straight on: random walks seldom come far."""
        if self.ledger.active() is None:
            self.begin(bundle, "deploy", None)
        states = list(State)

        def act() -> None:
            for _ in range(steps):
                rollout = self.ledger.active()
                if rollout is None or rollout.transitions >= MAX_TRANSITIONS or rollout.state is State.ROLLING_BACK:
                    return
                if rollout.state is State.PROBATION:
                    self.ledger.commit(rollout)
                else:
                    self.ledger.move(rollout, states[states.index(rollout.state) + 1])

        self.mortal(survives, act)

    @rule()
    def crash(self) -> None:
        self.reborn(self.home(), clean=False)

    @rule()
    def stop_and_start(self) -> None:
        clean_stop(self.store)
        self.reborn(self.home(), clean=True)

    @rule()
    def inspect_for_a_while(self) -> None:
        start_is_good(self.store)

    @rule(numbers=st.dictionaries(st.sampled_from(["units", "differ"]), st.integers(0, 300)), survives=survival)
    def measure(self, numbers: dict[str, int], survives: int | None) -> None:
        rollout = self.ledger.active()
        if rollout is not None:
            self.mortal(survives, lambda: self.ledger.keep_gate(rollout, "shadow", numbers))

    @invariant()
    def what_was_committed_last_serves(self) -> None:
        last = self.ledger.last()
        if last is not None and last.state is State.COMMITTED and last.request_id != self.committed:
            self.committed, self.serves = last.request_id, str(last.manifest_sha256)
            self.proven.add(self.serves)
        assert self.store.pointers()["current"] == self.serves

    @invariant()
    def floors_do_not_fall(self) -> None:
        floors = self.ledger.floors()
        assert floors.release_seq >= self.floors.release_seq
        assert floors.command_seq >= self.floors.command_seq
        assert floors.signed_time >= self.floors.signed_time
        committed = [one.release_seq for one in self.ledger.history() if one.state is State.COMMITTED]
        assert floors.release_seq == max([self.floors.release_seq, *committed])
        self.floors = floors

    @invariant()
    def what_is_final_stays_so(self) -> None:
        for rollout in self.ledger.history():
            assert self.ended.get(rollout.request_id, rollout) == rollout
            if rollout.state in FINAL:
                self.ended[rollout.request_id] = rollout

    @invariant()
    def nothing_is_without_bounds(self) -> None:
        for rollout in self.ledger.history():
            assert rollout.attempts <= MAX_ATTEMPTS and rollout.transitions <= MAX_TRANSITIONS + 2
        assert self.ledger.active() is not None or "candidate" not in self.store.pointers()

    @invariant()
    def the_steps_lead_to_the_state(self) -> None:
        rollout = self.ledger.last()
        if rollout is not None:
            steps = self.ledger.steps(rollout.request_id)
            assert [step.number for step in steps] == list(range(rollout.transitions + 1))
            assert [step.from_state for step in steps[1:]] == [step.state for step in steps[:-1]]
            assert steps[-1].state is rollout.state


def test_whenever_the_process_dies_a_proven_model_serves_and_every_rollout_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = settings(max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    run_state_machine_as_test(Rollouts, settings=run)
