"""One rollout after the other, each from command to final state, on one thread that owns the ledger.

A step does what its state is about and moves on; every move is on disk before what comes next. The line is never
waited for here and never waits for this: it is asked through `Engines` and watched through `LineWatch`.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Callable, Mapping

from defectd.clock import NS_PER_S, Backoff, monotonic_ns, utc_now
from defectd.engine.server import EnginePlan
from defectd.engine.serving import Outcome, OutcomeKind
from defectd.errors import ModelError, StateError
from defectd.inspection.rollout_wire import ModelReported, RolloutEvent
from defectd.rollout import injection
from defectd.rollout.baseline import Baseline
from defectd.rollout.command import Command, parse_command
from defectd.rollout.intake import Intake
from defectd.rollout.ledger import Ledger, Rollout, Superseded, TooManyTransitions
from defectd.rollout.policy import Policy
from defectd.rollout.ports import EndAsked, Failed, Ports, Staging, Stopping
from defectd.rollout.states import CANCELLABLE, FINAL, State, end_for
from defectd.rollout.watching import LineWatch

log = logging.getLogger(__name__)

_ROUND_S = 0.5
_COMMANDS_AT_ONCE = 4
_REVERT_WITHIN_S = 15.0
_RECONSIDER_EVERY_NS = 30 * NS_PER_S
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
        inbox: deque[bytes],
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
        self._reconsider_ns = 0
        self._outcomes: list[Outcome] = []

    def run(self) -> None:
        """From READY on, until the daemon stops, or somebody else has taken over."""
        self.progress_ns = monotonic_ns()
        try:
            self._open()
            self._resume()
            while True:
                self._round()
        except Stopping:
            pass
        except Superseded as error:
            log.warning("%s", error)
        finally:
            if self._intake is not None:
                self.store.close()

    @property
    def engines(self) -> Staging:
        """Not for a thread that was given up: raises Superseded."""
        if self.abandoned:
            raise Superseded("this thread was given up, and another one goes on")
        return self.ports.engines

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
        if self._stopped():  # commands are for the thread that goes on
            return True
        for _ in range(min(_COMMANDS_AT_ONCE, len(self._inbox))):
            self.intake.take(self._inbox.popleft())
        if timeout_s and self.intake.end_asked is None:
            self.watch.news.wait(timeout_s)
            self.watch.news.clear()
        return self._stopped() or self.intake.end_asked is not None

    def say(self, detail: str, share: float | None) -> None:
        """Progress of the present state."""
        self.intake.say(detail, share)

    def waits_for(self, what: str | None) -> None:
        """What a person would want to know while nothing moves."""
        self.intake.wait_for(what)

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
                self._raise_if_failed(outcome)
            if monotonic_ns() - begun_ns > within_s * NS_PER_S:
                raise Failed("no_answer", f"the inspection loop did not say {' or '.join(kinds)} in {within_s:.0f} s")
            self.breathe(_ROUND_S)

    def check_candidate(self) -> None:
        """Raises Failed if its engine has given up."""
        for outcome in self.watch.take_outcomes():
            self._raise_if_failed(outcome)

    def _raise_if_failed(self, outcome: Outcome) -> None:
        if outcome.kind in ("failed", "reverted"):
            self._outcomes = [outcome]  # the line is with the old model already: nobody need wait for that
            raise Failed("candidate_failed", f"the candidate's engine: {outcome.detail}", blame=True)

    def forget_outcomes(self) -> None:
        """What came before no longer counts."""
        self.watch.take_outcomes()
        self._outcomes = []

    def move(self, rollout: Rollout, state: State, code: str = "", detail: str = "") -> Rollout:
        """On disk, and told."""
        return self._tell(rollout, self.ledger.move(rollout, state, code, detail))

    def commit(self, rollout: Rollout, detail: str) -> Rollout:
        """The candidate is the committed model from now on."""
        return self._tell(rollout, self.ledger.commit(rollout, detail))

    @staticmethod
    def command_of(rollout: Rollout) -> Command:
        """What was signed."""
        return parse_command(rollout.command)

    def policy_of(self, rollout: Rollout) -> Policy:
        """A release to go back to is not compared with the one that it shall replace."""
        policy = self.command_of(rollout).policy
        if rollout.action != "rollback":
            return policy
        return policy.model_copy(update={"shadow_units": 0, "probation_units": 0})

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
        self._persist(lambda: self._tell(rollout, self.ledger.resume(rollout, clean=self._clean)))

    def _round(self) -> None:
        """Hear commands, and do the next step of the rollout that is under way."""
        self.poll(_ROUND_S)
        if self._stopped():
            raise Stopping
        try:
            if monotonic_ns() >= self._reconsider_ns:
                self._reconsider_ns = monotonic_ns() + _RECONSIDER_EVERY_NS
                self.intake.reconsider()
            rollout = self.ledger.active()
        except StateError as error:
            self.ports.faults.begin("rollout", "state_unusable", str(error))
            return
        self.ports.faults.end("rollout", "state_unusable")
        if rollout is None:
            self.intake.end_asked = None
        else:
            self.intake.end_asked = rollout.gates.get("end", {}).get("by")
            self._advance(rollout)

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
        if self._is_committed(rollout.request_id):  # the disk failed after the commit was on it
            self.engines.settle()
            return
        self.engines.revert(detail)
        self.ports.faults.end("rollout", "line_paused", detail)
        blame = blame and rollout.action == "deploy"  # a release to go back to was good enough once
        self._persist(lambda: self._write_end(rollout.request_id, code, detail, blame=blame))
        self.intake.end_asked = None

    def _is_committed(self, request_id: str) -> bool:
        """As far as the disk tells."""
        try:
            rollout = self.ledger.find(request_id)
        except StateError:
            return False
        return rollout is not None and rollout.state is State.COMMITTED

    def _write_end(self, request_id: str, code: str, detail: str, *, blame: bool) -> None:
        rollout = self.ledger.find(request_id)
        assert rollout is not None
        if rollout.state in FINAL:
            return
        final = end_for(rollout.state)
        if code == "operator" and rollout.state in CANCELLABLE:
            final = State.CANCELLED
        quarantine = detail if blame and final in (State.FAILED, State.ROLLED_BACK) else None
        if final is State.ROLLED_BACK and rollout.state is not State.ROLLING_BACK:
            moved = self.ledger.move(rollout, State.ROLLING_BACK, code, detail, quarantine=quarantine)
            rollout = self._tell(rollout, moved)
            injection.reach(rollout.state.value)
            self._await_revert()
        if final is not State.FAILED:
            quarantine = None  # it was said with the way back
        moved = self.ledger.move(rollout, final, rollout.code or code, rollout.detail or detail, quarantine=quarantine)
        self._tell(rollout, moved)
        self.ports.faults.note("rollout", final.value, f"{request_id}: {code}: {detail}")

    def _await_revert(self) -> None:
        """The loop answers within a unit; if it does not, the old model serves after the next start at the latest."""
        begun_ns = monotonic_ns()
        while monotonic_ns() - begun_ns < _REVERT_WITHIN_S * NS_PER_S and not self._stopped():
            self._outcomes += self.watch.take_outcomes()
            if any(outcome.kind in ("reverted", "failed") for outcome in self._outcomes):
                break
            self.progress_ns = monotonic_ns()
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

    def _tell(self, before: Rollout, moved: Rollout) -> Rollout:
        if moved.transitions == before.transitions:
            return moved
        place, state = "/".join(self.ports.place[:4]), moved.state.value
        self.ports.record(
            RolloutEvent(
                station=place, boot_id=self.ports.boot_id, created_at=utc_now(), request_id=moved.request_id,
                action=moved.action, from_state=before.state.value, state=state, code=moved.code, detail=moved.detail,
                manifest_sha256=moved.manifest_sha256, attempts=moved.attempts,
            )
        )  # fmt: skip
        log.info("rollout %s: %s -> %s %s", moved.request_id, before.state.value, state, moved.detail)
        self.intake.percent = None
        self.intake.waits_for = None
        self.intake.show(moved)
        return moved
