"""The inspection loop: one thread in which every unit is announced, inspected, judged and stored.

It never blocks on disk, network or a worker: it hears news, hands the next unit to the engine, and enforces
deadlines. All workers are started, heard and replaced from here.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from typing import Any, Callable, Sequence

from defectd.births import Births
from defectd.camera.feed import CameraFeed
from defectd.clock import NS_PER_S, monotonic_ns, ms_between
from defectd.engine.server import EngineServer
from defectd.engine.serving import Engines, Outcome
from defectd.evidence.keeper import EvidenceKeeper
from defectd.faults import Faults
from defectd.inspection.events import Conditions, ErrorReason
from defectd.inspection.recipe import Recipe
from defectd.inspection.record import EngineAnswer, StationIdentity
from defectd.inspection.shadow import ShadowUnit
from defectd.inspection.verdict import Judgement, judge, refuse
from defectd.line import Keeps, Line, LinePlan, Store, Tally, fails_or_errors
from defectd.pictures import Pictures
from defectd.probe import Probe
from defectd.shadow import Shadow
from defectd.unit import View
from defectd.workers.channel import Channel
from defectd.workers.process import Died, News, Worker, WorkerState, cause_of_death, obituary
from defectd.workers.protocol import Framed, Inferred, Kind, Missed, Named, Note, Refused, Triggered

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 1.0
_DRAIN_NS = 2 * NS_PER_S
_REAP_S = 1.0
_THE_MODELS_FAULT = ("engine_failed", "non_finite_output")
_ABORTED = Judgement("aborted", error_detail="the daemon was stopped")


class InspectionLoop:
    """Owns cameras, engine and evidence while it runs. Other threads may call `stop` and read what is public."""

    def __init__(
        self,
        station: StationIdentity,
        recipe: Recipe,
        lines: Sequence[tuple[LinePlan, Sequence[CameraFeed]]],
        engines: Engines,
        keeper: EvidenceKeeper | None,
        store: Store,
        faults: Faults,
        on_change: Callable[[], None],
        on_swap: Callable[[Outcome], None],
        on_shadow: Callable[[ShadowUnit], None],
        conditions: Callable[[], Conditions | None] = lambda: None,
        sheds: Callable[[], bool] = lambda: False,
        keeps: Keeps = fails_or_errors,
        on_turn: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """*on_turn* is called at least each second, *on_end* behind the last verdict; neither may block."""
        self.tally = Tally()
        self.progress_ns = monotonic_ns()
        self.ready = threading.Event()
        self.failure: str | None = None
        self._recipe, self._engines = recipe, engines
        self._faults, self._on_change, self._on_swap = faults, on_change, on_swap
        self._on_turn, self._on_end = on_turn, on_end
        self._lines = [
            Line(plan, feeds, station, keeper, lambda: self._engine.model, store, self.tally, conditions, sheds, keeps)
            for plan, feeds in lines
        ]
        self._looks = [(line, feed) for line in self._lines for feed in line.feeds]
        self.births = Births(self._lines, recipe, faults, self._wake)
        self._pictures = Pictures(keeper, self._lines, faults, self.tally)
        self._inferring: tuple[Line, View] | None = None
        self._shadow = Shadow(engines, recipe, on_shadow, sheds)
        self._probe = Probe(self._looks[0][1])
        self.engine_proven = False
        self._stop_asked = threading.Event()
        self._drain_by_ns: int | None = None
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """Inspect until told to stop, then finish what was begun."""
        self._start_workers()
        try:
            while not self._finished():
                self._wait_for_news()
                self._refuse_late_units(monotonic_ns())
                self._on_engine_news(self._engine.receive())
                self._attend_other_engines()
                self._hear_cameras()
                self.births.attend(monotonic_ns(), self.ready.is_set() and self._drain_by_ns is None)
                self._pictures.hear()
                self._replace_stuck_workers(monotonic_ns())
                self._feed_engine()
                self._grant_and_store()
                self.progress_ns = monotonic_ns()
        finally:
            self._end()

    def stop(self) -> None:
        """Ask the loop to finish; from any thread."""
        self._stop_asked.set()
        self._wake()

    @property
    def _engine(self) -> EngineServer:
        """A swap shows here, and happens between two units."""
        return self._engines.serving

    # -- one unit's way: announced, inspected, judged --------------------------------------------------------

    def _hear_cameras(self) -> None:
        for line, feed in self._looks:
            self._on_camera_news(line, feed, feed.receive())

    def _on_camera_news(self, line: Line, feed: CameraFeed, news: list[News]) -> None:
        for record in news:
            if isinstance(record, Triggered):
                line.triggered(feed, record)
            elif isinstance(record, Named):
                line.named(feed, record)
            elif isinstance(record, Framed):
                line.framed(feed, record)
            elif isinstance(record, Missed):
                line.missed(feed, record)
            elif isinstance(record, Died):
                self._on_camera_died(line, feed, record)
            elif isinstance(record, Note):
                self._on_camera_note(line, feed, record)

    def _feed_engine(self) -> None:
        """The view that has waited longest is next, whichever camera saw it."""
        while self._engine.free:
            waiting = [(view.framed_ns, line) for line in self._lines if (view := line.oldest_waiting) is not None]
            if not waiting:
                self._shadow.feed()
                return
            _, line = min(waiting, key=lambda pair: pair[0])
            view = line.take_waiting()
            self._inferring = line, view
            assert view.lease is not None
            if not self._engine.infer(view.feed.index, view.lease.frame):
                return  # it has just died; hearing it will refuse this view

    def _on_engine_news(self, news: list[News]) -> None:
        engine = self._engine
        for record in news:
            if self._engine is not engine:
                return  # it was replaced over what it said before; the rest of it is no news of its successor
            if isinstance(record, Inferred) and self._inferring is not None:
                self._on_inferred(record)
            elif isinstance(record, Refused) and self._inferring is not None:
                self._on_refused(record.reason, record.detail)
            elif isinstance(record, Inferred):
                self._on_probed()
            elif isinstance(record, Refused):
                self.failure = f"the engine refuses a grey frame: {record.detail}"
            elif isinstance(record, Died):
                self._on_engine_died(record)
            elif isinstance(record, Note) and record.kind is Kind.READY:
                self._on_engine_ready(record.body)

    def _on_inferred(self, news: Inferred) -> None:
        line, view = self._end_inference()
        if view.unit.decided or view.lease is None:
            return  # it was too late, and has been refused
        detections = view.feed.ring.read_detections(view.lease.frame.slot, news.count)
        judgement = judge(detections, self._recipe, self._engine.names, view.feed.name)
        self._shadow.judged(view.feed, view.lease, judgement, news.timings.inference_ms)
        queue_ms = ms_between(view.framed_ns, news.started_ns)
        line.settle(
            view, judgement, EngineAnswer(queue_ms, news.timings, detections, self._engine.names, self._engine.model)
        )

    def _on_refused(self, reason: ErrorReason, detail: str) -> None:
        if self._engines.on_probation and reason in _THE_MODELS_FAULT:
            self._go_back(f"{reason}: {detail}")
        else:
            self._refuse_inferring(reason, detail)

    def _refuse_inferring(self, reason: ErrorReason, detail: str) -> None:
        line, view = self._end_inference()
        if not view.unit.decided:
            line.settle(view, refuse(reason, detail))

    def _end_inference(self) -> tuple[Line, View]:
        assert self._inferring is not None
        (line, view), self._inferring = self._inferring, None
        line.release_from_engine(view)
        return line, view

    def _grant_and_store(self) -> None:
        for line in self._lines:
            line.store_finished()
            if self._drain_by_ns is None:
                for feed in line.feeds:
                    feed.grant(units_in_flight=sum(1 for _ in line.undecided()))
        self._on_turn()

    # -- time ------------------------------------------------------------------------------------------------

    def _wait_for_news(self) -> None:
        workers = self._workers()
        dues = [worker.due_ns for worker in workers] + [due for line in self._lines for due in line.due_ns()]
        dues += self.births.due_ns()
        soonest_s = min((due - monotonic_ns() for due in dues if due is not None), default=NS_PER_S) / NS_PER_S
        channels = [worker.channel for worker in workers if worker.channel is not None]
        timeout_s = max(0.0, min(soonest_s, _LONGEST_WAIT_S))
        sources: list[int | Channel] = [self._wake_read, *channels]
        readable, _, _ = select.select(sources, [], [], timeout_s)
        if self._wake_read in readable:
            os.read(self._wake_read, 64)

    def _refuse_late_units(self, now_ns: int) -> None:
        """Before the engine is heard: an answer that comes too late must not pass a unit."""
        for line in self._lines:
            line.refuse_late(now_ns, engine_ready=self._engine.worker.ready)
            line.keeping.give_up(now_ns)

    def _replace_stuck_workers(self, now_ns: int) -> None:
        """After they were heard: if the daemon itself was held up, their signs of life have waited for it."""
        for line, feed in self._looks:
            self._on_camera_news(line, feed, feed.tick(now_ns))
        self._on_engine_news(self._engine.tick(now_ns))
        self._pictures.tick(now_ns)

    # -- the engine comes and goes ---------------------------------------------------------------------------

    def _attend_other_engines(self) -> None:
        outcomes = self._engines.attend(monotonic_ns())
        self._shadow.hear()
        between_units = self._inferring is None and not any(line.half_judged for line in self._lines)
        if self.engine_proven and between_units and (swapped := self._engines.switch()) is not None:
            outcomes.append(swapped)
            self._greet_engine()
        for outcome in outcomes:
            if outcome.serves:
                self._faults.end("engine", "runtime_unusable", "another engine serves")
            log.info("%s %s: %s %s", outcome.plan.name, outcome.plan.version, outcome.kind, outcome.detail)
            self._on_swap(outcome)

    def _on_engine_ready(self, report: dict[str, Any]) -> None:
        self._engine.names = tuple(report["names"])
        log.info("engine: %s on %s is warm: %s", report["runtime"], report["device_name"], report["warmup"])
        if report["fallback"]:
            self._faults.begin("engine", "cpu_fallback", report["fallback"])
        else:
            self._faults.end("engine", "cpu_fallback", f"it runs on {report['device_name']}")
        self._faults.end("engine", "engine_unavailable", "a new engine is warm", ends=dict(self._engine.worker.exits))
        if not self.engine_proven:
            self._probe.send(self._engine)
        self._on_change()

    def _greet_engine(self) -> None:
        """Another one serves. If it must start first, as after a pause, it will say READY itself."""
        if self._engine.worker.ready:
            self._on_engine_ready(self._engine.worker.report)
        else:
            self._faults.begin("engine", "engine_unavailable", "the engine of the model before starts again")

    def _on_engine_died(self, died: Died) -> None:
        self.tally.counts[f"engine_{died.reason}"] += 1
        if self._engines.on_probation:
            self._go_back(cause_of_death(died))
            return
        if not self.engine_proven:
            self._probe.give_back()
        if (spare := self._engines.fall_back(died)) is not None:
            detail = f"{died.fatal_detail or died.reason}; {spare.configuration['runtime']} serves instead"
            self._faults.begin("engine", "runtime_unusable", detail)
        elif died.fatal_code == "unusable" and not self.engine_proven:
            self.failure = died.fatal_detail
            return
        self._faults.begin("engine", "engine_unavailable", obituary(died), reason=died.reason)
        if self._inferring is not None:
            self._refuse_inferring("engine_failed", obituary(died))
        self._on_change()

    def _go_back(self, why: str) -> None:
        """On probation: the old engine judges from now on, beginning with the unit that the other one failed on."""
        self._engines.go_back(why)
        self._greet_engine()
        if self._inferring is not None:
            line, view = self._end_inference()
            if not view.unit.decided:
                line.take_back(view)
        self._on_change()

    def _on_probed(self) -> None:
        self._probe.give_back()
        self.engine_proven = True
        for _, feed in self._looks:
            feed.start()

    # -- cameras come and go ---------------------------------------------------------------------------------

    def _on_camera_note(self, line: Line, feed: CameraFeed, note: Note) -> None:
        component = f"camera/{feed.name}"
        code, detail = str(note.body.get("code")), str(note.body.get("detail"))
        if note.kind is Kind.READY:
            self._end_faults(component, "a new worker has opened the camera", ends=dict(feed.worker.exits))
            if all(other.worker.ready for _, other in self._looks):
                self.ready.set()
            self._on_change()
        elif note.kind is Kind.ENDED:
            line.ended = True
            line.tell_drops()
            self._end_faults(component, "the source has no more units")
            log.info("%s: no more units; the station stays ready", component)
        elif note.body.get("state") == "begin":
            self._faults.begin(component, code, detail)
            if code == "camera_lost":
                self.births.triggers_were_lost(line, detail)
        elif note.body.get("state") == "end":
            self._faults.end(component, code, detail)

    def _on_camera_died(self, line: Line, feed: CameraFeed, died: Died) -> None:
        component = f"camera/{feed.name}"
        self.tally.counts[f"camera_{died.reason}"] += 1
        if not self.ready.is_set() and died.fatal_code == "unusable":
            self.failure = f"{component}: {died.fatal_detail}"
            return
        self._faults.begin(component, "camera_worker_down", obituary(died), reason=died.reason)
        self.births.triggers_were_lost(line, obituary(died))
        line.refuse_without_frame(feed, refuse("camera_lost", obituary(died)))

    def _end_faults(self, component: str, detail: str, **data: Any) -> None:
        """All that a worker has begun; another one cannot know of it."""
        for fault in self._faults.active():
            if fault.component == component:
                self._faults.end(component, fault.code, detail, **data)

    def _wake(self) -> None:
        """The loop looks up; from any thread."""
        os.write(self._wake_write, b"x")

    # -- begin and end ---------------------------------------------------------------------------------------

    def _workers(self) -> list[Worker]:
        return [*(feed.worker for _, feed in self._looks), *self._engines.workers(), *self._pictures.workers()]

    def _start_workers(self) -> None:
        """The engine first; cameras follow when it has proven itself, so that no unit meets a cold one."""
        self._engine.worker.start()
        self._pictures.start()

    def _finished(self) -> bool:
        """True when every unit is stored after `stop`, or when there is no going on."""
        if self.failure is not None:
            return True
        if not self._stop_asked.is_set():
            return False
        if self._drain_by_ns is None:
            self._drain_by_ns = monotonic_ns() + _DRAIN_NS
            for _, feed in self._looks:
                feed.worker.stop()
        for line, feed in self._looks:
            if feed.worker.state is WorkerState.STOPPED:  # it has said all that it saw
                line.refuse_without_frame(feed, _ABORTED)
        return all(line.empty for line in self._lines) or monotonic_ns() > self._drain_by_ns

    def _end(self) -> None:
        """Nobody who was announced is left without a verdict, and no process is left."""
        for line in self._lines:
            line.abort(_ABORTED)
        self._on_end()
        deadline_s = time.monotonic() + _REAP_S
        for worker in self._workers():
            worker.stop()
        for worker in self._workers():
            worker.reap(deadline_s - time.monotonic())
