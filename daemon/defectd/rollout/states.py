"""The states of a rollout, which may follow which, and where each goes on after a restart. One table, no I/O."""

from __future__ import annotations

from enum import Enum
from typing import Mapping, NamedTuple


class State(str, Enum):
    """Where a rollout is; the values are the words on the wire and on disk."""

    RECEIVED = "received"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    STAGED = "staged"
    BUILDING = "building"
    LOADING = "loading"
    WARMING = "warming"
    GOLDEN = "golden"
    SHADOW = "shadow"
    SWITCHING = "switching"
    PROBATION = "probation"
    COMMITTED = "committed"
    ROLLING_BACK = "rolling_back"
    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"


_UNDER_WAY = {
    State.RECEIVED: (State.DOWNLOADING, State.VERIFYING, State.REJECTED, State.CANCELLED),
    State.DOWNLOADING: (State.DOWNLOADING, State.VERIFYING, State.FAILED, State.CANCELLED),
    State.VERIFYING: (State.VERIFYING, State.STAGED, State.FAILED, State.CANCELLED),
    State.STAGED: (State.STAGED, State.BUILDING, State.FAILED, State.CANCELLED),
    State.BUILDING: (State.BUILDING, State.LOADING, State.FAILED, State.CANCELLED),
    State.LOADING: (State.BUILDING, State.WARMING, State.FAILED, State.CANCELLED),
    State.WARMING: (State.BUILDING, State.GOLDEN, State.FAILED, State.CANCELLED),
    State.GOLDEN: (State.BUILDING, State.SHADOW, State.FAILED, State.CANCELLED),
    State.SHADOW: (State.BUILDING, State.SWITCHING, State.FAILED, State.CANCELLED),
    State.SWITCHING: (State.BUILDING, State.PROBATION, State.ROLLING_BACK, State.ROLLED_BACK),
    State.PROBATION: (State.BUILDING, State.COMMITTED, State.ROLLING_BACK, State.ROLLED_BACK),
    State.ROLLING_BACK: (State.ROLLED_BACK,),
}

EDGES: Mapping[State, tuple[State, ...]] = {state: _UNDER_WAY.get(state, ()) for state in State}
"""What may follow what; a state that may follow itself is begun anew after a crash."""

FINAL: frozenset[State] = frozenset(state for state in State if not EDGES[state])
CANCELLABLE: frozenset[State] = frozenset(state for state in State if State.CANCELLED in EDGES[state])


class RestartRule(NamedTuple):
    """Where a rollout goes on that a crash interrupted, whether that costs an attempt, and where it goes on after a
    clean stop, which never costs one."""

    resume_at: State
    counts_attempt: bool
    after_clean_stop: State


RESTART: Mapping[State, RestartRule] = {
    State.RECEIVED: RestartRule(State.DOWNLOADING, False, State.DOWNLOADING),
    State.DOWNLOADING: RestartRule(State.DOWNLOADING, False, State.DOWNLOADING),
    State.VERIFYING: RestartRule(State.VERIFYING, False, State.VERIFYING),
    State.STAGED: RestartRule(State.STAGED, False, State.STAGED),
    State.BUILDING: RestartRule(State.BUILDING, True, State.BUILDING),
    State.LOADING: RestartRule(State.BUILDING, True, State.BUILDING),
    State.WARMING: RestartRule(State.BUILDING, True, State.BUILDING),
    State.GOLDEN: RestartRule(State.BUILDING, True, State.BUILDING),
    State.SHADOW: RestartRule(State.BUILDING, True, State.BUILDING),
    State.SWITCHING: RestartRule(State.ROLLED_BACK, False, State.BUILDING),
    State.PROBATION: RestartRule(State.ROLLED_BACK, False, State.BUILDING),
    State.ROLLING_BACK: RestartRule(State.ROLLED_BACK, False, State.ROLLED_BACK),
}

MAX_TRANSITIONS = 30
"""Of one rollout; the straight way takes eleven. It bounds how often a crash can begin the same state anew."""
MAX_ATTEMPTS = 2
"""To build, load and prove the candidate. The first is number 1."""

_SWITCHED = (State.SWITCHING, State.PROBATION, State.ROLLING_BACK)


def may_move(a: State, b: State) -> bool:
    """Whether *b* may follow *a*."""
    return b in EDGES[a]


def end_for(state: State) -> State:
    """The final state that a failure in *state* leads to; a final state is its own."""
    if state in FINAL:
        return state
    if state is State.RECEIVED:
        return State.REJECTED
    return State.ROLLED_BACK if state in _SWITCHED else State.FAILED


def after_restart(state: State, attempts: int, transitions: int, *, clean: bool) -> tuple[State, int, str]:
    """Where a rollout goes on that was found in *state*, its attempts then, and why if that is its end: `crash`,
    `attempts` or `transitions`, else empty. *clean*: the last process was stopped, it did not crash."""
    if state in FINAL:
        return state, attempts, ""
    if transitions >= MAX_TRANSITIONS:
        return end_for(state), attempts, "transitions"
    rule = RESTART[state]
    if clean:
        return rule.after_clean_stop, attempts, ""
    if not rule.counts_attempt:
        return rule.resume_at, attempts, "crash" if rule.resume_at in FINAL else ""
    if attempts >= MAX_ATTEMPTS:
        return end_for(state), attempts, "attempts"
    return rule.resume_at, attempts + 1, ""


def mermaid() -> str:
    """The table as a Mermaid `stateDiagram-v2`. Where failures and cancellations come from is said in notes: their
    arrows would hide the others."""
    noted = (State.FAILED, State.CANCELLED)
    lines = ["stateDiagram-v2", f"    [*] --> {State.RECEIVED.value}"]
    for a in State:
        lines += [f"    {a.value} --> {b.value}{_occasion(a, b)}" for b in EDGES[a] if b not in noted]
    lines += [f"    {state.value} --> [*]" for state in State if state in FINAL]
    for state in noted:
        sources = ", ".join(a.value for a in State if state in EDGES[a])
        lines.append(f"    note right of {state.value} : from {sources}")
    return "\n".join(lines) + "\n"


def _occasion(a: State, b: State) -> str:
    """Of a step that only a restart, or a rollback to a bundle that is here, makes."""
    if (a, b) == (State.RECEIVED, State.VERIFYING):
        return " : rollback"
    order = list(State)
    if len(EDGES[a]) == 1 or (b not in FINAL and order.index(b) > order.index(a)):
        return ""
    crashed, stopped = b is RESTART[a].resume_at, b is RESTART[a].after_clean_stop and a is not b
    if crashed and stopped:
        return " : after a restart"
    return " : after a crash" if crashed else " : after a stop" if stopped else ""
