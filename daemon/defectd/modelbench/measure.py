"""One trial after the other, with an eye on the machine; then what becomes of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional, Protocol, Sequence

from defectd.engine.choice import Choice, Judgement, Trial, choose
from defectd.modelbench.conditions import Watch
from defectd.modelbench.figures import times
from defectd.modelbench.findings import Entry, Failed, Measured, Span, Verdict

OnStage = Callable[[str, Optional[float]], None]
"""Called with a stage and its share done (0..1, None: unknown)."""


@dataclass(frozen=True)
class Attempt:
    """A runtime to try. `run` never raises for what is wrong with the runtime; with an `obstacle` it says that at once,
    and nobody is told to wait for it."""

    name: str
    run: Callable[[OnStage], Trial]
    obstacle: str | None = None


@dataclass(frozen=True)
class Tried:
    """What came of an attempt, and when."""

    name: str
    trial: Trial
    spans: tuple[Span, ...]


class Audience(Protocol):
    """Who is told how far it is."""

    def begins(self, name: str, at_s: float) -> None:
        """The next attempt."""
        ...

    def hears(self, stage: str, share: float | None, at_s: float) -> None:
        """How far it is."""
        ...

    def ends(self, failure: str | None, at_s: float) -> None:
        """It is over; *failure* says why there is no result."""
        ...


def measure(attempts: Sequence[Attempt], watch: Watch, audience: Audience) -> list[Tried]:
    """Each attempt in turn: two at once would measure each other."""
    return [_try(attempt, watch, audience) for attempt in attempts]


def _try(attempt: Attempt, watch: Watch, audience: Audience) -> Tried:
    stages: list[tuple[str, float]] = []

    def hear(stage: str, share: float | None) -> None:
        at_s = watch.now_s()
        if not stages or stages[-1][0] != stage:
            stages.append((stage, at_s))
        audience.hears(stage, share, at_s)

    if attempt.obstacle is not None:
        return Tried(attempt.name, attempt.run(hear), ())
    began_s = watch.now_s()
    audience.begins(attempt.name, began_s)
    trial = attempt.run(hear)
    ended_s = watch.now_s()
    audience.ends(trial.problem, ended_s)
    return Tried(attempt.name, trial, spans(began_s, stages, ended_s))


def spans(began_s: float, stages: Sequence[tuple[str, float]], ended_s: float) -> tuple[Span, ...]:
    """Stages with the moments they were first heard of, as spans without holes; before the first it is "starting"."""
    marks = [("starting", began_s), *stages]
    ends = [at_s for _, at_s in marks[1:]] + [ended_s]
    return tuple(Span(stage, at_s, end_s) for (stage, at_s), end_s in zip(marks, ends))


def judge(tried: Sequence[Tried]) -> tuple[Entry, ...]:
    """With the verdict that the daemon would come to."""
    choice = choose([one.trial for one in tried])
    best = _best(choice)
    return tuple(
        Entry(one.name, _outcome(one.trial), _verdict(one, judgement, best), one.spans)
        for one, judgement in zip(tried, choice.judgements)
    )


def _best(choice: Choice) -> Judgement | None:
    wanted = (choice.runtime, choice.precision)
    return next((one for one in choice.judgements if one.acceptable and (one.runtime, one.precision) == wanted), None)


def _outcome(trial: Trial) -> Measured | Failed:
    if trial.result is None:
        return Failed(trial.problem or "no result")
    return Measured.of(trial.result, trial.build_s)


def _verdict(tried: Tried, judgement: Judgement, best: Judgement | None) -> Verdict:
    if tried.trial.candidate.obstacle is not None:
        return Verdict("absent", judgement.reason)
    if not judgement.acceptable or judgement.p99_ms is None:
        return Verdict("refused", judgement.reason)
    if best is None or best.p99_ms is None or judgement is best:
        return Verdict("chosen", "lowest p99 of all that may serve")
    ratio = times(judgement.p99_ms / max(best.p99_ms, 1e-6))
    return Verdict("slower", f"{ratio} the p99 of {best.runtime}")
