"""Where one station stands with what was asked of it, from all that it has said. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Iterable, Mapping

from defectd.technician.wire import Answer, Bundle, Message, Progress, Reported, Rollout
from defectd.watch.wire import StationStatus

ANSWER_WITHIN_S = 30.0
"""A station that is there answers within a second or two."""
BACK_WITHIN_S = 300.0
"""A station that only starts anew is back by then, and goes on with its rollout."""

# A share of the whole for each state: by how long they usually take.
_BEGINS = {
    "received": 0.0, "downloading": 0.01, "verifying": 0.20, "staged": 0.25, "building": 0.26, "loading": 0.45,
    "warming": 0.49, "golden": 0.52, "shadow": 0.55, "switching": 0.69, "probation": 0.70, "rolling_back": 0.99,
}  # fmt: skip
_ENDS = dict(zip(_BEGINS, [*list(_BEGINS.values())[1:], 1.0]))
_WORDS = {
    "received": "command taken",
    "downloading": "downloading",
    "verifying": "checking the files",
    "staged": "all on disk",
    "building": "building for its chip",
    "loading": "loading beside the line",
    "warming": "warming up",
    "golden": "golden pictures",
    "shadow": "judging along, the serving model decides",
    "switching": "switching over",
    "probation": "on probation",
    "rolling_back": "going back to the model before",
    "committed": "committed",
    "rejected": "refused",
    "failed": "failed",
    "rolled_back": "went back to the model before",
    "cancelled": "cancelled",
}
_WAITS = {
    "approve": "waits for `approve`",
    "window": "waits for its time window",
    "idle": "waits for the line to pause",
    "memory": "waits for free memory",
}


class Kind(str, Enum):
    """How it stands, by what a person would do about it; the value is the word for a table."""

    UNSENT = "not sent"
    SENT = "sent"
    WORKING = "working"
    WAITING = "waiting"
    DONE = "done"
    REJECTED = "refused"
    FAILED = "failed"
    SILENT = "no answer"

    @property
    def settled(self) -> bool:
        """Nothing more is expected."""
        return self in (Kind.DONE, Kind.REJECTED, Kind.FAILED, Kind.SILENT)


@dataclass(frozen=True)
class View:
    """The latest of everything that a station has said, and the last word on each request."""

    reported: Reported | None = None
    progress: Progress | None = None
    status: StationStatus | None = None
    away_since_s: float | None = None
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    answers: Mapping[str, Answer] = field(default_factory=dict)

    def after(self, message: Message, now_s: float) -> View:
        """With one more message, which came at *now_s*."""
        if isinstance(message, Progress):
            return replace(self, progress=message)
        if not isinstance(message, Reported):
            since_s = now_s if self.away_since_s is None else self.away_since_s
            return replace(self, status=message, away_since_s=since_s if message.state == "offline" else None)
        rollout, answer, progress = message.rollout, message.answer, self.progress
        if progress is not None and (rollout is None or progress.state != rollout.state):
            progress = None  # a report is newer than the progress before it
        return replace(
            self,
            reported=message,
            progress=progress,
            rollouts={**self.rollouts, rollout.request_id: rollout} if rollout else self.rollouts,
            answers={**self.answers, answer.request_id: answer} if answer and answer.request_id else self.answers,
        )

    @property
    def serves(self) -> Bundle | None:
        """The committed model."""
        return self.reported.current if self.reported else None

    @property
    def away(self) -> str:
        """Why it is offline, in its own or the broker's words; empty if it is there."""
        return (self.status.detail or self.status.condition) if self.status and self.status.state == "offline" else ""

    def is_gone(self, now_s: float) -> bool:
        """It has been away for longer than a new start takes."""
        return self.away_since_s is not None and now_s - self.away_since_s > BACK_WITHIN_S


@dataclass(frozen=True)
class Asked:
    """A command for one station; *ends* names the unfinished rollout that it is to end, or to let go on."""

    request_id: str
    action: str
    ends: str | None = None
    sent_s: float | None = None
    answered: Answer | None = None
    """Its answer to an earlier command, as it was when this one was sent."""


@dataclass(frozen=True)
class Standing:
    """For one line on a screen: what it is doing, how far that is (0..1), and why, or what for."""

    kind: Kind
    doing: str = ""
    share: float | None = None
    detail: str = ""
    code: str = ""


def stand(view: View, asked: Asked, now_s: float, answer_within_s: float = ANSWER_WITHIN_S) -> Standing:
    """How the station stands with *asked*."""
    if asked.sent_s is None:
        return Standing(Kind.UNSENT, Kind.UNSENT.value)
    own, answer = view.rollouts.get(asked.request_id), _answer_to(view, asked)
    if own is not None:
        return _standing_of(view, own, now_s)
    if answer is not None and not answer.accepted:
        return Standing(Kind.REJECTED, words("rejected"), None, explained(answer), answer.code)
    ended = view.rollouts.get(asked.ends or "")
    if asked.action != "approve" and ended is not None and ended.finished:
        return _standing_of_end(ended)
    if answer is not None:
        approved = asked.action == "approve"
        said = "approved" if approved else words("received")
        return Standing(Kind.DONE if approved else Kind.WORKING, said, None, answer.detail)
    return _unanswered(view, now_s - asked.sent_s, answer_within_s)


def doing(rollout: Rollout, progress: Progress | None) -> tuple[str, float | None]:
    """What a rollout does, in words, and how far the present state is in percent."""
    state, percent = rollout.state, rollout.percent
    if progress is not None and progress.request_id == rollout.request_id and not rollout.finished:
        state, percent = progress.state, progress.percent
    return words(state), percent


def words(state: str) -> str:
    """A state for a person."""
    return _WORDS.get(state, state.replace("_", " "))


def waiting(rollout: Rollout) -> str:
    """What it waits for, in words; empty if it works."""
    reason = None if rollout.finished else rollout.waits_for
    return _WAITS.get(reason, f"waits: {reason}") if reason else ""


def overall(state: str, percent: float | None) -> float:
    """How much of the whole rollout is behind a station, 0..1."""
    begins = _BEGINS.get(state, 0.0)
    return begins + (_ENDS.get(state, begins) - begins) * (percent or 0.0) / 100


def worst(standings: Iterable[Standing]) -> Kind:
    """What decides the exit code: failures before refusals before silence."""
    kinds = {one.kind for one in standings}
    for kind in (Kind.FAILED, Kind.REJECTED, Kind.SILENT, Kind.SENT, Kind.WAITING, Kind.WORKING):
        if kind in kinds:
            return kind
    return Kind.DONE


def explained(answer: Answer) -> str:
    """Why it refused; of a signature also whose is needed."""
    if answer.code == "signature":
        return f"{answer.detail}. Sign with a key that its root.json names for the role 'ops' (--key)"
    return answer.detail or answer.code


def _answer_to(view: View, asked: Asked) -> Answer | None:
    last = view.reported.answer if view.reported else None
    if last is not None and last.request_id is None and last != asked.answered:
        return last  # it could not be read, and came after ours was put in its place
    return view.answers.get(asked.request_id)


def _standing_of(view: View, rollout: Rollout, now_s: float) -> Standing:
    said, percent = doing(rollout, view.progress)
    if rollout.finished:
        kind = Kind.DONE if rollout.successful else Kind.REJECTED if rollout.state == "rejected" else Kind.FAILED
        return Standing(kind, said, 1.0 if rollout.successful else None, rollout.detail, rollout.code)
    newest = view.reported.rollout if view.reported else None
    if newest is not None and newest.request_id != rollout.request_id:
        return Standing(Kind.FAILED, "replaced", None, f"rollout {newest.request_id} runs there now", rollout.code)
    progress = view.progress if view.progress and view.progress.request_id == rollout.request_id else None
    share = overall(progress.state if progress else rollout.state, percent)
    detail = progress.detail if progress and progress.detail else rollout.detail
    if view.away:
        kind = Kind.SILENT if view.is_gone(now_s) else Kind.WAITING
        return Standing(kind, f"offline while {said}", share, view.away, rollout.code)
    if waiting(rollout):
        return Standing(Kind.WAITING, waiting(rollout), share, detail, rollout.code)
    return Standing(Kind.WORKING, said if percent is None else f"{said} {percent:.0f} %", share, detail, rollout.code)


def _standing_of_end(ended: Rollout) -> Standing:
    """Of a cancel, or of a rollback during probation: the rollout that it was to end is over."""
    if ended.state in ("cancelled", "rolled_back"):
        return Standing(Kind.DONE, words(ended.state), None, ended.detail, ended.code)
    return Standing(Kind.FAILED, f"too late: {words(ended.state)}", None, ended.detail, ended.code)


def _unanswered(view: View, passed_s: float, answer_within_s: float) -> Standing:
    if passed_s < answer_within_s:
        return Standing(Kind.SENT, "sent, no answer yet", 0.0, f"offline: {view.away}" if view.away else "")
    return Standing(Kind.SILENT, Kind.SILENT.value, None, _why_silent(view))


def _why_silent(view: View) -> str:
    if view.away:
        return f"offline ({view.away}); the broker keeps the command, and it is taken if the station is back in time"
    if view.status is None:
        return "the broker has no status of it: is this the right name? The broker keeps the command for it"
    return "online, but it says nothing: its login may not read model/desired, or it has no [[rollout.source]]"
