"""Does this station obey? A verified command against what the station knows: a pure decision, in a technician's words.

Nothing here is stored or begun. The order of the questions is part of the answer: who is meant, has it been seen, may
this station decide at all, is it new and in time, and only then what it asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Callable, Literal, Mapping, NamedTuple

from defectd.rollout.command import Action, Audience, Command
from defectd.rollout.states import CANCELLABLE, State

ACCEPTED = "accepted"
AHEAD_S = 86_400  # so far may a signer's clock be ahead of the station's
Kind = Literal["new", "again", "approve", "cancel", "go_back", "refuse"]

_PASSING = frozenset({"not_for_us", "state_lost", "not_yet", "expired", "unknown_source"})
_LIVE = frozenset({State.SWITCHING, State.PROBATION})


class Place(NamedTuple):
    """Where this station stands, and the groups that its configuration names."""

    site: str
    area: str
    line: str
    station: str
    groups: tuple[str, ...] = ()


class Active(NamedTuple):
    """The rollout that is under way."""

    request_id: str
    state: State


@dataclass(frozen=True)
class Known:
    """What the station knows when a command arrives; releases are named by the SHA-256 of their manifest.

    `same_id` is the SHA-256 of the payload that came earlier with this request_id, whatever it asked for and whatever
    became of it. `quarantined` (code, reason) is about the release that the command would bring. `committed` is the
    request that brought `current`. `signed_time_s` is the latest moment that a trusted signer has named.
    """

    floor_release_seq: int = 0
    floor_command_seq: int = 0
    signed_time_s: int = 0
    active: Active | None = None
    same_id: str | None = None
    quarantined: tuple[str, str] | None = None
    current: str | None = None
    previous: str | None = None
    committed: str | None = None
    sources: tuple[str, ...] = ()
    state_lost: bool = False


class Admission(NamedTuple):
    """What to do with a command. `lasting`: the answer stands when the same bytes come again, as after a reconnect. The
    others are judged anew then, because the clock or the configuration may have been put right.

    new: begin a rollout (deploy, rollback). again: report once more, do nothing. approve, cancel, go_back: of the
    active rollout. refuse: `code` and `detail` say why.
    """

    kind: Kind
    code: str
    detail: str
    lasting: bool = True


def admit(command: Command, payload_sha256: str, place: Place, known: Known, now: datetime) -> Admission:
    """*now* is the wall clock; it counts as no earlier than what was signed already. *payload_sha256* is of the signed
    bytes."""
    return (
        _for_others(command.audience, place)
        or _seen(command, payload_sha256, known)
        or _without_memory(known)
        or _old(command, known)
        or _untimely(command, known, now)
        or _DECISIONS[command.action](command, known)
    )


def covers(audience: Audience, place: Place) -> bool:
    """Whether the station at *place* is meant."""
    if audience.kind == "group":
        return audience.value in place.groups
    levels = audience.value.split("/")
    return levels == [place.site, place.area, place.line, place.station][: len(levels)]


# -- questions that every command must pass ------------------------------------------------------------------------


def _for_others(audience: Audience, place: Place) -> Admission | None:
    if covers(audience, place):
        return None
    here = "/".join(place[:4]) + (f", of the groups {', '.join(place.groups)}" if place.groups else ", of no group")
    return _refuse(
        "not_for_us",
        f"The command is for the {audience.kind} {audience.value}; this station is {here}. "
        "Send it to the right one, or correct [station] or [rollout] groups here.",
    )


def _seen(command: Command, payload_sha256: str, known: Known) -> Admission | None:
    if known.same_id is None:
        return None
    if known.same_id == payload_sha256:
        return Admission("again", "again", f"Request {command.request_id} has arrived before; nothing is done twice.")
    return _refuse(
        "conflict",
        f"Another command with the id {command.request_id} has arrived before, and it counts. "
        "Send this one under a new id.",
    )


def _without_memory(known: Known) -> Admission | None:
    if not known.state_lost:
        return None
    return _refuse(
        "state_lost",
        "This station's state database was lost, and with it which releases and commands are too old: it takes no "
        "command. It goes on with the model that it has; set it up anew as the runbook says.",
    )


def _old(command: Command, known: Known) -> Admission | None:
    if command.seq > known.floor_command_seq:
        return None
    return _refuse(
        "stale",
        f"The command has seq {command.seq}, but seq {known.floor_command_seq} was accepted already. "
        "Send it anew: defectd rollout takes the next seq by itself.",
    )


def _untimely(command: Command, known: Known, now: datetime) -> Admission | None:
    here_s = max(now.timestamp(), known.signed_time_s)
    clock = f"this station's clock says {_moment(now)}"
    if command.created.timestamp() > here_s + AHEAD_S:
        return _refuse(
            "not_yet",
            f"The command was made at {_moment(command.created)}, but {clock}. Set this station's clock, which may be "
            "wrong; if it is right, set that of the computer that sent the command, and send it anew.",
        )
    if command.expires.timestamp() > here_s:
        return None
    later = " (it is behind: something signed later has arrived)" if now.timestamp() < known.signed_time_s else ""
    return _refuse(
        "expired",
        f"The command was good until {_moment(command.expires)}, and {clock}{later}. "
        "Send it anew, or set the clock if that is wrong.",
    )


# -- what each action asks for -------------------------------------------------------------------------------------


def _deploy(command: Command, known: Known) -> Admission:
    target = command.target
    assert target is not None  # Command sees to it
    if known.active is not None:
        return _busy(known.active)
    if target.manifest_sha256 == known.current:
        return _refuse("already_current", "This station serves that release already; there is nothing to do.")
    if known.quarantined is not None:
        return _quarantined("That release", known.quarantined)
    if target.release_seq < known.floor_release_seq and not command.policy.allow_downgrade:
        return _refuse(
            "older",
            f"Release {target.release_seq} is older than {known.floor_release_seq}, which was committed here. Send a "
            "newer one, go back with defectd rollout rollback, or allow it: --allow-downgrade.",
        )
    if target.source not in known.sources:
        return _refuse(
            "unknown_source",
            f"This station has no source called {target.source}; it has {', '.join(known.sources) or 'none'}. "
            "Name one of these, or add it as [[rollout.source]] to its configuration.",
        )
    return Admission("new", ACCEPTED, f"Release {target.release_seq} will be fetched from {target.source}.")


def _rollback(command: Command, known: Known) -> Admission:
    if known.active is not None:
        return _end_active(command, known.active)
    if command.of not in {None, known.committed}:
        return _refuse(
            "wrong_target",
            f"Request {command.of} did not bring the model that serves here now, so going back would undo something "
            "else. See defectd rollout status.",
        )
    if known.previous in {None, known.current}:
        return _refuse(
            "nothing_to_go_back_to",
            "This station has no earlier release to go back to. Send the wanted one: defectd rollout send.",
        )
    if known.quarantined is not None:
        return _quarantined("The release to go back to", known.quarantined)
    return Admission("new", ACCEPTED, "The station will go back to the release before.")


def _cancel(command: Command, known: Known) -> Admission:
    if known.active is not None:
        return _end_active(command, known.active)
    if command.of == known.committed:
        return _refuse(
            "too_late",
            f"Request {command.of} is committed. To undo it: defectd rollout rollback {command.of}.",
        )
    return _refuse("nothing_to_cancel", "No rollout is under way here; there is nothing to cancel.")


def _approve(command: Command, known: Known) -> Admission:
    if known.active is None:
        return _refuse("nothing_to_approve", "No rollout is under way here; there is nothing to approve.")
    if command.of != known.active.request_id:
        return _another(command, known.active)
    if known.active.state is not State.STAGED:
        return _refuse(
            "nothing_to_approve",
            f"Request {command.of} does not wait for approval, it is {known.active.state.value}. "
            "Approve it when defectd rollout status says that it waits for it.",
        )
    return Admission("approve", ACCEPTED, f"Request {command.of} is approved.")


_DECISIONS: Mapping[Action, Callable[[Command, Known], Admission]] = {
    "deploy": _deploy,
    "rollback": _rollback,
    "cancel": _cancel,
    "approve": _approve,
}


def _end_active(command: Command, active: Active) -> Admission:
    """Both cancel and rollback: what ends a rollout depends on how far it is, not on the word that a person chose."""
    live = active.state in _LIVE
    if command.of is None and not live:
        return _busy(active)
    if command.of not in {None, active.request_id}:
        return _another(command, active)
    if live:
        return Admission("go_back", ACCEPTED, f"Request {active.request_id} is undone: the model before decides again.")
    if active.state in CANCELLABLE:
        return Admission("cancel", ACCEPTED, f"Request {active.request_id} is cancelled; the model stays as it is.")
    return _refuse(
        "too_late", f"Request {active.request_id} is going back by itself already; wait for defectd rollout status."
    )


# -- refusals ------------------------------------------------------------------------------------------------------


def _busy(active: Active) -> Admission:
    return _refuse(
        "busy",
        f"Request {active.request_id} is under way here ({active.state.value}). Send this one anew when that has "
        f"ended, or end it: defectd rollout cancel {active.request_id}.",
    )


def _another(command: Command, active: Active) -> Admission:
    return _refuse(
        "wrong_target",
        f"The command is about request {command.of}, but {active.request_id} is under way here "
        f"({active.state.value}). Name that one.",
    )


def _quarantined(which: str, quarantined: tuple[str, str]) -> Admission:
    """Not even with allow_downgrade: the same bytes would fail again. A cause outside of them is a new release, too."""
    code, reason = quarantined
    return _refuse(
        "quarantined",
        f"{which} has failed here ({code}: {reason}). It is not tried twice; sign and send a new release.",
    )


def _refuse(code: str, detail: str) -> Admission:
    return Admission("refuse", code, detail, lasting=code not in _PASSING)


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"
