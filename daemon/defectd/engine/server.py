"""The daemon's half of the engine: its worker and the request that it is working on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from defectd.inspection.events import Model, WarmupReport
from defectd.inspection.frame import Frame
from defectd.workers.process import Died, News, Worker, WorkerLimits, WorkerSpec
from defectd.workers.protocol import Infer, Inferred, Kind, Note, Refused
from defectd.workers.ring import FrameRing


@dataclass(frozen=True)
class EnginePlan:
    """What the engine worker is told, and who it is on the wire."""

    name: str
    version: str
    sha256: str
    start_timeout_s: float
    hang_s: float
    configuration: dict[str, Any]


class EngineServer:
    """One engine as the inspection loop sees it. It works on one request at a time."""

    def __init__(self, plan: EnginePlan, rings: tuple[FrameRing, ...], log_level: str) -> None:
        self.plan, self._rings = plan, rings
        self.names: tuple[str, ...] = ()
        self._request = 0
        self._pending: int | None = None
        limits = WorkerLimits(start_s=plan.start_timeout_s)
        self._log_level = log_level
        self._variant: str | None = None
        self.worker = Worker(WorkerSpec("engine", "defectd.engine.worker", self._configuration, rings, limits))

    @property
    def free(self) -> bool:
        """It is ready and has nothing to do."""
        return self.worker.ready and self._pending is None

    @property
    def model(self) -> Model | None:
        """As events name it; None while no engine is ready."""
        if not self.worker.ready:
            return None
        runtime = str(self.worker.report["runtime"])
        return Model(name=self.plan.name, version=self.plan.version, sha256=self.plan.sha256, runtime=runtime)

    @property
    def warmup(self) -> WarmupReport | None:
        """How it became warm; None while no engine is ready."""
        return WarmupReport(**self.worker.report["warmup"]) if self.worker.ready else None

    def infer(self, ring: int, frame: Frame) -> bool:
        """Ask for the detections in *frame*; False if there is no engine after all."""
        self._request += 1
        request = Infer(self._request, ring, frame.slot, frame.generation, frame.width_px, frame.height_px)
        if not self.worker.send(request, reply_within_s=self.plan.hang_s):
            return False
        self._pending = self._request
        return True

    def receive(self) -> list[News]:
        """What the worker has to say; an answer to the pending request makes it free again."""
        return self._settle(self.worker.receive())

    def tick(self, now_ns: int) -> list[News]:
        """See Worker.tick."""
        return self._settle(self.worker.tick(now_ns))

    def _configuration(self) -> dict[str, Any]:
        """With what was found to be the fastest: a successor need not measure again while units wait for it."""
        return {"log_level": self._log_level, "engine": {**self.plan.configuration, "variant": self._variant}}

    def _settle(self, news: list[News]) -> list[News]:
        """A worker that answers what it was not asked is replaced at once."""
        settled: list[News] = []
        is_broken = False
        for record in news:
            if isinstance(record, (Inferred, Refused)):
                if is_broken or record.request != self._pending:
                    is_broken = True
                    continue
                self._pending = None
                self.worker.replied()
            elif isinstance(record, Note) and record.kind is Kind.READY:
                self._variant = record.body.get("variant")
            elif isinstance(record, Died):
                self._pending = None
                if not self.worker.report:  # it was not READY: what is known may be why
                    self._variant = None
            settled.append(record)
        return [*settled, *self._settle(self.worker.kill("protocol"))] if is_broken else settled
