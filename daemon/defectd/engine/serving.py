"""Which engine judges: one serves, at most one warms up beside it, others leave. Swapped between two units.

Like the workers, all of it belongs to the inspection loop's thread, except `offer`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Callable, Sequence

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.engine.server import EnginePlan, EngineServer
from defectd.workers.process import Died, News, Worker, WorkerState

_LEAVE_S = 10.0
_IN_A_ROW_NS = 60 * NS_PER_S
_DEATHS_WHEN_COLD, _DEATHS_WHEN_WARM = 2, 4
"""Deaths in a row after which a spare is better: of an engine that was not READY when it died, and of one that was."""


@dataclass(frozen=True)
class Outcome:
    """What became of an offer. `detail` says why it does not serve."""

    plan: EnginePlan
    serves: bool
    detail: str = ""


class Engines:
    """The serving engine, a candidate, and those on their way out."""

    def __init__(self, plans: Sequence[EnginePlan], make: Callable[[EnginePlan], EngineServer]) -> None:
        """The first of *plans* is to serve; the others are spares, in the order of preference."""
        self.serving = make(plans[0])
        self._spares, self._make = deque(plans[1:]), make
        self._offers: SimpleQueue[EnginePlan] = SimpleQueue()
        self._candidate: EngineServer | None = None
        self._leaving: list[tuple[EngineServer, int]] = []
        self._deaths, self._last_death_ns = 0, 0

    def offer(self, plan: EnginePlan) -> None:
        """Warm an engine for *plan* beside the serving one, and let it serve as soon as it is ready. Any thread."""
        self._offers.put(plan)

    def workers(self) -> list[Worker]:
        """All processes, for select and for the end."""
        servers = [self.serving, *(server for server, _ in self._leaving)]
        return [server.worker for server in ([*servers, self._candidate] if self._candidate else servers)]

    def fall_back(self, died: Died) -> EnginePlan | None:
        """After a death of the serving engine: if there is little hope for it, start the next spare instead. None if it
        is to try again, or if there is no spare."""
        now_ns = monotonic_ns()
        self._deaths = self._deaths + 1 if now_ns - self._last_death_ns < _IN_A_ROW_NS else 1
        self._last_death_ns = now_ns
        was_warm = bool(self.serving.worker.report)
        hopeless = (
            died.fatal_code == "unusable"
            or died.reason == "start_timeout"
            or self._deaths >= (_DEATHS_WHEN_WARM if was_warm else _DEATHS_WHEN_COLD)
        )
        if not (hopeless and self._spares):
            return None
        self._dismiss(self.serving)
        self.serving, self._deaths = self._make(self._spares.popleft()), 0
        self.serving.worker.start()
        return self.serving.plan

    def attend(self, now_ns: int) -> list[Outcome]:
        """Hear and supervise all but the serving engine."""
        outcomes = []
        if self._candidate is not None:
            outcomes = self._follow([*self._candidate.receive(), *self._candidate.tick(now_ns)])
        if self._candidate is None:
            self._start_next()
        for server, leave_by_ns in list(self._leaving):
            server.receive()
            server.tick(now_ns)
            if server.worker.gone:
                self._leaving.remove((server, leave_by_ns))
            elif server.worker.state in (WorkerState.LEAVING, WorkerState.STOPPED) and now_ns > leave_by_ns:
                server.worker.kill("left_late")
        return outcomes

    def switch(self) -> Outcome | None:
        """Between two units: if the candidate is ready, it serves from now on, and the old engine leaves."""
        if self._candidate is None or not self._candidate.worker.ready:
            return None
        old, self.serving, self._candidate = self.serving, self._candidate, None
        self._deaths = 0
        others = [
            spare for spare in self._spares if _runtime(spare) not in (_runtime(old.plan), _runtime(self.serving.plan))
        ]
        self._spares = deque([old.plan, *others])  # it was good until now
        self._dismiss(old)
        return Outcome(self.serving.plan, serves=True)

    def _start_next(self) -> None:
        try:
            plan = self._offers.get_nowait()
        except Empty:
            return
        self._candidate = self._make(plan)
        self._candidate.worker.start()

    def _follow(self, news: list[News]) -> list[Outcome]:
        """A candidate that dies had its chance."""
        assert self._candidate is not None
        died = next((record for record in news if isinstance(record, Died)), None)
        if died is None:
            return []
        plan = self._candidate.plan
        self._dismiss(self._candidate)
        self._candidate = None
        return [Outcome(plan, serves=False, detail=died.fatal_detail or died.reason)]

    def _dismiss(self, server: EngineServer) -> None:
        server.worker.stop()
        self._leaving.append((server, monotonic_ns() + int(_LEAVE_S * NS_PER_S)))


def _runtime(plan: EnginePlan) -> object:
    return plan.configuration.get("runtime")
