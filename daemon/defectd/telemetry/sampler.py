"""One thread that looks at the machine each second, tells what it sees, and decides what is done about heat.

The line is never waited for, and never waits: it hands over its units, and reads two values that are replaced whole.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Callable, Protocol

from defectd.clock import NS_PER_S, monotonic_ns, utc_now
from defectd.faults import Faults
from defectd.inspection.events import Conditions, InspectionEvent
from defectd.inspection.telemetry_wire import DeviceTelemetry, SlowDownEvent
from defectd.telemetry.felt import Felt
from defectd.telemetry.jtop_source import JtopReading, filled_in
from defectd.telemetry.message import device_message
from defectd.telemetry.pressure import read_pressure
from defectd.telemetry.sample import Board, DeviceSample, Roots
from defectd.telemetry.thermal import Level, ThermalLimits, ThermalPolicy, sustainable_rate_hz
from defectd.telemetry.throttle import ThrottleChange, Throttling

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_REMEMBER = 90  # looks
_FRESH_NS = 10 * NS_PER_S


class Reader(Protocol):
    """See Sysfs."""

    def read(self) -> DeviceSample: ...


class Extra(Protocol):
    """See JtopSource."""

    @property
    def trouble(self) -> str | None: ...
    def latest(self) -> JtopReading | None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class Ears:
    """Who hears of it; all are called on the sampler's thread, and must not block."""

    faults: Faults
    publish: Callable[[DeviceTelemetry], None]
    record: Callable[[SlowDownEvent], None]
    observe: Callable[[DeviceSample, bool], None]
    """Each look, and whether the machine is held back."""


class Sampler:
    """`inspected` may be called from any thread; `latest`, `conditions` and `sheds` may be read from any."""

    def __init__(
        self,
        station: str,
        boot_id: str,
        board: Board,
        reader: Reader,
        extra: Extra | None,
        limits: ThermalLimits,
        ears: Ears,
        deadline_ms: float,
        every_s: float,
        outbox_pending: Callable[[], int],
        roots: Roots | None = None,
    ) -> None:
        self._station, self._boot_id, self._board = station, boot_id, board
        self._reader, self._extra, self._ears, self._every_s = reader, extra, ears, every_s
        self._outbox_pending, self._roots = outbox_pending, roots or Roots()
        self._throttling, self._policy = Throttling(), ThermalPolicy(limits)
        self._felt = Felt(deadline_ms)
        self._samples: deque[DeviceSample] = deque(maxlen=_REMEMBER)
        self._asked_to_slow: Level | None = None
        self._trouble: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self.latest: DeviceSample | None = None
        self._conditions: Conditions | None = None
        self.sheds = False

    @property
    def conditions(self) -> Conditions | None:
        """As of the last look; None if that was long ago."""
        latest = self.latest
        return self._conditions if latest is not None and monotonic_ns() - latest.at_ns < _FRESH_NS else None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """A look that hangs in a driver ends with the process."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._extra is not None:
            self._extra.stop()

    def inspected(self, event: InspectionEvent) -> None:
        """A unit has its verdict."""
        self._felt.add(event, monotonic_ns())

    def _run(self) -> None:
        publish_due_ns = monotonic_ns() + int(self._every_s * NS_PER_S)
        while not self._stop.wait(_LOOK_EVERY_S):
            try:
                sample = self._look()
                self._ears.faults.end("telemetry", "internal_error", "it looks again")
                if sample.at_ns >= publish_due_ns:
                    publish_due_ns = sample.at_ns + int(self._every_s * NS_PER_S)
                    self._ears.publish(self._message(sample))
            except Exception as error:  # the thread's outermost guard: the line does not depend on it
                log.exception("telemetry stumbled")
                self._ears.faults.begin("telemetry", "internal_error", repr(error))

    def _look(self) -> DeviceSample:
        sample = self._sampled()
        self._samples.append(sample)
        self.latest = sample
        self._felt.look(read_pressure(self._roots, sample.at_ns))
        for change in self._throttling.update(sample):
            self._tell_throttling(change)
        self._act_on_heat(sample)
        synced = {True: "ntp-synced", False: "unsynced", None: "unknown"}[sample.clock_synced]
        self._conditions = Conditions.model_validate(
            {
                "throttled": self._throttling.active,
                "gpu_clock_mhz": sample.gpu.current_mhz if sample.gpu is not None else None,
                "clock": synced,
            }
        )
        self._ears.observe(sample, self._throttling.active)
        return sample

    def _sampled(self) -> DeviceSample:
        sample = self._reader.read()
        if self._extra is None:
            return sample
        reading, trouble = self._extra.latest(), self._extra.trouble
        if trouble is not None and trouble != self._trouble:
            self._ears.faults.end("telemetry", "jtop", "another trouble takes its place")
            self._ears.faults.begin("telemetry", "jtop", f"{trouble}; everything else comes from sysfs")
        elif trouble is None and reading is not None:
            self._ears.faults.end("telemetry", "jtop", "jtop answers")
        self._trouble = trouble
        return sample if reading is None else filled_in(sample, reading)

    def _tell_throttling(self, change: ThrottleChange) -> None:
        code = f"throttled_{change.cause}"
        if change.kind == "begin":
            self._ears.faults.begin("device", code, change.detail, domains=list(change.domains))
        else:
            self._ears.faults.end("device", code, change.detail, domains=list(change.domains), lasted_s=change.lasted_s)

    def _act_on_heat(self, sample: DeviceSample) -> None:
        before = self._policy.level
        held_back = set(self._throttling.causes) - {"capped"}  # a limit that somebody pinned does not go away by itself
        level = self._policy.update(sample.hottest_c, bool(held_back), sample.at_ns)
        self.sheds = level >= Level.SHED
        if level is before:
            return
        heat = f"the hottest zone has {sample.hottest_c:.1f} °C" if sample.hottest_c else "no zone tells"
        self._ears.faults.note("thermal", f"level_{level.word}", f"from {before.word} to {level.word}: {heat}")
        for at_least, code, doing in (
            (Level.WARN, "hot", "look at the fan, the filter and the air around the station"),
            (Level.ALARM, "alarm", "the machine is about to turn itself off: slow the line down, or cool it"),
        ):
            if level >= at_least:
                self._ears.faults.begin("thermal", code, f"{heat}; {doing}")
            else:
                self._ears.faults.end("thermal", code, heat)
        self._ask_to_slow(level, heat, sample)

    def _ask_to_slow(self, level: Level, heat: str, sample: DeviceSample) -> None:
        wanted = level if level >= Level.SLOW else None
        if wanted is self._asked_to_slow:
            return
        self._asked_to_slow = wanted
        now_hz = self._felt.rate_hz(sample.at_ns)
        can_hz = sustainable_rate_hz(self._felt.engine_p99_ms(sample.at_ns), now_hz)
        asked = f"{can_hz:.1f} units/s can be judged in time for long" if can_hz is not None else "slow the line down"
        self._ears.record(
            SlowDownEvent.model_validate(
                {
                    "station": self._station,
                    "boot_id": self._boot_id,
                    "created_at": utc_now(),
                    "state": "raised" if wanted is not None else "cleared",
                    "level": None if wanted is None else wanted.word,
                    "detail": f"{heat}; {asked}" if wanted is not None else heat,
                    "hottest_c": sample.hottest_c,
                    "current_rate_hz": now_hz,
                    "sustainable_rate_hz": can_hz,
                }
            )
        )

    def _message(self, sample: DeviceSample) -> DeviceTelemetry:
        assert self._conditions is not None
        return device_message(
            self._station, self._boot_id, self._board, sample, self._conditions.clock,
            self._throttling.causes, self._policy.level, self._felt.take(list(self._samples)), self._outbox_pending(),
        )  # fmt: skip
