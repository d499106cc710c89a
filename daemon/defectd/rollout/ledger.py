"""What is on disk of rollouts: their states, the floors that never fall, and the bundles that are not tried again.

The tables are in the models' own database: that a rollout is committed and that its bundle serves is one transaction.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Mapping

from defectd.clock import utc_now
from defectd.errors import DefectdError, StateError
from defectd.models.catalog import Catalog, Change
from defectd.rollout.states import FINAL, MAX_TRANSITIONS, State, after_restart, may_move

KEPT_ROLLOUTS = 100
"""The rows of older ones are deleted; `seq` still refuses their commands."""

_COLUMNS = (
    "request_id, seq, action, manifest_sha256, release_seq, state, attempts, transitions, code, detail, gates, "
    "command, command_sha256, received_at, changed_at"
)
_AGAIN = "see the station's log of that time, and send it again if the cause is gone"
_ENDS = {
    "crash": f"defectd ended unexpectedly while the model was being changed; the model before it serves; {_AGAIN}",
    "attempts": f"defectd ended unexpectedly twice while the new model was being built or proved; {_AGAIN}",
    "transitions": f"it was begun anew too often: after {MAX_TRANSITIONS} steps it is given up; {_AGAIN}",
}
"""Codes of `after_restart` in words."""


class Superseded(StateError):
    """The rollout has been moved since it was read: read it again before you decide anything."""


class TooManyTransitions(DefectdError):
    """Nothing was done; end the rollout as `end_for` says, with the code `transitions` and this text."""


class Busy(StateError):
    """Another rollout is under way; there is one at a time."""


@dataclass(frozen=True)
class Rollout:
    """One attempt to move this station to a bundle, as of its last transition. `attempts` begins with 1."""

    request_id: str
    seq: int
    action: str
    manifest_sha256: str | None
    release_seq: int | None
    state: State
    attempts: int
    transitions: int
    code: str
    detail: str
    gates: Mapping[str, Mapping[str, Any]]
    command: bytes
    command_sha256: str
    received_at: datetime
    changed_at: datetime

    @property
    def finished(self) -> bool:
        """Its state is final."""
        return self.state in FINAL


@dataclass(frozen=True)
class Step:
    """One transition. `number` 0 is the arrival, of which `from_state` is None; `at` is the wall clock's time."""

    number: int
    from_state: State | None
    state: State
    attempts: int
    code: str
    detail: str
    at: datetime


@dataclass(frozen=True)
class Floors:
    """What never falls: the newest bundle that was committed, the newest command that was accepted, and the latest
    time (epoch, seconds) that a trusted signer is known to have said it was. 0 if there was none."""

    release_seq: int
    command_seq: int
    signed_time: int


class Ledger:
    """Rollouts in the database of *store*; used by the thread that uses the store. Whatever changes is durable on
    return. Every method may raise StateError; nothing has changed then."""

    def __init__(self, store: Catalog) -> None:
        self._store = store

    def active(self) -> Rollout | None:
        """The one that is under way."""
        return self._one("WHERE ended = 0")

    def last(self) -> Rollout | None:
        """The newest, under way or not."""
        return self._one("ORDER BY id DESC LIMIT 1")

    def find(self, request_id: str) -> Rollout | None:
        """The one of that id, if it is among the last hundred."""
        return self._one("WHERE request_id = ?", request_id)

    def history(self, limit: int = 20) -> list[Rollout]:
        """The newest first."""
        return self._some("ORDER BY id DESC LIMIT ?", limit)

    def steps(self, request_id: str) -> list[Step]:
        """What it went through, from its arrival on."""
        rows = self._store.rows(
            "SELECT step, from_state, state, attempts, code, detail, at FROM rollout_steps "
            "WHERE request_id = ? ORDER BY step",
            request_id,
        )
        return [
            Step(number, before and State(before), State(state), attempts, code, detail, _moment(at))
            for number, before, state, attempts, code, detail, at in rows
        ]

    def begin(
        self,
        request_id: str,
        seq: int,
        action: str,
        command: bytes,
        created: datetime,
        manifest_sha256: str | None,
        release_seq: int | None,
    ) -> Rollout:
        """A new one, `received`, from the signed payload *command* of time *created*; its `seq` and time raise the
        floors. Raises Busy while another is under way; ValueError for an id that is known."""
        now, sha256 = utc_now(), hashlib.sha256(command).hexdigest()
        with self._store.transaction() as change:
            under_way = change.execute("SELECT request_id, state FROM rollouts WHERE ended = 0").fetchone()
            if under_way is not None:
                raise Busy(f"{under_way[0]} is under way ({under_way[1]}); cancel it, or wait until it has ended")
            if change.execute("SELECT 1 FROM rollouts WHERE request_id = ?", (request_id,)).fetchone() is not None:
                raise ValueError(f"{request_id} was begun before")
            change.execute(
                f"INSERT INTO rollouts ({_COLUMNS}, ended) VALUES ({', '.join('?' * 15)}, 0)",  # noqa: S608 - constants
                (
                    request_id, seq, action, manifest_sha256, release_seq, State.RECEIVED.value, 1, 0, "", "", "{}",
                    command, sha256, _text(now), _text(now),
                ),
            )  # fmt: skip
            _note(change, request_id, Step(0, None, State.RECEIVED, 1, "", "", now))
            change.execute(
                "DELETE FROM rollouts WHERE ended = 1 AND id <= (SELECT max(id) FROM rollouts) - ?", (KEPT_ROLLOUTS,)
            )
            _raise_floor(change, "command_seq", seq)
            _raise_floor(change, "signed_time", int(created.timestamp()))
        return self._again(request_id)

    def note_command(self, request_id: str, sha256: str, seq: int, created: datetime) -> None:
        """A command that was accepted and begins no rollout is known from now on, and raises the floors, too."""
        with self._store.transaction() as change:
            _remember(change, request_id, sha256, None, "")
            _raise_floor(change, "command_seq", seq)
            _raise_floor(change, "signed_time", int(created.timestamp()))

    def note_refusal(self, request_id: str, sha256: str, code: str, detail: str) -> None:
        """A command that was refused for good: it gets the same answer when it comes again."""
        with self._store.transaction() as change:
            _remember(change, request_id, sha256, code, detail)

    def known_command(self, request_id: str) -> str | None:
        """The SHA-256 of the command of that id, if it is among the last that were answered for good."""
        rows = self._store.rows(
            "SELECT command_sha256 FROM rollouts WHERE request_id = ? UNION ALL "
            "SELECT sha256 FROM words WHERE request_id = ?",
            request_id, request_id,
        )  # fmt: skip
        return rows[0][0] if rows else None

    def refusal(self, request_id: str) -> tuple[str, str] | None:
        """Code and detail with which the command of that id was refused for good."""
        rows = self._store.rows("SELECT refusal, detail FROM words WHERE request_id = ?", request_id)
        return (rows[0][0], rows[0][1]) if rows and rows[0][0] is not None else None

    def committed_by(self, manifest_sha256: str | None) -> str | None:
        """The request that brought this release last."""
        rows = self._store.rows(
            "SELECT request_id FROM rollouts WHERE state = ? AND manifest_sha256 = ? ORDER BY id DESC LIMIT 1",
            State.COMMITTED.value, manifest_sha256,
        )  # fmt: skip
        return rows[0][0] if rows else None

    def move(
        self,
        rollout: Rollout,
        state: State,
        code: str = "",
        detail: str = "",
        attempts: int | None = None,
        quarantine: str | None = None,
    ) -> Rollout:
        """*rollout* in its next *state*; a final one clears `candidate`. *quarantine* is why its bundle shall not be
        tried again, with a failure only. Raises Superseded; TooManyTransitions where only an end is allowed any more;
        ValueError for a step that the table does not have."""
        if state is State.COMMITTED or not may_move(rollout.state, state):
            raise ValueError(f"{rollout.request_id}: {rollout.state.value} is not followed by {state.value} here")
        if quarantine is not None and state not in (State.FAILED, State.ROLLING_BACK, State.ROLLED_BACK):
            raise ValueError(f"{rollout.request_id}: {state.value} is no reason for a quarantine")
        with self._store.transaction() as change:
            _advance(change, rollout, state, code, detail, rollout.attempts if attempts is None else attempts)
            if quarantine is not None and rollout.manifest_sha256 is not None:
                put_in_quarantine(change, rollout.manifest_sha256, code, quarantine)
            if state in FINAL:
                change.point("candidate", None)
        return self._again(rollout.request_id)

    def commit(self, rollout: Rollout, detail: str = "") -> Rollout:
        """Its bundle is `current` from now on, and that one `previous`; the release floor rises to it. Raises
        Superseded; ModelError if the bundle is not in the store; ValueError if it is not in probation."""
        bundle = rollout.manifest_sha256
        if bundle is None or not may_move(rollout.state, State.COMMITTED):
            raise ValueError(f"{rollout.request_id}: cannot be committed, it is {rollout.state.value} with {bundle}")
        with self._store.transaction() as change:
            _advance(change, rollout, State.COMMITTED, "", detail, rollout.attempts)
            served = change.execute("SELECT manifest_sha256 FROM pointers WHERE name = 'current'").fetchone()
            if served is not None and served[0] != bundle:
                change.point("previous", served[0])
            change.point("current", bundle)
            change.point("candidate", None)
            if rollout.release_seq is not None:
                _raise_floor(change, "release_seq", rollout.release_seq)
        return self._again(rollout.request_id)

    def resume(self, rollout: Rollout, *, clean: bool) -> Rollout:
        """Where *rollout* goes on in a new process: to be called once at start, before anything is done for it. After
        a *clean* stop, to go on where it was is no transition. Raises Superseded."""
        state, attempts, code = after_restart(rollout.state, rollout.attempts, rollout.transitions, clean=clean)
        if rollout.finished or (clean and state is rollout.state):
            return rollout
        if rollout.state is State.ROLLING_BACK and rollout.code:  # why it went back matters more
            return self.move(rollout, state, rollout.code, rollout.detail, attempts)
        return self.move(rollout, state, code, _ENDS.get(code, ""), attempts)

    def keep_gate(self, rollout: Rollout, gate: str, numbers: Mapping[str, Any]) -> Rollout:
        """The *numbers* of a gate, instead of earlier ones; no transition. Raises Superseded."""
        with self._store.transaction() as change:
            kept = change.execute(
                "SELECT gates FROM rollouts WHERE request_id = ? AND transitions = ?",
                (rollout.request_id, rollout.transitions),
            ).fetchone()
            if kept is None:
                raise _superseded(rollout)
            gates = json.dumps({**json.loads(kept[0]), gate: dict(numbers)}, allow_nan=False)
            change.execute("UPDATE rollouts SET gates = ? WHERE request_id = ?", (gates, rollout.request_id))
        return self._again(rollout.request_id)

    def floors(self) -> Floors:
        """As they are now."""
        found = dict(self._store.rows("SELECT name, value FROM floors"))
        return Floors(found.get("release_seq", 0), found.get("command_seq", 0), found.get("signed_time", 0))

    def raise_signed_time(self, moment: datetime) -> None:
        """A trusted signer said that it was *moment*; never the wall clock, which may be wrong."""
        with self._store.transaction() as change:
            _raise_floor(change, "signed_time", int(moment.timestamp()))

    def quarantined(self, manifest_sha256: str) -> tuple[str, str] | None:
        """The code and the reason for which that bundle is not tried again."""
        rows = self._store.rows("SELECT code, reason FROM quarantine WHERE manifest_sha256 = ?", manifest_sha256)
        return (rows[0][0], rows[0][1]) if rows else None

    def _again(self, request_id: str) -> Rollout:
        (rollout,) = self._some("WHERE request_id = ?", request_id)
        return rollout

    def _one(self, condition: str, *parameters: object) -> Rollout | None:
        return next(iter(self._some(condition, *parameters)), None)

    def _some(self, condition: str, *parameters: object) -> list[Rollout]:
        rows = self._store.rows(f"SELECT {_COLUMNS} FROM rollouts {condition}", *parameters)  # noqa: S608 - constants
        return [_rollout_of(row) for row in rows]


def put_in_quarantine(change: Change, manifest_sha256: str, code: str, reason: str) -> None:
    """That bundle is not tried again, from the end of the transaction on."""
    change.execute(
        "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?)", (manifest_sha256, code, reason, _text(utc_now()))
    )


def _advance(change: Change, rollout: Rollout, state: State, code: str, detail: str, attempts: int) -> None:
    if rollout.transitions >= MAX_TRANSITIONS and state not in FINAL and state is not State.ROLLING_BACK:
        raise TooManyTransitions(_ENDS["transitions"])
    now = utc_now()
    moved = change.execute(
        "UPDATE rollouts SET state = ?, attempts = ?, transitions = transitions + 1, code = ?, detail = ?, "
        "changed_at = ?, ended = ? WHERE request_id = ? AND transitions = ?",
        (
            state.value, attempts, code, detail, _text(now), int(state in FINAL), rollout.request_id,
            rollout.transitions,
        ),
    )  # fmt: skip
    if moved.rowcount != 1:
        raise _superseded(rollout)
    _note(change, rollout.request_id, Step(rollout.transitions + 1, rollout.state, state, attempts, code, detail, now))


def _note(change: Change, request_id: str, step: Step) -> None:
    change.execute(
        "INSERT INTO rollout_steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            request_id, step.number, step.from_state and step.from_state.value, step.state.value, step.attempts,
            step.code, step.detail, _text(step.at),
        ),
    )  # fmt: skip


def _rollout_of(row: tuple[Any, ...]) -> Rollout:
    (
        request_id, seq, action, manifest_sha256, release_seq, state, attempts, transitions, code, detail, gates,
        command, command_sha256, received_at, changed_at,
    ) = row  # fmt: skip
    return Rollout(
        request_id, seq, action, manifest_sha256, release_seq, State(state), attempts, transitions, code, detail,
        json.loads(gates), command, command_sha256, _moment(received_at), _moment(changed_at),
    )  # fmt: skip


def _remember(change: Change, request_id: str, sha256: str, refusal: str | None, detail: str) -> None:
    change.execute(
        "INSERT OR IGNORE INTO words (request_id, sha256, refusal, detail) VALUES (?, ?, ?, ?)",
        (request_id, sha256, refusal, detail),
    )
    change.execute("DELETE FROM words WHERE id <= (SELECT max(id) FROM words) - ?", (KEPT_ROLLOUTS,))


def _superseded(rollout: Rollout) -> Superseded:
    return Superseded(f"{rollout.request_id}: has been moved since it was {rollout.state.value}; read it again")


def _raise_floor(change: Change, name: str, value: int) -> None:
    change.execute(
        "INSERT INTO floors VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        (name, value),
    )


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
