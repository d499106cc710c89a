"""The inspection loop: one thread in which every unit is announced, inspected, judged and stored.

It never blocks on disk, network or a worker: it hears news, hands the next unit to the engine, and enforces
deadlines. All workers are started, heard and replaced from here.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from typing import Callable, Sequence, cast

from defectd.camera.feed import CameraFeed
from defectd.clock import NS_PER_S, monotonic_ns, ms_between
from defectd.engine.server import EngineServer
from defectd.evidence.keeper import EvidenceKeeper, Kept
from defectd.faults import Faults
from defectd.inspection.events import ErrorReason, Model
from defectd.inspection.frame import Frame
from defectd.inspection.recipe import Recipe
from defectd.inspection.record import EngineAnswer, StationIdentity
from defectd.inspection.verdict import Judgement, judge, refuse
from defectd.line import Line, Store, Tally, Unit
from defectd.workers.channel import Channel
from defectd.workers.process import Died, Worker
from defectd.workers.protocol import Framed, Inferred, Kind, Missed, Note, Record, Refused, Triggered

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 1.0
_PROBE_HEIGHT_PX, _PROBE_WIDTH_PX = 64, 64


class InspectionLoop:
    """Owns cameras, engine and evidence while it runs. Other threads may read `tally`, `progress_ns`, `ready` and
    `failure`, and call `stop`."""

    def __init__(
        self,
        station: StationIdentity,
        recipe: Recipe,
        feeds: Sequence[CameraFeed],
        engine: EngineServer,
        keeper: EvidenceKeeper | None,
        store: Store,
        faults: Faults,
        deadline_ms: float,
        on_change: Callable[[], None],
    ) -> None:
        self.tally = Tally()
        self.progress_ns = monotonic_ns()
        self.ready = threading.Event()
        self.failure: str | None = None
        self._recipe, self._engine, self._keeper = recipe, engine, keeper
        self._faults, self._on_change = faults, on_change
        self._lines = [
            Line(feed, station, deadline_ms, keeper, lambda: engine.model, store, self.tally) for feed in feeds
        ]
        self._inferring: tuple[Line, Unit] | None = None
        self._probe_slot: int | None = None
        self._proven = False
        self._stop_asked = threading.Event()
        self._draining = False
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """Inspect until told to stop, then finish what was begun."""
        self._start_workers()
        try:
            while not self._finished():
                self._wait_for_news()
                self._hear_engine()
                self._hear_cameras()
                self._hear_evidence()
                self._enforce_time(monotonic_ns())
                self._feed_engine()
                self._grant_and_store()
                self.progress_ns = monotonic_ns()
        finally:
            self._end_workers()

    def stop(self) -> None:
        """Ask the loop to finish; from any thread."""
        self._stop_asked.set()
        os.write(self._wake_write, b"x")

    @property
    def model(self) -> Model | None:
        """What judges now."""
        return self._engine.model

    # -- one unit's way: announced, inspected, judged --------------------------------------------------------

    def _hear_cameras(self) -> None:
        for line in self._lines:
            for news in line.feed.receive():
                if isinstance(news, Triggered):
                    line.triggered(news)
                elif isinstance(news, Framed):
                    line.framed(news)
                elif isinstance(news, Missed):
                    line.missed(news)
                else:
                    self._on_camera_news(line, news)

    def _feed_engine(self) -> None:
        """The unit that has waited longest is next, whichever camera saw it."""
        while self._engine.free:
            waiting = [(unit.framed_ns, line) for line in self._lines if (unit := line.oldest_waiting) is not None]
            if not waiting:
                return
            _, line = min(waiting, key=lambda pair: pair[0])
            unit = line.take_waiting()
            self._inferring = line, unit
            assert unit.lease is not None
            if not self._engine.infer(line.feed.index, unit.lease.frame):
                return  # it has just died; hearing it will refuse this unit

    def _hear_engine(self) -> None:
        for news in self._engine.receive():
            if isinstance(news, Inferred) and self._inferring is not None:
                self._on_inferred(news)
            elif isinstance(news, Refused) and self._inferring is not None:
                self._refuse_inferring(cast(ErrorReason, news.reason), news.detail)
            else:
                self._on_engine_news(news)

    def _on_inferred(self, news: Inferred) -> None:
        line, unit = self._end_inference()
        if unit.decided or unit.lease is None:
            return  # it was too late, and has been refused
        detections = line.feed.ring.read_detections(unit.lease.frame.slot, news.count)
        judgement = judge(detections, self._recipe, self._engine.names, line.feed.name)
        line.decide(unit, judgement, EngineAnswer(ms_between(unit.framed_ns, news.started_ns), news.timings))

    def _refuse_inferring(self, reason: ErrorReason, detail: str) -> None:
        line, unit = self._end_inference()
        if not unit.decided:
            line.decide(unit, refuse(reason, detail))

    def _end_inference(self) -> tuple[Line, Unit]:
        assert self._inferring is not None
        (line, unit), self._inferring = self._inferring, None
        line.release_from_engine(unit)
        return line, unit

    def _grant_and_store(self) -> None:
        for line in self._lines:
            line.store_finished()
            if not self._draining:
                line.feed.grant(units_in_flight=sum(1 for _ in line.undecided()))

    # -- time ------------------------------------------------------------------------------------------------

    def _wait_for_news(self) -> None:
        workers = self._workers()
        dues = [worker.due_ns for worker in workers] + [due for line in self._lines for due in line.due_ns()]
        soonest_s = min((due - monotonic_ns() for due in dues if due is not None), default=NS_PER_S) / NS_PER_S
        channels = [worker.channel for worker in workers if worker.channel is not None]
        timeout_s = max(0.0, min(soonest_s, _LONGEST_WAIT_S))
        sources: list[int | Channel] = [self._wake_read, *channels]
        readable, _, _ = select.select(sources, [], [], timeout_s)
        if self._wake_read in readable:
            os.read(self._wake_read, 64)

    def _enforce_time(self, now_ns: int) -> None:
        """Every unit gets its verdict in time, and every stuck worker its end."""
        for line in self._lines:
            for unit in line.undecided():
                if now_ns >= unit.decide_by_ns:
                    line.decide(unit, self._why_late(unit))
            line.give_up_pictures(now_ns)
            died = line.feed.tick(now_ns)
            if died is not None:
                self._on_camera_news(line, died)
        died = self._engine.tick(now_ns)
        if died is not None:
            self._on_engine_news(died)
        for news in self._keeper.tick(now_ns) if self._keeper is not None else ():
            self._on_evidence_news(news)

    def _why_late(self, unit: Unit) -> Judgement:
        if unit.lease is None:
            return refuse("frame_missing", "the trigger came, its frame did not")
        if not self._engine.worker.ready:
            return refuse("engine_unavailable", "no engine was ready before the deadline")
        return refuse("deadline_exceeded", "the engine did not answer before the deadline")

    # -- the engine comes and goes ---------------------------------------------------------------------------

    def _on_engine_news(self, news: Record | Died) -> None:
        if isinstance(news, Died):
            self._on_engine_died(news)
        elif isinstance(news, Note) and news.kind is Kind.READY:
            self._on_engine_ready(news)
        elif isinstance(news, Inferred):
            self._on_probed()
        elif isinstance(news, Refused):
            self.failure = f"the engine refuses a grey frame: {news.detail}"

    def _on_engine_ready(self, news: Note) -> None:
        report = news.body
        self._engine.names = tuple(report["names"])
        log.info("engine: %s on %s is warm: %s", report["runtime"], report["device_name"], report["warmup"])
        if report["fallback"]:
            self._faults.begin("engine", "cpu_fallback", report["fallback"])
        self._faults.end("engine", "engine_unavailable", "a new engine is warm")
        if not self._proven:
            self._probe()
        self._on_change()

    def _on_engine_died(self, died: Died) -> None:
        self.tally.counts[f"engine_{died.reason}"] += 1
        if not self._proven:
            self._return_probe()
            if died.fatal_code == "unusable":
                self.failure = died.fatal_detail
                return
        self._faults.begin("engine", "engine_unavailable", _obituary(died), reason=died.reason)
        if self._inferring is not None:
            self._refuse_inferring("engine_failed", _obituary(died))
        self._on_change()

    def _probe(self) -> None:
        """One real inference, by the way that units take: READY means that it inspects."""
        feed = self._lines[0].feed
        self._probe_slot = slot = feed.lend()
        assert slot is not None, "no camera runs yet, so every slot is free"
        feed.ring.begin_write(slot)
        feed.ring.pixels(slot, _PROBE_HEIGHT_PX, _PROBE_WIDTH_PX).fill(114)
        generation = feed.ring.end_write(slot)
        self._engine.infer(feed.index, Frame(slot, generation, _PROBE_WIDTH_PX, _PROBE_HEIGHT_PX, None))

    def _on_probed(self) -> None:
        self._return_probe()
        self._proven = True
        for line in self._lines:
            line.feed.start()

    def _return_probe(self) -> None:
        if self._probe_slot is not None:
            self._lines[0].feed.give_back(self._probe_slot)
            self._probe_slot = None

    # -- cameras come and go ---------------------------------------------------------------------------------

    def _on_camera_news(self, line: Line, news: Record | Died) -> None:
        component = f"camera/{line.feed.name}"
        if isinstance(news, Died):
            self._on_camera_died(line, component, news)
        elif not isinstance(news, Note):
            log.error("%s: unexpected %r", component, news)
        elif news.kind is Kind.READY:
            self._faults.end(component, "camera_worker_down", "a new worker has opened the camera")
            if all(other.feed.worker.ready for other in self._lines):
                self.ready.set()
            self._on_change()
        elif news.kind is Kind.ENDED:
            log.info("%s: no more units; the station stays ready", component)
        elif news.body["state"] == "begin":
            self._faults.begin(component, news.body["code"], news.body["detail"])
        elif news.body["state"] == "end":
            self._faults.end(component, news.body["code"], news.body["detail"])

    def _on_camera_died(self, line: Line, component: str, died: Died) -> None:
        self.tally.counts[f"camera_{died.reason}"] += 1
        if not self.ready.is_set() and died.fatal_code == "unusable":
            self.failure = f"{component}: {died.fatal_detail}"
            return
        self._faults.begin(component, "camera_worker_down", _obituary(died), reason=died.reason)
        line.refuse_without_frame(refuse("camera_lost", _obituary(died)))

    # -- evidence --------------------------------------------------------------------------------------------

    def _hear_evidence(self) -> None:
        for news in self._keeper.receive() if self._keeper is not None else ():
            self._on_evidence_news(news)

    def _on_evidence_news(self, news: Record | Died | Kept) -> None:
        if isinstance(news, Kept):
            if news.trouble:
                self._faults.begin("evidence", "not_written", news.trouble)
            else:
                self._faults.end("evidence", "not_written", "pictures can be written again")
            for line in self._lines:
                line.pictures(news.inspection_id, news.images)
        elif isinstance(news, Died):
            self.tally.counts[f"evidence_{news.reason}"] += 1
            self._faults.begin("evidence", "evidence_worker_down", _obituary(news), reason=news.reason)
        elif isinstance(news, Note) and news.kind is Kind.READY:
            self._faults.end("evidence", "evidence_worker_down", "a new worker is ready")

    # -- begin and end ---------------------------------------------------------------------------------------

    def _workers(self) -> list[Worker]:
        workers = [*(line.feed.worker for line in self._lines), self._engine.worker]
        return workers if self._keeper is None else [*workers, self._keeper.worker]

    def _start_workers(self) -> None:
        """The engine first; cameras follow when it has proven itself, so that no unit meets a cold one."""
        self._engine.worker.start()
        if self._keeper is not None:
            self._keeper.worker.start()

    def _finished(self) -> bool:
        if self._stop_asked.is_set() and not self._draining:
            self._drain()
        return self.failure is not None or (self._draining and all(line.empty for line in self._lines))

    def _drain(self) -> None:
        """No new units; those with a frame get their verdict, the others are aborted."""
        self._hear_cameras()
        self._draining = True
        for line in self._lines:
            line.feed.worker.stop()
            line.refuse_without_frame(Judgement("aborted", error_detail="the daemon was stopped"))
            line.store_finished()

    def _end_workers(self) -> None:
        for worker in self._workers():
            worker.stop()
        for worker in self._workers():
            worker.reap(timeout_s=1.0)


def _obituary(died: Died) -> str:
    said = f": {died.fatal_detail}" if died.fatal_detail else ""
    return f"{died.reason}{said}; a new one starts in {died.retry_s:.1f} s"
