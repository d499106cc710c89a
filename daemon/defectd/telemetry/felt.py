"""What the line felt: latencies per stage, units that were late, and those that took far longer than usual."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Sequence

from defectd.clock import NS_PER_MS, NS_PER_S
from defectd.inspection.events import InspectionEvent
from defectd.inspection.telemetry_wire import LatencyFigures
from defectd.inspection.telemetry_wire import SlowUnit as ToldUnit
from defectd.telemetry.explain import Pressure, SlowUnit, explain
from defectd.telemetry.latency import WHOLE, Figures, Latencies, Series
from defectd.telemetry.sample import DeviceSample

_SLOWER = 2.0  # than the median: worth a word
_RATE_OVER_S = 30.0
_SLOWEST = 5
_LATE = ("deadline_exceeded", "engine_unavailable")
_ENGINE_STAGES = ("preprocess", "inference", "postprocess")


@dataclass
class Interval:
    """Since the last message. Counts, milliseconds, and the slowest units with what explains them."""

    units: int = 0
    late: int = 0
    dropped: int = 0
    queue_ms: float | None = None
    latency: list[LatencyFigures] = field(default_factory=list)
    slow: list[ToldUnit] = field(default_factory=list)


@dataclass(frozen=True)
class _Slow:
    camera: str
    model: str
    trigger: int
    unit: SlowUnit


class Felt:
    """`add` from any thread, the rest from the sampler's."""

    def __init__(self, deadline_ms: float) -> None:
        self._latencies = Latencies(deadline_ms)
        self._deadline_ms = deadline_ms
        self._lock = threading.Lock()
        self._now = Interval()
        self._slow: list[_Slow] = []
        self._decided_ns: deque[int] = deque(maxlen=12_000)
        self._pressures: deque[Pressure] = deque(maxlen=90)

    def add(self, event: InspectionEvent, at_ns: int) -> None:
        """A unit has its verdict."""
        if event.verdict in ("aborted", "skipped"):
            return
        timing, model = event.timing_ms, "" if event.model is None else f"{event.model.name} {event.model.version}"
        judged = event.verdict != "error"
        if judged or event.error in _LATE:
            self._latencies.add_unit(event.frame.camera, model, timing, at_ns)
        stages_ms = {stage: ms for stage, ms in timing if ms is not None and stage != WHOLE}
        with self._lock:
            now = self._now
            now.units += 1
            now.late += event.error == "deadline_exceeded" or timing.capture_to_verdict > self._deadline_ms
            now.dropped += event.frame.dropped_before
            now.queue_ms = max(filter(None, (now.queue_ms, timing.queue)), default=now.queue_ms)
            begun_ns = at_ns - int(timing.capture_to_verdict * NS_PER_MS)
            idle_s = (begun_ns - self._decided_ns[-1]) / NS_PER_S if self._decided_ns else None
            self._decided_ns.append(at_ns)
            unit = SlowUnit(timing.capture_to_verdict, at_ns, stages_ms, idle_s)
            self._slow = sorted(
                [*self._slow, _Slow(event.frame.camera, model, event.frame.trigger, unit)],
                key=lambda one: -one.unit.capture_to_verdict_ms,
            )[:_SLOWEST]

    def look(self, pressure: Pressure) -> None:
        """How many tasks waited."""
        self._pressures.append(pressure)

    def rate_hz(self, now_ns: int) -> float | None:
        """Units per second over the last half minute; None without any."""
        since_ns = now_ns - int(_RATE_OVER_S * NS_PER_S)
        with self._lock:
            recent = [at_ns for at_ns in self._decided_ns if at_ns > since_ns]
        return (len(recent) - 1) * NS_PER_S / (recent[-1] - recent[0]) if len(recent) > 1 else None

    def engine_p99_ms(self, now_ns: int) -> float | None:
        """What a unit keeps the engine busy, at the worst camera."""
        busy: dict[tuple[str, str], float] = {}
        for series, figures in self._latencies.figures(now_ns).items():
            if series.stage in _ENGINE_STAGES:
                by = series.camera, series.model
                busy[by] = busy.get(by, 0.0) + figures.p99_ms
        return max(busy.values(), default=None)

    def take(self, samples: Sequence[DeviceSample]) -> Interval:
        """All since the last call; *samples* are of the last minute or so."""
        figures = self._latencies.figures(samples[-1].at_ns)
        with self._lock:
            interval, self._now = self._now, Interval()
            slow, self._slow = self._slow, []
        interval.latency = [_told(series, one) for series, one in sorted(figures.items())]
        for one in slow:
            usual = figures.get(Series(one.camera, one.model, WHOLE))
            if usual is not None and one.unit.capture_to_verdict_ms > _SLOWER * usual.p50_ms:
                because = explain(one.unit, samples, usual, list(self._pressures))
                interval.slow.append(
                    ToldUnit(
                        camera=one.camera, trigger=one.trigger,
                        capture_to_verdict_ms=one.unit.capture_to_verdict_ms, because=because,
                    )
                )  # fmt: skip
        return interval


def _told(series: Series, figures: Figures) -> LatencyFigures:
    return LatencyFigures.model_validate(
        {
            "camera": series.camera,
            "model": series.model or None,
            "stage": series.stage,
            "count": figures.count,
            "p50_ms": round(figures.p50_ms, 3),
            "p95_ms": round(figures.p95_ms, 3),
            "p99_ms": round(figures.p99_ms, 3),
            "max_ms": round(figures.max_ms, 3),
            "jitter_ms": round(figures.jitter_ms, 3),
        }
    )
