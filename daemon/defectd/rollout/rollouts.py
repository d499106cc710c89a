"""Rollouts as the daemon sees them: a thread that is replaced when it hangs, and ears for everybody else."""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.engine.serving import Outcome
from defectd.errors import StateError
from defectd.inspection.events import InspectionEvent
from defectd.inspection.rollout_wire import ModelReported
from defectd.inspection.shadow import ShadowUnit
from defectd.rollout import injection
from defectd.rollout.journey import Journey
from defectd.rollout.ports import Ports
from defectd.rollout.starts import clean_stop, start_is_good
from defectd.rollout.steps import STEPS
from defectd.rollout.watching import LineWatch

log = logging.getLogger(__name__)

_HANG_S = 180.0
_WAITING_COMMANDS = 8


class Rollouts:
    """Methods may be called from any thread."""

    def __init__(self, ports: Ports, *, after_clean_stop: bool) -> None:
        self._ports, self._clean = ports, after_clean_stop
        self._watch = LineWatch()
        self._inbox: deque[bytes] = deque(maxlen=_WAITING_COMMANDS)
        self._stop = threading.Event()
        self._hang_ns = int(injection.hang_limit_s(_HANG_S) * NS_PER_S)
        self._journey, self._thread = self._begin(clean=after_clean_stop)

    def start(self) -> None:
        """Go on where the last process stopped."""
        self._thread.start()

    def stop(self, timeout_s: float, *, clean: bool, engine_proven: bool) -> None:
        """Leave everything as it is on disk. *clean* if nothing but a person or systemd asked for it; a start that
        ended otherwise is not held against the model if *engine_proven*: it was a camera, or a mistake in the settings.
        """
        self._stop.set()
        self._watch.news.set()
        begun = self._thread.ident is not None
        if begun:
            self._thread.join(timeout_s)
        with suppress(StateError):  # then it counts as a crash
            store = self._ports.open_store()
            if clean and (begun or self._clean):  # else what a crash left has not been looked at yet
                clean_stop(store)
            elif clean or engine_proven:
                start_is_good(store)
            store.close()

    def count_as_good(self) -> None:
        """The station's engine has worked for a while: its starts up to now led to something. Does not block."""
        threading.Thread(target=self._count_as_good, name="starts", daemon=True).start()

    def _count_as_good(self) -> None:
        try:
            store = self._ports.open_store()
            start_is_good(store)
            store.close()
        except StateError as error:
            log.warning("the start is not counted as good: %s", error)

    def command(self, envelope: bytes) -> None:
        """What arrived on `model/desired`; of too many at once the oldest give way, as in the broker."""
        self._inbox.append(envelope)
        self._watch.news.set()

    def inspected(self, event: InspectionEvent) -> None:
        """A unit was decided."""
        self._watch.inspected(event)

    def shadowed(self, unit: ShadowUnit) -> None:
        """Both models have judged a unit."""
        self._watch.shadowed(unit)

    def outcome(self, outcome: Outcome) -> None:
        """How far a candidate is."""
        self._watch.outcome(outcome)

    def reported(self) -> ModelReported | None:
        """What holds now; None before the first look at the disk."""
        return self._journey.reported

    @property
    def doing(self) -> str:
        """For the status line; empty while there is nothing to tell."""
        report = self.reported()
        if report is None or report.rollout is None or report.rollout.finished:
            return ""
        waits = f", waits for {report.rollout.waits_for}" if report.rollout.waits_for else ""
        return f"rollout {report.rollout.state}{waits}"

    def tend(self) -> None:
        """A thread that hangs, or has died, must not leave a candidate to decide unwatched: the old model serves again,
        and another thread goes on as after a crash. What the old one still asks for or writes is refused."""
        hangs = monotonic_ns() - self._journey.progress_ns > self._hang_ns
        if self._stop.is_set() or (self._thread.is_alive() and not hangs):
            return
        self._ports.faults.note("rollout", "hung", "the rollout made no progress; it goes on as after a crash")
        self._journey.abandoned = True
        self._ports.engines.revert("the rollout hangs")
        self._journey, self._thread = self._begin(clean=False)
        self._thread.start()

    def _begin(self, *, clean: bool) -> tuple[Journey, threading.Thread]:
        journey = Journey(self._ports, STEPS, self._watch, self._inbox, self._stop.is_set, clean=clean)
        # A daemon thread: one that hangs must not keep the process from ending.
        return journey, threading.Thread(target=journey.run, name="rollout", daemon=True)
