from __future__ import annotations

import hashlib
import json
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from defectd.errors import ModelError, StateError
from defectd.models.store import Store
from defectd.rollout.ledger import KEPT_ROLLOUTS, Busy, Floors, Ledger, Rollout, Superseded, TooManyTransitions
from defectd.rollout.states import MAX_TRANSITIONS, State
from support.releases import small

CREATED = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
TO_PROBATION = [
    State.DOWNLOADING, State.VERIFYING, State.STAGED, State.BUILDING, State.LOADING, State.WARMING, State.GOLDEN,
    State.SHADOW, State.SWITCHING, State.PROBATION,
]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    with closing(Store(tmp_path / "models")) as store:
        yield store


@pytest.fixture
def ledger(store):
    return Ledger(store)


def imported(store: Store, directory: Path, seq: int, pointer=None) -> str:
    return store.import_bundle(small(directory / f"bundle-{seq}", seq), pointer).manifest_sha256


def begun(ledger: Ledger, name: str = "r-1", seq: int = 1, manifest: str | None = "ab" * 32, release_seq=5) -> Rollout:
    return ledger.begin(name, seq, "deploy", b"{the command}", CREATED, manifest, release_seq)


def brought_to(ledger: Ledger, rollout: Rollout, state: State) -> Rollout:
    for following in TO_PROBATION[: TO_PROBATION.index(state) + 1]:
        rollout = ledger.move(rollout, following)
    return rollout


def test_a_rollout_begins_with_its_command_and_raises_the_floors(ledger):
    assert ledger.active() is None and ledger.last() is None and ledger.floors() == Floors(0, 0, 0)
    rollout = begun(ledger, seq=7)
    assert rollout == ledger.active() == ledger.last() == ledger.find("r-1")
    assert (rollout.state, rollout.attempts, rollout.transitions, rollout.finished) == (State.RECEIVED, 1, 0, False)
    assert (rollout.command, rollout.command_sha256) == (b"{the command}", hashlib.sha256(b"{the command}").hexdigest())
    assert ledger.floors() == Floors(release_seq=0, command_seq=7, signed_time=int(CREATED.timestamp()))


def test_one_rollout_at_a_time_and_what_is_refused_changes_nothing(ledger):
    first = begun(ledger)
    with pytest.raises(Busy, match=r"r-1 is under way \(received\); cancel it, or wait"):
        begun(ledger, "r-2", seq=2)
    assert ledger.history() == [first] and ledger.floors().command_seq == 1
    ledger.move(first, State.CANCELLED, "operator")
    with pytest.raises(ValueError, match="r-1 was begun before"):
        begun(ledger, seq=3)
    assert begun(ledger, "r-2", seq=2).state is State.RECEIVED and ledger.floors().command_seq == 2


def test_every_transition_is_kept_with_its_reason(ledger):
    rollout = ledger.move(begun(ledger), State.DOWNLOADING)
    rollout = ledger.move(rollout, State.FAILED, "not_found", "the server has no such bundle")
    assert (rollout.state, rollout.code, rollout.finished, rollout.transitions) == (State.FAILED, "not_found", True, 2)
    steps = ledger.steps("r-1")
    assert [(step.number, step.from_state, step.state, step.code) for step in steps] == [
        (0, None, State.RECEIVED, ""),
        (1, State.RECEIVED, State.DOWNLOADING, ""),
        (2, State.DOWNLOADING, State.FAILED, "not_found"),
    ]
    assert steps[2].detail == "the server has no such bundle" and steps[2].at == rollout.changed_at
    assert ledger.active() is None and ledger.last() == rollout


def test_what_the_table_does_not_have_is_not_done(ledger):
    rollout = begun(ledger)
    with pytest.raises(ValueError, match="r-1: received is not followed by probation"):
        ledger.move(rollout, State.PROBATION)
    rollout = ledger.move(rollout, State.CANCELLED, "operator")
    with pytest.raises(ValueError, match="cancelled is not followed by downloading"):
        ledger.move(rollout, State.DOWNLOADING)
    assert ledger.last() == rollout


def test_who_has_read_an_older_state_is_told_so(ledger):
    rollout = begun(ledger)
    moved = ledger.move(rollout, State.DOWNLOADING)
    for late in (
        lambda: ledger.move(rollout, State.CANCELLED, "operator"),
        lambda: ledger.keep_gate(rollout, "golden", {"images": 3}),
    ):
        with pytest.raises(Superseded, match="r-1: has been moved since it was received; read it again"):
            late()
    assert ledger.active() == moved


def test_a_commit_moves_state_pointers_and_floor_at_once(store, ledger, tmp_path):
    old = imported(store, tmp_path, 1, "current")
    new = imported(store, tmp_path, 2, "candidate")
    rollout = brought_to(ledger, begun(ledger, manifest=new, release_seq=2), State.PROBATION)
    assert store.pointers() == {"current": old, "candidate": new}
    rollout = ledger.commit(rollout, "5012 units")
    assert (rollout.state, rollout.detail, rollout.finished) == (State.COMMITTED, "5012 units", True)
    assert store.pointers() == {"current": new, "previous": old} and ledger.floors().release_seq == 2
    with pytest.raises(ValueError, match="cannot be committed, it is committed"):
        ledger.commit(rollout)


def test_a_rollback_to_the_previous_bundle_does_not_lower_the_floor(store, ledger, tmp_path):
    old, new = imported(store, tmp_path, 1, "current"), imported(store, tmp_path, 2)
    ledger.commit(brought_to(ledger, begun(ledger, manifest=new, release_seq=2), State.PROBATION))
    back = ledger.begin("r-2", 2, "rollback", b"{}", CREATED, old, 1)
    ledger.commit(brought_to(ledger, back, State.PROBATION))
    assert store.pointers() == {"current": old, "previous": new} and ledger.floors().release_seq == 2


def test_committing_what_serves_already_keeps_the_previous_bundle(store, ledger, tmp_path):
    old, new = imported(store, tmp_path, 1, "previous"), imported(store, tmp_path, 2, "current")
    ledger.commit(brought_to(ledger, begun(ledger, manifest=new, release_seq=2), State.PROBATION))
    assert store.pointers() == {"current": new, "previous": old}


def test_a_bundle_that_is_not_in_the_store_cannot_be_committed(store, ledger, tmp_path):
    old = imported(store, tmp_path, 1, "current")
    rollout = brought_to(ledger, begun(ledger, manifest="ff" * 32), State.PROBATION)
    with pytest.raises(ModelError, match="current: the release ffff"):
        ledger.commit(rollout)
    assert ledger.active() == rollout and store.pointers() == {"current": old}
    assert ledger.floors().release_seq == 0


def test_only_probation_can_be_committed_and_only_by_commit(store, ledger, tmp_path):
    new = imported(store, tmp_path, 1)
    rollout = brought_to(ledger, begun(ledger, manifest=new), State.SWITCHING)
    with pytest.raises(ValueError, match="cannot be committed, it is switching"):
        ledger.commit(rollout)
    with pytest.raises(ValueError, match="probation is not followed by committed here"):
        ledger.move(ledger.move(rollout, State.PROBATION), State.COMMITTED)


def test_an_end_without_a_commit_clears_the_candidate(store, ledger, tmp_path):
    old, new = imported(store, tmp_path, 1, "current"), imported(store, tmp_path, 2, "candidate")
    rollout = brought_to(ledger, begun(ledger, manifest=new), State.SHADOW)
    assert store.pointers()["candidate"] == new
    ledger.move(rollout, State.CANCELLED, "operator")
    assert store.pointers() == {"current": old}


def test_a_bundle_that_failed_for_its_own_fault_is_put_into_quarantine_until_a_person_releases_it(ledger):
    rollout = brought_to(ledger, begun(ledger), State.GOLDEN)
    with pytest.raises(ValueError, match="building is no reason for a quarantine"):
        ledger.move(rollout, State.BUILDING, quarantine="why not")
    ledger.move(rollout, State.FAILED, "golden", "3 images differ", quarantine="misses 3 of 50 golden images")
    assert ledger.quarantined("ab" * 32) == ("golden", "misses 3 of 50 golden images")
    assert ledger.quarantined("cd" * 32) is None


def test_the_numbers_of_gates_are_kept_across_transitions(ledger):
    rollout = brought_to(ledger, begun(ledger), State.GOLDEN)
    rollout = ledger.keep_gate(rollout, "golden", {"images": 50, "differ": 0})
    rollout = ledger.keep_gate(ledger.move(rollout, State.SHADOW), "shadow", {"units": 12, "mcnemar_p": None})
    rollout = ledger.keep_gate(rollout, "shadow", {"units": 300, "mcnemar_p": 0.25})
    gates = {"golden": {"images": 50, "differ": 0}, "shadow": {"units": 300, "mcnemar_p": 0.25}}
    assert rollout.gates == ledger.active().gates == gates
    with pytest.raises(ValueError, match="not JSON compliant"):
        ledger.keep_gate(rollout, "shadow", {"mcnemar_p": float("nan")})
    assert json.loads(json.dumps(dict(ledger.active().gates))) == gates


def test_floors_never_fall(ledger):
    ledger.note_command("approve-9", "aa" * 32, 9, CREATED)
    ledger.note_command("approve-8", "bb" * 32, 8, CREATED - timedelta(days=1))
    ledger.raise_signed_time(CREATED - timedelta(days=400))
    assert ledger.floors() == Floors(0, 9, int(CREATED.timestamp()))
    ledger.raise_signed_time(CREATED + timedelta(hours=1))
    assert ledger.floors() == Floors(0, 9, int(CREATED.timestamp()) + 3600)


def test_after_a_crash_a_rollout_goes_on_as_the_table_says(ledger):
    rollout = ledger.resume(brought_to(ledger, begun(ledger), State.SHADOW), clean=False)
    assert (rollout.state, rollout.attempts, rollout.code) == (State.BUILDING, 2, "")
    rollout = ledger.resume(rollout, clean=False)
    assert (rollout.state, rollout.code) == (State.FAILED, "attempts")
    assert "ended unexpectedly twice while the new model was being built or proved" in rollout.detail
    assert ledger.resume(rollout, clean=False) == rollout


def test_a_crash_in_probation_rolls_back_and_a_clean_stop_proves_the_candidate_anew(ledger):
    rollout = ledger.resume(brought_to(ledger, begun(ledger), State.PROBATION), clean=True)
    assert (rollout.state, rollout.attempts) == (State.BUILDING, 1)
    rollout = ledger.move(brought_to_again(ledger, rollout), State.PROBATION)
    rollout = ledger.resume(rollout, clean=False)
    assert (rollout.state, rollout.code) == (State.ROLLED_BACK, "crash")
    assert "the model before it serves" in rollout.detail


def brought_to_again(ledger: Ledger, rollout: Rollout) -> Rollout:
    for state in (State.LOADING, State.WARMING, State.GOLDEN, State.SHADOW, State.SWITCHING):
        rollout = ledger.move(rollout, state)
    return rollout


def test_a_crash_on_the_way_back_does_not_hide_why_it_went_back(ledger):
    rollout = brought_to(ledger, begun(ledger), State.PROBATION)
    rollout = ledger.move(rollout, State.ROLLING_BACK, "slow", "p99 is 61 ms, 48 ms are allowed")
    rollout = ledger.resume(rollout, clean=False)
    assert (rollout.state, rollout.code, rollout.detail) == (
        State.ROLLED_BACK, "slow", "p99 is 61 ms, 48 ms are allowed",
    )  # fmt: skip


def test_to_go_on_after_a_clean_stop_where_it_was_is_no_transition(ledger):
    rollout = brought_to(ledger, begun(ledger), State.STAGED)
    assert ledger.resume(rollout, clean=True) == rollout == ledger.active()
    assert ledger.resume(rollout, clean=False).transitions == rollout.transitions + 1


def test_a_rollout_that_comes_to_no_end_is_ended(ledger):
    rollout = ledger.move(begun(ledger), State.DOWNLOADING)
    while rollout.transitions < MAX_TRANSITIONS:
        rollout = ledger.resume(rollout, clean=False)
    with pytest.raises(TooManyTransitions, match="begun anew too often: after 30 steps it is given up"):
        ledger.move(rollout, State.VERIFYING)
    rollout = ledger.resume(rollout, clean=True)
    assert (rollout.state, rollout.code) == (State.FAILED, "transitions")
    assert "after 30 steps it is given up; see the station's log of that time" in rollout.detail


def test_the_newest_hundred_are_kept_with_their_steps(store, ledger):
    for number in range(KEPT_ROLLOUTS + 5):
        last = ledger.move(begun(ledger, f"r-{number}", number + 1), State.REJECTED, "older")
    assert ledger.last() == last and [one.request_id for one in ledger.history(2)] == ["r-104", "r-103"]
    assert len(ledger.history(1000)) == KEPT_ROLLOUTS and ledger.find("r-4") is None and ledger.steps("r-4") == []
    assert store.rows("SELECT count(*) FROM rollout_steps") == [(2 * KEPT_ROLLOUTS,)]


def test_another_process_reads_the_same(store, ledger, tmp_path):
    rollout = ledger.move(begun(ledger), State.DOWNLOADING)
    with closing(Store(tmp_path / "models")) as other:
        assert Ledger(other).active() == rollout
        Ledger(other).move(rollout, State.CANCELLED, "operator")
    with pytest.raises(Superseded):
        ledger.move(rollout, State.VERIFYING)


def test_a_disk_that_takes_nothing_is_an_error_that_says_so(store, ledger):
    rollout = ledger.move(begun(ledger), State.DOWNLOADING)
    store.rows(f"PRAGMA max_page_count = {store.rows('PRAGMA page_count')[0][0]}")
    with pytest.raises(StateError, match="free some space on that disk"):
        ledger.move(rollout, State.FAILED, "unreachable", "x" * 100_000, quarantine="y")
    assert ledger.active() == rollout and ledger.quarantined("ab" * 32) is None
