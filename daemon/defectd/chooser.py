"""Finds out, while the line runs, which runtime serves its model best on this device, and lets that one serve."""

from __future__ import annotations

import logging
import threading
from typing import Callable, Protocol

from defectd.engine.choice import Choice
from defectd.engine.selection import Say
from defectd.engine.server import EnginePlan
from defectd.engine.serving import Engines
from defectd.errors import DefectdError
from defectd.faults import Faults

log = logging.getLogger(__name__)


class Planner(Protocol):
    """Knows the model; see ModelPlanner."""

    def choose(self, say: Say, stop: Callable[[], bool]) -> Choice:
        """Try what might serve. Raises StateError."""
        ...

    def plan(self, runtime: str) -> EnginePlan | None:
        """An engine of that runtime."""
        ...


class RuntimeChooser:
    """A thread that ends when it knows, or is told to. The trials are processes of low priority beside the line."""

    def __init__(self, planner: Planner, engines: Engines, serving: str, faults: Faults) -> None:
        """*serving* is the runtime that serves meanwhile."""
        self._planner, self._engines, self._serving, self._faults = planner, engines, serving, faults
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chooser", daemon=True)
        self.doing = "about to begin"

    def start(self) -> None:
        """Begin; the line has been READY for a while or is just so."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Give up what is not finished; its process is killed."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            choice = self._planner.choose(self._say, self._stop.is_set)
            if not self._stop.is_set():
                self._conclude(choice)
        except DefectdError as error:
            self._faults.begin("engine", "runtime_not_chosen", str(error))
        except Exception as error:  # the thread's outermost guard
            log.exception("choosing a runtime failed")
            self._faults.begin("engine", "runtime_not_chosen", repr(error))
        finally:
            self.doing = ""

    def _conclude(self, choice: Choice) -> None:
        lines = choice.lines()
        for line in lines:
            log.info("runtime %s", line)
        if choice.runtime is None:
            tell = self._faults.begin if choice.settled else self._faults.note  # for want of memory: next time, perhaps
            tell("engine", "runtime_not_chosen", f"none could be proven: {'; '.join(lines)}")
            return
        self._faults.note("engine", "runtime_chosen", f"{choice.runtime}: {'; '.join(lines)}")
        if choice.runtime == self._serving:
            return
        plan = self._planner.plan(choice.runtime)
        if plan is None:
            self._faults.begin("engine", "swap_failed", f"{choice.runtime} was chosen, and cannot be planned")
        else:
            self._engines.offer(plan)

    def _say(self, stage: str, share: float | None) -> None:
        self.doing = stage if share is None else f"{stage} {share:.0%}"
