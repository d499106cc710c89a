"""How long units took in the last minute: exact percentiles of a sorted window, per camera, model and stage.

Not `hdrhistogram` 0.10: it has no aarch64 wheel (a station has no compiler), and at 50 units/s its rotating histograms
of 10 s (3 digits) cost 2.1 µs per add, 1.0 ms per look and 1.6 MB; this window costs 0.5 µs, 0.7 ms and 0.44 MB.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Sequence

import numpy as np

from defectd.clock import NS_PER_S
from defectd.inspection.events import TimingMs

WHOLE = "capture_to_verdict"
"""The stage that the deadline is about."""
_MOST_SAMPLES = 12_000
"""200 units/s for a minute; of a faster line the window is shorter."""


@dataclass(frozen=True)
class Figures:
    """Of `count` units in the window. `jitter_ms` is the mean difference from one unit to the next, without its sign;
    `late` took longer than the deadline, None where none applies."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    jitter_ms: float
    late: int | None = None

    @classmethod
    def of(cls, samples_ms: Sequence[float], deadline_ms: float | None = None) -> Figures | None:
        """Of *samples_ms* in the order in which they came; None without any. A percentile is the smallest sample that
        is not below its share of them: one that was really measured."""
        if not samples_ms:
            return None
        came_ms = np.array(samples_ms, dtype=np.float64)  # not in Python: the line would wait for the interpreter
        ordered_ms = np.sort(came_ms)
        count = len(ordered_ms)
        p50_ms, p95_ms, p99_ms, max_ms = (
            float(ordered_ms[min(int(share * count), count - 1)]) for share in (0.5, 0.95, 0.99, 1)
        )
        jitter_ms = float(np.abs(np.diff(came_ms)).mean()) if count > 1 else 0.0
        late = None if deadline_ms is None else int((came_ms > deadline_ms).sum())
        return cls(count, p50_ms, p95_ms, p99_ms, max_ms, jitter_ms, late)


class LatencyWindow:
    """One stage's milliseconds over the last *window_s* seconds, at most 12 000 of them. Of one thread."""

    def __init__(self, window_s: float = 60.0, deadline_ms: float | None = None) -> None:
        self.deadline_ms = deadline_ms
        self._window_ns = round(window_s * NS_PER_S)
        self._samples: deque[tuple[int, float]] = deque(maxlen=_MOST_SAMPLES)

    def add(self, ms: float, at_ns: int) -> None:
        """One more unit, whose verdict fell at *at_ns* (CLOCK_MONOTONIC)."""
        self._samples.append((at_ns, ms))
        self._forget(at_ns)

    def samples_ms(self, now_ns: int) -> list[float]:
        """Of the window that ends at *now_ns*, in the order in which they came."""
        self._forget(now_ns)
        return [ms for _, ms in self._samples]

    def figures(self, now_ns: int) -> Figures | None:
        """Of the window that ends at *now_ns*; None if no unit fell into it."""
        return Figures.of(self.samples_ms(now_ns), self.deadline_ms)

    def _forget(self, now_ns: int) -> None:
        while self._samples and self._samples[0][0] <= now_ns - self._window_ns:
            self._samples.popleft()


class Series(NamedTuple):
    """What a window is of."""

    camera: str
    model: str
    stage: str


class Latencies:
    """A window per camera, model and stage. One that has become empty is forgotten, such as that of a model which was
    replaced. Thread-safe."""

    def __init__(self, deadline_ms: float, window_s: float = 60.0) -> None:
        self._deadline_ms, self._window_s = deadline_ms, window_s
        self._windows: dict[Series, LatencyWindow] = {}
        self._lock = threading.Lock()

    def add(self, camera: str, model: str, stage: str, ms: float, at_ns: int) -> None:
        """One stage of one unit."""
        series = Series(camera, model, stage)
        with self._lock:
            if series not in self._windows:
                self._windows[series] = LatencyWindow(self._window_s, self._deadline_ms if stage == WHOLE else None)
            self._windows[series].add(ms, at_ns)

    def add_unit(self, camera: str, model: str, timing: TimingMs, at_ns: int) -> None:
        """Every stage that the unit reached. For units that were judged, or missed the deadline: one without a frame
        took as long as one waited for it, which says nothing."""
        for stage, ms in timing:
            if ms is not None:
                self.add(camera, model, stage, ms, at_ns)

    def figures(self, now_ns: int) -> dict[Series, Figures]:
        """Of the window that ends at *now_ns*, of all that units fell into."""
        with self._lock:
            samples_ms = {series: window.samples_ms(now_ns) for series, window in self._windows.items()}
            self._windows = {series: window for series, window in self._windows.items() if samples_ms[series]}
            deadlines_ms = {series: window.deadline_ms for series, window in self._windows.items()}
        found = {series: Figures.of(samples_ms[series], deadline_ms) for series, deadline_ms in deadlines_ms.items()}
        return {series: figures for series, figures in found.items() if figures is not None}  # the line did not wait
