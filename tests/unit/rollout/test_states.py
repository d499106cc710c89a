from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.rollout.states import (
    CANCELLABLE,
    EDGES,
    FINAL,
    MAX_ATTEMPTS,
    MAX_TRANSITIONS,
    RESTART,
    State,
    after_restart,
    end_for,
    may_move,
    mermaid,
)

STRAIGHT = [
    State.RECEIVED, State.DOWNLOADING, State.VERIFYING, State.STAGED, State.BUILDING, State.LOADING, State.WARMING,
    State.GOLDEN, State.SHADOW, State.SWITCHING, State.PROBATION, State.COMMITTED,
]  # fmt: skip
UNDER_WAY = [state for state in State if state not in FINAL]


def reachable(start: State) -> set[State]:
    found, waiting = {start}, [start]
    while waiting:
        following = set(EDGES[waiting.pop()]) - found
        found |= following
        waiting += following
    return found


def test_the_straight_way_is_in_the_table_and_leaves_room_below_the_cap():
    assert all(may_move(a, b) for a, b in zip(STRAIGHT, STRAIGHT[1:]))
    assert len(STRAIGHT) - 1 < MAX_TRANSITIONS / 2


def test_no_step_is_skipped_on_the_way_to_a_commit():
    for a in STRAIGHT[2:]:  # a rollback needs no download, nothing else
        beyond = STRAIGHT[STRAIGHT.index(a) + 2 :]
        assert not [b for b in EDGES[a] if b in beyond]


def test_final_states_are_final_and_every_other_can_end():
    assert {state.value for state in FINAL} == {"committed", "rejected", "failed", "rolled_back", "cancelled"}
    for state in UNDER_WAY:
        assert reachable(state) & FINAL
    assert reachable(State.RECEIVED) == set(State)


def test_only_probation_leads_to_a_commit():
    assert [a for a in State if may_move(a, State.COMMITTED)] == [State.PROBATION]


def test_a_rollout_can_be_cancelled_until_it_switches():
    assert sorted(CANCELLABLE, key=STRAIGHT.index) == STRAIGHT[: STRAIGHT.index(State.SWITCHING)]


def test_a_failure_ends_where_the_line_is_told_the_truth():
    assert end_for(State.RECEIVED) is State.REJECTED
    assert {end_for(state) for state in STRAIGHT[1:9]} == {State.FAILED}
    for state in (State.SWITCHING, State.PROBATION, State.ROLLING_BACK):
        assert end_for(state) is State.ROLLED_BACK
    for state in UNDER_WAY:
        assert may_move(state, end_for(state))
    for state in FINAL:
        assert end_for(state) is state


def test_every_state_under_way_has_a_restart_rule_along_its_edges():
    assert set(RESTART) == set(UNDER_WAY)
    for state, rule in RESTART.items():
        assert may_move(state, rule.resume_at)
        assert may_move(state, rule.after_clean_stop) or rule.after_clean_stop is state


@pytest.mark.parametrize(
    ("state", "crashed", "stopped"),
    [
        ("received", ("downloading", 1, ""), ("downloading", 1, "")),
        ("downloading", ("downloading", 1, ""), ("downloading", 1, "")),
        ("verifying", ("verifying", 1, ""), ("verifying", 1, "")),
        ("staged", ("staged", 1, ""), ("staged", 1, "")),
        ("building", ("building", 2, ""), ("building", 1, "")),
        ("loading", ("building", 2, ""), ("building", 1, "")),
        ("warming", ("building", 2, ""), ("building", 1, "")),
        ("golden", ("building", 2, ""), ("building", 1, "")),
        ("shadow", ("building", 2, ""), ("building", 1, "")),
        ("switching", ("rolled_back", 1, "crash"), ("building", 1, "")),
        ("probation", ("rolled_back", 1, "crash"), ("building", 1, "")),
        ("rolling_back", ("rolled_back", 1, "crash"), ("rolled_back", 1, "")),
        ("committed", ("committed", 1, ""), ("committed", 1, "")),
        ("failed", ("failed", 1, ""), ("failed", 1, "")),
    ],
)
def test_where_a_rollout_goes_on_after_a_crash_and_after_a_stop(state, crashed, stopped):
    assert after_restart(State(state), 1, 5, clean=False) == crashed
    assert after_restart(State(state), 1, 5, clean=True) == stopped


def test_a_second_crash_while_the_candidate_is_built_or_proved_ends_the_rollout():
    for state in (State.BUILDING, State.LOADING, State.WARMING, State.GOLDEN, State.SHADOW):
        assert after_restart(state, MAX_ATTEMPTS, 9, clean=False) == (State.FAILED, MAX_ATTEMPTS, "attempts")
        assert after_restart(state, MAX_ATTEMPTS, 9, clean=True) == (State.BUILDING, MAX_ATTEMPTS, "")


@pytest.mark.parametrize("clean", [False, True])
def test_too_many_transitions_end_the_rollout_whatever_the_state(clean):
    for state in UNDER_WAY:
        assert after_restart(state, 1, MAX_TRANSITIONS, clean=clean) == (end_for(state), 1, "transitions")
    assert after_restart(State.COMMITTED, 1, MAX_TRANSITIONS, clean=clean) == (State.COMMITTED, 1, "")


@given(st.sampled_from(UNDER_WAY), st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_crashes_without_end_end_the_rollout(state, history):
    attempts, transitions = 1, 0
    for clean, steps in [*history, *[(False, 0)] * (MAX_TRANSITIONS + 1)]:
        for _ in range(steps):  # as far as it comes before the next restart
            ahead = [b for b in EDGES[state] if b in STRAIGHT and STRAIGHT.index(b) > STRAIGHT.index(state)]
            if not ahead or transitions >= MAX_TRANSITIONS:
                break
            state, transitions = ahead[0], transitions + 1
        before = state
        state, attempts, _ = after_restart(state, attempts, transitions, clean=clean)
        transitions += state is not before or (not clean and before not in FINAL)
        assert transitions <= MAX_TRANSITIONS + 1 and attempts <= MAX_ATTEMPTS
    assert state in FINAL


def test_the_diagram_shows_every_edge_of_the_table():
    drawn = re.findall(r"^    (\w+) --> (\w+)", mermaid(), re.MULTILINE)
    for state, sources in re.findall(r"note right of (\w+) : from (.+)", mermaid()):
        drawn += [(source, state) for source in sources.split(", ")]
    assert sorted(drawn) == sorted((a.value, b.value) for a in State for b in EDGES[a])
    assert mermaid().startswith("stateDiagram-v2\n    [*] --> received\n")
    assert set(re.findall(r"^    (\w+) --> \[\*\]$", mermaid(), re.MULTILINE)) == {state.value for state in FINAL}


def test_the_diagram_says_what_only_a_restart_does():
    assert "    probation --> building : after a stop\n" in mermaid()
    assert "    probation --> rolled_back : after a crash\n" in mermaid()
    assert "    shadow --> building : after a restart\n" in mermaid()
    assert "    shadow --> switching\n" in mermaid() and "    rolling_back --> rolled_back\n" in mermaid()
