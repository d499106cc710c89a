"""Which engine judges: one serves, at most one warms up beside it, others leave. Swapped between two units.

A candidate is *offered*: it serves as soon as it is warm, and the old engine leaves. Or it is *staged* for a rollout:
it waits beside the line for `promote`, and then the old engine stays resident until `settle` or `revert`.

Like the workers, all of it belongs to the inspection loop's thread, except the requests.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Callable, Literal, Sequence

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.engine.server import EnginePlan, EngineServer
from defectd.workers.process import Died, News, Worker, WorkerState, cause_of_death
from defectd.workers.protocol import Kind, Note

_LEAVE_S = 10.0
_IN_A_ROW_NS = 60 * NS_PER_S
_DEATHS_WHEN_COLD, _DEATHS_WHEN_WARM = 2, 4
"""Deaths in a row after which a spare is better: of an engine that was not READY when it died, and of one that was."""

OutcomeKind = Literal["paused", "loading", "warming", "golden", "ready", "serves", "settled", "reverted", "failed"]
_STAGES: dict[str, OutcomeKind] = {"warming": "warming", "golden": "golden"}
"""What a worker says of its start; see engine/worker.py."""


@dataclass(frozen=True)
class Outcome:
    """What became of an offer, or how far a staged candidate is. `detail` says why it does not serve."""

    plan: EnginePlan
    kind: OutcomeKind
    detail: str = ""
    staged: bool = False

    @property
    def serves(self) -> bool:
        """It judges from now on."""
        return self.kind == "serves"


@dataclass
class _Staged:
    """A candidate of a rollout, from `stage` until it is settled or gone."""

    spares: Sequence[EnginePlan]
    beside: bool
    paused: bool = False
    promoted: bool = False
    serves: bool = False


class Engines:
    """The serving engine, a candidate, one that is resident during probation, and those on their way out."""

    def __init__(self, plans: Sequence[EnginePlan], make: Callable[[EnginePlan], EngineServer]) -> None:
        """The first of *plans* is to serve; the others are spares, in the order of preference."""
        self.serving = make(plans[0])
        self._spares, self._make = deque(plans[1:]), make
        self._offers: SimpleQueue[EnginePlan] = SimpleQueue()
        self._requests: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._candidate: EngineServer | None = None
        self._resident: EngineServer | None = None
        self._staged: _Staged | None = None
        self._revert: str | None = None
        self._told: list[Outcome] = []
        self._shadow_news: list[tuple[EngineServer, News]] = []
        self._starts_after: tuple[EngineServer, EngineServer] | None = None
        self._leaving: list[tuple[EngineServer, int]] = []
        self._deaths, self._last_death_ns = 0, 0

    # -- requests, from any thread ---------------------------------------------------------------------------

    def offer(self, plan: EnginePlan) -> None:
        """Warm an engine for *plan* beside the serving one, and let it serve as soon as it is ready."""
        self._offers.put(plan)

    def stage(self, plans: Sequence[EnginePlan], *, beside: bool = True) -> None:
        """Warm an engine for the first of *plans*, and let it wait for `promote`; the others become its spares. Not
        *beside*, where memory does not allow two: the serving engine leaves first, and the line pauses meanwhile."""
        self._requests.put(lambda: self._stage(plans, beside=beside))

    def promote(self) -> None:
        """Let the staged candidate judge from the next unit on; the old engine stays warm."""
        self._requests.put(self._promote)

    def settle(self) -> None:
        """The promoted engine stays, and the old one leaves."""
        self._requests.put(self._settle)

    def revert(self, why: str) -> None:
        """The old engine judges again from the next unit on; a candidate that was not promoted leaves."""
        self._requests.put(lambda: self._withdraw(why))

    # -- the loop's thread -----------------------------------------------------------------------------------

    @property
    def shadow(self) -> EngineServer | None:
        """A staged candidate that is warm and may look at what the serving one has judged, until it is promoted."""
        waits = self._staged is not None and not self._staged.promoted and self._staged.beside
        return self._candidate if waits and self._candidate is not None and self._candidate.worker.ready else None

    @property
    def on_probation(self) -> bool:
        """A promoted engine serves, and there is a way back."""
        return self._staged is not None and self._staged.serves

    def workers(self) -> list[Worker]:
        """All processes, for select and for the end."""
        servers = [self.serving, self._candidate, self._resident, *(server for server, _ in self._leaving)]
        return [server.worker for server in servers if server is not None]

    def fall_back(self, died: Died) -> EnginePlan | None:
        """After a death of the serving engine: if there is little hope for it, start the next spare instead. None if it
        is to try again, or if there is no spare. Not on probation: `go_back`."""
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

    def go_back(self, why: str) -> None:
        """On probation, while no unit is with the serving engine: the old one serves at once."""
        self._revert = why
        self._switch_back()

    def attend(self, now_ns: int) -> list[Outcome]:
        """Do what was asked for; hear and supervise all but the serving engine."""
        while not self._requests.empty() and self._revert is None:  # what was asked after it must wait for it
            self._requests.get_nowait()()
        if self._candidate is not None:
            self._follow(self._candidate, [*self._candidate.receive(), *self._candidate.tick(now_ns)])
        elif self._staged is None:
            self._start_next()
        if self._resident is not None:
            self._resident.receive()
            self._resident.tick(now_ns)
        self._see_off(now_ns)
        outcomes, self._told = self._told, []
        return outcomes

    def shadow_news(self) -> list[tuple[EngineServer, News]]:
        """Answers of staged candidates, and their deaths, since the last call."""
        news, self._shadow_news = self._shadow_news, []
        return news

    def switch(self) -> Outcome | None:
        """Between two units: if the candidate is ready and may serve, it does so from now on; or the old one again."""
        if self._revert is not None and self.on_probation:
            return self._switch_back()
        if self._staged is not None and not self._staged.beside and not self._staged.paused:
            self._pause(self._staged)
        if self._staged is not None and not self._staged.promoted:
            return None
        if self._candidate is None or not self._candidate.free:
            return None
        old, self.serving, self._candidate = self.serving, self._candidate, None
        self._deaths = 0
        if self._staged is None:
            runtimes = (_runtime(old.plan), _runtime(self.serving.plan))
            others = [spare for spare in self._spares if _runtime(spare) not in runtimes]
            self._spares = deque([old.plan, *others])  # it was good until now
            self._dismiss(old)
        else:
            self._resident, self._staged.serves = old, True  # without a process, if the line was paused
        return Outcome(self.serving.plan, "serves", staged=self._staged is not None)

    # -- candidates ------------------------------------------------------------------------------------------

    def _start_next(self) -> None:
        try:
            plan = self._offers.get_nowait()
        except Empty:
            return
        if plan.sha256 != self.serving.plan.sha256:
            self._told.append(Outcome(plan, "failed", "another model serves by now"))
            return
        self._candidate = self._make(plan)
        self._candidate.worker.start()

    def _follow(self, candidate: EngineServer, news: list[News]) -> None:
        """A candidate that dies had its chance."""
        staged = self._staged is not None
        for record in news:
            if isinstance(record, Died):
                self._give_up(candidate, cause_of_death(record))
            elif isinstance(record, Note) and staged and record.kind is Kind.STAGE:
                self._told.append(Outcome(candidate.plan, _STAGES[record.body["stage"]], staged=True))
            elif isinstance(record, Note) and staged and record.kind is Kind.READY:
                candidate.names = tuple(record.body["names"])
                self._told.append(Outcome(candidate.plan, "ready", staged=True))
        if staged:
            self._shadow_news += [(candidate, record) for record in news if not isinstance(record, Note)]

    def _give_up(self, candidate: EngineServer, why: str) -> None:
        """It leaves; after a pause the engine that served before starts again."""
        self._told.append(Outcome(candidate.plan, "failed", why, staged=self._staged is not None))
        self._dismiss(candidate)
        paused = self._staged is not None and self._staged.paused
        self._candidate = self._staged = self._starts_after = None
        if paused:
            self._starts_after = self.serving, candidate

    # -- rollouts --------------------------------------------------------------------------------------------

    def _stage(self, plans: Sequence[EnginePlan], *, beside: bool) -> None:
        self._withdraw("another candidate was staged")
        if self._candidate is not None:
            self._offers.put(self._candidate.plan)  # again, if the rollout comes to nothing
            self._dismiss(self._candidate)
        self._staged, self._candidate = _Staged(plans[1:], beside), self._make(plans[0])
        if beside:
            self._candidate.worker.start()
        self._told.append(Outcome(plans[0], "loading", staged=True))

    def _pause(self, staged: _Staged) -> None:
        """The serving engine leaves, and then the candidate starts. Its successor does only if all goes wrong."""
        assert self._candidate is not None
        old, self.serving, staged.paused = self.serving, self._make(self.serving.plan), True
        self._dismiss(old)
        self._starts_after = self._candidate, old
        self._told.append(Outcome(self._candidate.plan, "paused", staged=True))

    def _promote(self) -> None:
        if self._staged is not None:
            self._staged.promoted = True

    def _settle(self) -> None:
        if self._staged is None or self._resident is None:
            return
        self._spares = deque(self._staged.spares)
        self._dismiss(self._resident)
        self._resident = self._staged = None
        self._told.append(Outcome(self.serving.plan, "settled", staged=True))

    def _withdraw(self, why: str) -> None:
        if self.on_probation:
            self._revert = why  # between two units
        elif self._staged is not None and self._candidate is not None:
            self._give_up(self._candidate, why)

    def _switch_back(self) -> Outcome:
        """The resident engine judges again; after a pause it must start first."""
        assert self._resident is not None
        failed, why = self.serving, self._revert or ""
        self.serving, self._resident, self._staged = self._resident, None, None
        self._deaths, self._revert = 0, None
        self._dismiss(failed)
        if self.serving.worker.state is WorkerState.STOPPED:
            self._starts_after = self.serving, failed
        self._told.append(Outcome(failed.plan, "reverted", why, staged=True))
        return Outcome(self.serving.plan, "serves", why)

    # -- leaving ---------------------------------------------------------------------------------------------

    def _dismiss(self, server: EngineServer) -> None:
        server.worker.stop()
        self._leaving.append((server, monotonic_ns() + int(_LEAVE_S * NS_PER_S)))

    def _see_off(self, now_ns: int) -> None:
        for server, leave_by_ns in list(self._leaving):
            server.receive()
            server.tick(now_ns)
            if server.worker.gone:
                self._leaving.remove((server, leave_by_ns))
            elif server.worker.state in (WorkerState.LEAVING, WorkerState.STOPPED) and now_ns > leave_by_ns:
                server.worker.kill("left_late")
        if self._starts_after is not None and self._starts_after[1].worker.gone:
            self._starts_after[0].worker.start()
            self._starts_after = None


def _runtime(plan: EnginePlan) -> object:
    return plan.configuration.get("runtime")
