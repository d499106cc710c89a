"""The daemon's life: open, warm up, READY, serve, drain."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
from dataclasses import dataclass, field
from types import FrameType
from typing import Callable

from defectd.chooser import RuntimeChooser
from defectd.clock import NS_PER_S, monotonic_ns, utc_now
from defectd.errors import StartupError, StationFailed
from defectd.faults import Faults
from defectd.inspection.events import ActiveFault, Status
from defectd.loop import InspectionLoop
from defectd.messaging.outbox import Outbox
from defectd.messaging.publisher import Publisher
from defectd.rollout.rollouts import Rollouts
from defectd.rollout.starts import GOOD_AFTER_S
from defectd.systemd import notify, watchdog_interval_s
from defectd.telemetry.sampler import Sampler
from defectd.web.server import WebServer

log = logging.getLogger(__name__)

_SWITCH_S = 0.0005
"""So long may another thread keep the interpreter from the one that inspects; Python's own 5 ms show in the p99."""
_STATUS_EVERY_S = 5.0
_START_EXTENSION_S = 60.0
_STOP_TRIAL_S = _STOP_ROLLOUT_S = _STOP_SAMPLER_S = 1.0
_DRAIN_UNITS_S = 3.0
_DRAIN_MQTT_S = 4.0
_DRAIN_OUTBOX_S = 2.0
_AFTER_A_STANDSTILL_S = 0.5  # when the whole machine stood still, all threads are late, and need a moment
_PROGRESS_LIMITS_S = {"inspect": 5.0, "outbox": 30.0, "mqtt": 90.0}
"""A broker that does not answer, or a disk that is slow, must not get the daemon killed; a stuck thread must."""


class Condition:
    """What the station can say about itself; read by the mqtt thread, written by the main thread."""

    def __init__(self, boot_id: str, active_faults: Callable[[], list[ActiveFault]]) -> None:
        self.phase = "starting"
        self.detail = "starting"
        self._boot_id, self._active_faults = boot_id, active_faults

    def status(self) -> Status:
        """As retained on `status` now."""
        faults = self._active_faults()
        condition = "degraded" if faults and self.phase == "inspecting" else self.phase
        return Status(
            state="online", condition=condition, detail=self.detail, boot_id=self._boot_id, ts=utc_now(), faults=faults
        )

    def last_words(self) -> Status:
        """What the broker says for us when we are gone without a word."""
        return Status(
            state="offline", condition="lost", detail="the connection was lost", boot_id=self._boot_id, ts=utc_now()
        )


@dataclass
class Daemon:
    """All parts, started in the order of their need and stopped in reverse, each with a deadline."""

    outbox: Outbox
    publisher: Publisher
    loop: InspectionLoop
    faults: Faults
    condition: Condition
    sampler: Sampler
    chooser: RuntimeChooser | None = None
    rollouts: Rollouts | None = None
    web: WebServer | None = None
    _good_due_ns: int | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises StartupError if the station cannot become ready as configured,
        StationFailed if it cannot go on."""
        self._install_signals()
        sys.setswitchinterval(_SWITCH_S)
        inspect = threading.Thread(target=self._guard_loop, name="inspect")
        self.publisher.start()
        self.sampler.start()
        self._open_web()
        inspect.start()
        try:
            self._become_ready()
            self._serve()
        finally:
            self._drain(inspect)
        if self.loop.failure is not None:
            raise (StationFailed if self.loop.ready.is_set() else StartupError)(self.loop.failure)

    def stop(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Ask for the end. A signal handler: it only sets a flag."""
        del signum, frame
        self._stop.set()

    def is_ready(self) -> tuple[bool, str]:
        """Whether units are inspected, and what it is doing. Any thread."""
        return self.condition.phase == "inspecting", self.condition.detail

    def is_alive(self) -> tuple[bool, str]:
        """Whether every thread makes progress. Any thread."""
        stuck = self._stuck()
        return not stuck, f"no progress in {', '.join(stuck)}" if stuck else "every thread makes progress"

    def _open_web(self) -> None:
        """A port that is taken does not stop a line; it may become free."""
        if self.web is None:
            return
        try:
            self.web.start()
        except StartupError as error:
            self.faults.begin("web", "no_port", str(error))
            self.web.start_later(lambda: self.faults.end("web", "no_port", "it listens now"))

    def _install_signals(self) -> None:
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)

    def _become_ready(self) -> None:
        sign_due_ns = monotonic_ns()
        while not self.loop.ready.is_set() and not self._over():
            if monotonic_ns() >= sign_due_ns:
                self._say(self._starting())
                if self._feed_watchdog():  # a camera that is not plugged in is no reason to start over
                    notify(f"EXTEND_TIMEOUT_USEC={int(_START_EXTENSION_S * 1e6)}")
                sign_due_ns = monotonic_ns() + int(self._interval_s() * NS_PER_S)
            self._count_as_good()
            self._stop.wait(0.05)
        if self.loop.ready.is_set():
            self.condition.phase = "inspecting"
            notify("READY=1")
            self._say(self._summary())
            self.publisher.announce()
            log.info("READY: inspecting")
            if self.chooser is not None:
                self.chooser.start()
            if self.rollouts is not None:
                self.rollouts.start()

    def _serve(self) -> None:
        interval_s = self._interval_s()
        while not self._over():
            self._stop.wait(interval_s)
            self._feed_watchdog()
            self._count_as_good()
            if self.rollouts is not None:
                self.rollouts.tend()
            self._say(self._summary())

    def _count_as_good(self) -> None:
        """Half a minute with an engine that works: whatever else is missing is not the model's fault."""
        if self.rollouts is None or not self.loop.engine_proven:
            return
        if self._good_due_ns is None:
            self._good_due_ns = monotonic_ns() + GOOD_AFTER_S * NS_PER_S
        elif 0 < self._good_due_ns <= monotonic_ns():
            self._good_due_ns = 0
            self.rollouts.count_as_good()

    def _interval_s(self) -> float:
        return min(watchdog_interval_s() or math.inf, _STATUS_EVERY_S)

    def _starting(self) -> str:
        faults = "; ".join(f"{fault.component}: {fault.detail}" for fault in self.faults.active())
        return f"warming up the engine and opening the cameras{'; ' if faults else ''}{faults}"

    def _over(self) -> bool:
        return self._stop.is_set() or self.loop.failure is not None

    def _drain(self, inspect: threading.Thread) -> None:
        """The reverse of the start: no more units, then everything to disk, then out what the broker takes."""
        self.condition.phase = "stopping"
        notify("STOPPING=1")
        self._say("finishing the units on the line")
        self.publisher.announce()
        if self.chooser is not None:
            self.chooser.stop(_STOP_TRIAL_S)
        if self.rollouts is not None:
            clean, proven = self.loop.failure is None, self.loop.engine_proven
            self.rollouts.stop(_STOP_ROLLOUT_S, clean=clean, engine_proven=proven)
        if self.web is not None:
            self.web.stop()
        self.sampler.stop(_STOP_SAMPLER_S)
        self.loop.stop()
        inspect.join(_DRAIN_UNITS_S)
        if not inspect.is_alive() and self.loop.failure is None:
            self.outbox.set_positions({"clean": 1})
        self.outbox.flush(_DRAIN_OUTBOX_S)
        self._say("publishing the last events")
        self.publisher.close(_DRAIN_MQTT_S)
        self.outbox.close(_DRAIN_OUTBOX_S)
        log.info("stopped: %s", self._summary())

    def _guard_loop(self) -> None:
        try:
            self.loop.run()
        except Exception as error:
            log.exception("the inspection loop failed")
            self.loop.failure = f"the inspection loop failed: {error!r}"
        finally:
            self._stop.set()

    def _feed_watchdog(self) -> bool:
        """Only if every thread has made progress: a stuck one must end in a restart. True if all have."""
        stuck = self._stuck()
        if stuck and not self._stop.wait(_AFTER_A_STANDSTILL_S):
            stuck = self._stuck()
        if stuck:
            log.error("no progress in %s", ", ".join(stuck))
        else:
            notify("WATCHDOG=1")
        return not stuck

    def _stuck(self) -> list[str]:
        """The threads that have made no progress for too long."""
        now_ns = monotonic_ns()
        progress = {
            "inspect": self.loop.progress_ns,
            "outbox": self.outbox.last_progress_ns,
            "mqtt": self.publisher.last_progress_ns,
        }
        return [name for name, at_ns in progress.items() if now_ns - at_ns > _PROGRESS_LIMITS_S[name] * NS_PER_S]

    def _say(self, detail: str) -> None:
        self.condition.detail = detail
        notify(f"STATUS={detail}")

    def _summary(self) -> str:
        counts = self.loop.tally.counts
        latencies = sorted(self.loop.tally.latencies_ms)
        p99 = f", p99 {latencies[int(len(latencies) * 0.99)]:.0f} ms" if latencies else ""
        faults = "".join(f"; {fault.component}: {fault.code}" for fault in self.faults.active())
        doing = f"; {self.chooser.doing}" if self.chooser is not None and self.chooser.doing else ""
        doing += f"; {self.rollouts.doing}" if self.rollouts is not None and self.rollouts.doing else ""
        broker = "connected" if self.publisher.connected else "away"
        return (
            f"{counts['triggers']} units: {counts['passed']} passed, {counts['failed']} failed, "
            f"{counts['error']} errors{p99}; broker {broker}, {self.outbox.depth().pending} events to send"
            f"{faults}{doing}"
        )
