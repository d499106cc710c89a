"""What the line tells the rollout: written by the loop's thread, read by the rollout's, bounded, never waiting."""

from __future__ import annotations

import threading
from collections import deque

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.engine.serving import Outcome
from defectd.inspection.events import InspectionEvent
from defectd.inspection.shadow import JudgedUnit, ShadowUnit

_RECENT, _UNREAD = 2000, 20_000


class LineWatch:
    """Units and engines as they come. `news` is set whenever something does."""

    def __init__(self) -> None:
        self.news = threading.Event()
        self._lock = threading.Lock()
        self._recent: deque[JudgedUnit] = deque(maxlen=_RECENT)
        self._judged: deque[JudgedUnit] = deque(maxlen=_UNREAD)
        self._shadowed: deque[ShadowUnit] = deque(maxlen=_UNREAD)
        self._outcomes: deque[Outcome] = deque(maxlen=1000)
        self._last_unit_ns = monotonic_ns()

    # -- the loop's thread -----------------------------------------------------------------------------------

    def inspected(self, event: InspectionEvent) -> None:
        """A unit was decided. What was skipped or aborted was not judged."""
        if event.verdict not in ("passed", "failed", "error"):
            return
        now_ns = monotonic_ns()
        sha256 = None if event.model is None else event.model.sha256
        unit = JudgedUnit(event.verdict, event.error, event.timing_ms.capture_to_verdict, sha256, now_ns)
        with self._lock:
            self._recent.append(unit)
            self._judged.append(unit)
            self._last_unit_ns = now_ns

    def shadowed(self, unit: ShadowUnit) -> None:
        """Both models have judged a unit."""
        self._put(self._shadowed, unit)

    def outcome(self, outcome: Outcome) -> None:
        """How far a staged candidate is."""
        if outcome.staged:
            self._put(self._outcomes, outcome)

    # -- the rollout's thread --------------------------------------------------------------------------------

    def recent(self, model_sha256: str) -> list[JudgedUnit]:
        """The latest units that this model judged, and those that nobody could judge in between."""
        with self._lock:
            return [unit for unit in self._recent if unit.model_sha256 in (model_sha256, None)]

    def idle_s(self) -> float:
        """Since the last unit."""
        return (monotonic_ns() - self._last_unit_ns) / NS_PER_S

    def take_judged(self) -> list[JudgedUnit]:
        """Units since the last call."""
        return self._take(self._judged)

    def take_shadowed(self) -> list[ShadowUnit]:
        """Units since the last call."""
        return self._take(self._shadowed)

    def take_outcomes(self) -> list[Outcome]:
        """What became of candidates since the last call."""
        return self._take(self._outcomes)

    def _put(self, queue: deque, item: object) -> None:  # type: ignore[type-arg]
        with self._lock:
            queue.append(item)
        self.news.set()

    def _take(self, queue: deque) -> list:  # type: ignore[type-arg]
        with self._lock:
            items = list(queue)
            queue.clear()
        return items
