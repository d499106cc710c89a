"""One rollout after the other, each from command to final state, on one thread that owns the ledger.

A step does what its state is about and moves on; every move is on disk before what comes next. The line is never
waited for here and never waits for this: it is asked through `Engines` and watched through `LineWatch`.
"""

from __future__ import annotations

import logging
from queue import Empty, SimpleQueue
from typing import Any, Callable, Mapping

from defectd.clock import NS_PER_S, Backoff, monotonic_ns, utc_now
from defectd.engine.server import EnginePlan
from defectd.engine.serving import Outcome, OutcomeKind
from defectd.errors import ModelError, StateError
from defectd.inspection.events import ModelProgress, ModelReported, RolloutEvent
from defectd.rollout import injection
from defectd.rollout.baseline import Baseline
from defectd.rollout.command import Command, parse_command
from defectd.rollout.intake import Intake
from defectd.rollout.ledger import Ledger, Rollout, Superseded, TooManyTransitions
from defectd.rollout.ports import EndAsked, Failed, Ports, Stopping
from defectd.rollout.starts import GOOD_AFTER_S, start_is_good
from defectd.rollout.states import CANCELLABLE, FINAL, State, end_for
from defectd.rollout.watching import LineWatch

log = logging.getLogger(__name__)

_ROUND_S = 0.5
_PROGRESS_EVERY_NS = NS_PER_S // 2
_REPORT_EVERY_NS = 10 * NS_PER_S
_REVERT_WITHIN_S = 15.0
_START_WITHIN_S = 3600.0  # the worker has a limit of its own; this one is for a loop that does not answer

Step = Callable[["Journey", Rollout], Rollout]
"""What is to be done in one state; returns the rollout in its next one."""


class Journey:
    """The thread's half: everything but `progress_ns`, `abandoned` and `reported` belongs to it. `plans`, `beside` and
    `baseline` are what one step leaves to the next."""

    def __init__(
        self,
        ports: Ports,
        steps: Mapping[State, Step],
        watch: LineWatch,
        inbox: SimpleQueue[bytes],
        stopped: Callable[[], bool],
        *,
        clean: bool,
    ) -> None:
        self.ports, self.watch = ports, watch
        self.progress_ns = monotonic_ns()
        self.abandoned = False
        self.plans: list[EnginePlan] = []
        self.beside = True
        self.baseline = Baseline.of([])
        self._steps, self._inbox, self._clean = steps, inbox, clean
        self._stop_asked = stopped
        self._intake: Intake | None = None
        self._told_ns = self._reported_ns = 0
        self._good_ns: int | None = None
        self._outcomes: list[Outcome] = []

    def run(self) -> None:
        """From READY on, until the daemon stops, or somebody else has taken over."""
        self._good_ns = monotonic_ns() + GOOD_AFTER_S * NS_PER_S
        try:
            self._open()
            self._resume()
            while True:
                self._round()
        except Stopping:
            pass
        except Superseded as error:
            log.warning("%s", error)

    @property
    def reported(self) -> ModelReported | None:
        """What holds now; None before the first look at the disk."""
        return None if self._intake is None else self._intake.reported

    @property
    def intake(self) -> Intake:
        """Since the disk could be read."""
        assert self._intake is not None
        return self._intake

    def _stopped(self) -> bool:
        return self.abandoned or self._stop_asked()

    # -- for the steps ---------------------------------------------------------------------------------------

    def breathe(self, timeout_s: float = 0.0) -> None:
        """Hear commands, wait for news of the line. Raises Stopping, EndAsked."""
        if not self.poll(timeout_s):
            return
        if self._stopped():
            raise Stopping
        raise EndAsked

    def poll(self, timeout_s: float = 0.0) -> bool:
        """The same for code that cannot be interrupted by an exception: True if it is to stop."""
        self.progress_ns = monotonic_ns()
        while not self._stopped():
            try:
                self.intake.take(self._inbox.get_nowait())
            except Empty:
                break
        if timeout_s and not self._stopped() and self.intake.end_asked is None:
            self.watch.news.wait(timeout_s)
            self.watch.news.clear()
        return self._stopped() or self.intake.end_asked is not None

    def say(self, detail: str, share: float | None) -> None:
        """Progress of the present state, for a bar; rarely enough for a network."""
        rollout = self.intake.rollout
        now_ns = monotonic_ns()
        if rollout is None or now_ns - self._told_ns < _PROGRESS_EVERY_NS:
            return
        self._told_ns = now_ns
        percent = None if share is None else round(min(1.0, max(0.0, share)) * 100, 1)
        self.intake.percent = percent
        if now_ns - self._reported_ns > _REPORT_EVERY_NS:
            self._reported_ns = now_ns
            self.intake.report()
        self.ports.progress(
            ModelProgress(
                request_id=rollout.request_id, state=rollout.state.value, percent=percent, detail=detail, ts=utc_now()
            )
        )

    def waits_for(self, what: str | None) -> None:
        """What a person would want to know while nothing moves."""
        if self.intake.waits_for != what:
            self.intake.waits_for = what
            self.intake.report()

    def keep_gate(self, rollout: Rollout, gate: str, numbers: Mapping[str, Any]) -> Rollout:
        """On disk, and in the report."""
        return self.ledger.keep_gate(rollout, gate, numbers)

    def await_outcome(self, *kinds: OutcomeKind, within_s: float = _START_WITHIN_S) -> Outcome:
        """The next of *kinds*; those before it are skipped. Raises Failed if the candidate fails first."""
        begun_ns = monotonic_ns()
        while True:
            self._outcomes += self.watch.take_outcomes()
            while self._outcomes:
                outcome = self._outcomes.pop(0)
                if outcome.kind in kinds:
                    return outcome
                if outcome.kind in ("failed", "reverted"):
                    raise Failed("candidate_failed", f"the candidate's engine: {outcome.detail}", blame=True)
            if monotonic_ns() - begun_ns > within_s * NS_PER_S:
                raise Failed("no_answer", f"the inspection loop did not say {' or '.join(kinds)} in {within_s:.0f} s")
            self.breathe(_ROUND_S)

    def check_candidate(self) -> None:
        """Raises Failed if its engine has given up."""
        for outcome in self.watch.take_outcomes():
            if outcome.kind in ("failed", "reverted"):
                raise Failed("candidate_failed", f"the candidate's engine: {outcome.detail}", blame=True)

    def forget_outcomes(self) -> None:
        """What came before no longer counts."""
        self.watch.take_outcomes()
        self._outcomes = []

    def move(self, rollout: Rollout, state: State, code: str = "", detail: str = "") -> Rollout:
        """On disk, and told."""
        return self._tell(rollout.state, self.ledger.move(rollout, state, code, detail))

    def commit(self, rollout: Rollout, detail: str) -> Rollout:
        """The candidate is the committed model from now on."""
        return self._tell(rollout.state, self.ledger.commit(rollout, detail))

    @staticmethod
    def command_of(rollout: Rollout) -> Command:
        """What was signed."""
        return parse_command(rollout.command)

    # -- one step after the other ----------------------------------------------------------------------------

    def _open(self) -> None:
        """A disk that is full now may not be so later."""
        backoff = Backoff(1.0, 30.0)
        while True:
            try:
                self.store = self.ports.open_store()
                self.ledger = Ledger(self.store)
                self._intake = Intake(self.ports, self.store, self.ledger)
                self._intake.report()
            except StateError as error:
                self.ports.faults.begin("rollout", "state_unusable", str(error))
            else:
                self.ports.faults.end("rollout", "state_unusable")
                return
            self._wait_out(backoff)

    def _resume(self) -> None:
        rollout = self.ledger.active()
        if rollout is None:
            return
        self._persist(lambda: self._tell(rollout.state, self.ledger.resume(rollout, clean=self._clean)))

    def _round(self) -> None:
        """Hear commands, and do the next step of the rollout that is under way."""
        self.poll(_ROUND_S)
        if self._stopped():
            raise Stopping
        try:
            self._count_as_good()
            rollout = self.ledger.active()
        except StateError as error:
            self.ports.faults.begin("rollout", "state_unusable", str(error))
            return
        if rollout is None:
            self.intake.end_asked = None
        else:
            self._advance(rollout)

    def _count_as_good(self) -> None:
        """The station inspects, and has for a while: its starts up to now led to something."""
        if self._good_ns is not None and monotonic_ns() >= self._good_ns:
            start_is_good(self.store)
            self._good_ns = None

    def _advance(self, rollout: Rollout) -> None:
        self.intake.show(rollout)
        try:
            self.breathe()
            injection.reach(rollout.state.value)
            self.intake.show(self._steps[rollout.state](self, rollout))
        except (Stopping, Superseded):
            raise
        except EndAsked:
            self._end(rollout, "operator", f"ended by command {self.intake.end_asked}")
        except Failed as error:
            self._end(rollout, error.code, error.detail, blame=error.blame)
        except TooManyTransitions as error:
            self._end(rollout, "transitions", str(error))
        except (StateError, OSError) as error:
            self._end(rollout, "disk", f"this station's disk: {error}; free some space or mend it, and send it again")
        except ModelError as error:
            self._end(rollout, "unusable", str(error), blame=True)
        except Exception as error:  # the outermost guard of a step
            log.exception("rollout %s: %s failed", rollout.request_id, rollout.state.value)
            self._end(rollout, "internal", f"a bug in defectd: {error!r}; send its log to who maintains it")

    def _end(self, rollout: Rollout, code: str, detail: str, *, blame: bool = False) -> None:
        """Whatever else happens, the line is with the committed model again; then that is written down."""
        log.warning("rollout %s ends in %s: %s: %s", rollout.request_id, rollout.state.value, code, detail)
        self.ports.engines.revert(detail)
        self._persist(lambda: self._write_end(rollout.request_id, code, detail, blame=blame))
        self.intake.end_asked = None

    def _write_end(self, request_id: str, code: str, detail: str, *, blame: bool) -> None:
        rollout = self.ledger.find(request_id)
        assert rollout is not None
        if rollout.state is State.COMMITTED:  # the disk failed after the commit was on it
            self.ports.engines.settle()
        if rollout.state in FINAL:
            return
        final = end_for(rollout.state)
        if code == "operator" and rollout.state in CANCELLABLE:
            final = State.CANCELLED
        if final is State.ROLLED_BACK and rollout.state is not State.ROLLING_BACK:
            rollout = self.move(rollout, State.ROLLING_BACK, code, detail)
            injection.reach(rollout.state.value)
            self._await_revert()
        quarantine = detail if blame and final in (State.FAILED, State.ROLLED_BACK) else None
        moved = self.ledger.move(rollout, final, rollout.code or code, rollout.detail or detail, quarantine=quarantine)
        self._tell(rollout.state, moved)
        self.ports.faults.note("rollout", final.value, f"{request_id}: {code}: {detail}")

    def _await_revert(self) -> None:
        """The loop answers within a unit; if it does not, the old model serves after the next start at the latest."""
        begun_ns = monotonic_ns()
        while monotonic_ns() - begun_ns < _REVERT_WITHIN_S * NS_PER_S and not self._stopped():
            if any(
                outcome.kind in ("reverted", "failed") for outcome in [*self._outcomes, *self.watch.take_outcomes()]
            ):
                break
            self.watch.news.wait(_ROUND_S)
            self.watch.news.clear()
        self._outcomes = []

    def _persist(self, write: Callable[[], object]) -> None:
        """Until the disk takes it; the line does not wait."""
        backoff = Backoff(0.5, 30.0)
        while True:
            try:
                write()
            except Superseded:
                raise
            except Exception as error:  # whatever it is: the line is safe, and this must get onto the disk
                if not isinstance(error, (StateError, OSError)):
                    log.exception("the rollout's state cannot be written")
                self.ports.faults.begin("rollout", "state_unusable", str(error))
            else:
                self.ports.faults.end("rollout", "state_unusable")
                return
            self._wait_out(backoff)

    def _wait_out(self, backoff: Backoff) -> None:
        """Raises Stopping."""
        self.progress_ns = monotonic_ns()
        if self._stopped():
            raise Stopping
        self.watch.news.wait(backoff.next_s())
        self.watch.news.clear()

    def _tell(self, before: State, moved: Rollout) -> Rollout:
        if moved.state is before and moved.transitions == 0:
            return moved
        self.ports.record(
            RolloutEvent(
                station="/".join(self.ports.place[:4]), boot_id=self.ports.boot_id, created_at=utc_now(),
                request_id=moved.request_id, action=moved.action, from_state=before.value, state=moved.state.value,
                code=moved.code, detail=moved.detail, manifest_sha256=moved.manifest_sha256, attempts=moved.attempts,
            )
        )  # fmt: skip
        log.info(
            "rollout %s: %s -> %s %s %s", moved.request_id, before.value, moved.state.value, moved.code, moved.detail
        )
        self.intake.percent = None
        self.intake.waits_for = None
        self.intake.show(moved)
        return moved
