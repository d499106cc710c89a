"""What a viewer knows of the stations that it listens to. PURE: no clock, no network, no terminal."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Sequence

from defectd.watch.continuity import Continuity
from defectd.watch.wire import FaultNews, Inspected, Lost, Message, StationBirth, StationStatus

_RECENT_UNITS = 100
_LATENCY_WINDOW = 1000
_RATE_WINDOW = 40


@dataclass
class StationTally:
    """One station since this viewer came. A unit counts once, however often its event arrives."""

    name: str
    """site/area/line/station"""
    status: StationStatus | None = None
    birth: StationBirth | None = None
    verdicts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    reviews: int = 0
    recent: deque[Inspected] = field(default_factory=lambda: deque(maxlen=_RECENT_UNITS))
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCY_WINDOW))
    inferences_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCY_WINDOW))
    arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_WINDOW))
    late_units: int = 0
    """Slower than the deadline that the station announced."""
    seq: Continuity = field(default_factory=Continuity)
    epoch: str = ""
    triggers: dict[str, Continuity] = field(default_factory=dict)
    lost: int = 0
    """Events that the station said it had to give up."""
    redelivered: int = 0
    replayed: int = 0
    faults: dict[tuple[str, str], FaultNews] = field(default_factory=dict)
    noted: deque[FaultNews] = field(default_factory=lambda: deque(maxlen=3))

    def take(self, message: Message, now_s: float) -> bool:
        """Fold one message in; False if it told nothing new."""
        if isinstance(message, Inspected):
            return self._take_unit(message, now_s)
        if isinstance(message, FaultNews):
            self._take_fault(message)
        elif isinstance(message, Lost):
            self._take_lost(message)
        elif isinstance(message, StationStatus):
            self.status = message
            self.faults = {(fault.component, fault.code): fault for fault in message.faults}
        else:
            self.birth = message
        return True

    @property
    def units(self) -> int:
        """Units seen."""
        return sum(self.verdicts.values())

    @property
    def pass_rate(self) -> float | None:
        """Passed among those that were judged good or bad."""
        judged = self.verdicts["passed"] + self.verdicts["failed"]
        return self.verdicts["passed"] / judged if judged else None

    @property
    def rate_hz(self) -> float | None:
        """Units per second, as they arrived lately."""
        if len(self.arrivals_s) < 2:
            return None
        duration_s = self.arrivals_s[-1] - self.arrivals_s[0]
        return (len(self.arrivals_s) - 1) / duration_s if duration_s > 0 else None

    @property
    def model(self) -> tuple[str, str]:
        """Name with version, and runtime: of the last unit that had one, else as announced."""
        latest = self.recent[-1] if self.recent else None
        if latest is not None and latest.model:
            return latest.model, latest.runtime
        return (self.birth.model, self.birth.runtime) if self.birth else ("", "")

    @property
    def holes(self) -> list[str]:
        """What is missing without an explanation, in words; empty when every unit is accounted for."""
        found = [f"seq {_range(hole)}" for hole in self.seq.holes]
        for camera, triggers in sorted(self.triggers.items()):
            # A lost event takes its trigger with it: only more than the station explained is a lost unit.
            if triggers.missing > self.lost + self.seq.missing:
                found += [f"camera {camera} trigger {_range(hole)}" for hole in triggers.holes]
        return found

    def _take_unit(self, unit: Inspected, now_s: float) -> bool:
        if unit.replayed:
            self.replayed += 1
            return False
        if unit.epoch != self.epoch:
            self.epoch, self.seq = unit.epoch, Continuity()
        if not self.seq.see(unit.seq):
            self.redelivered += 1
            return False
        self.triggers.setdefault(unit.camera, Continuity()).see(unit.trigger)
        self.verdicts[unit.verdict] += 1
        self.reviews += unit.needs_review
        self.codes.update(finding.code for finding in unit.findings)
        self.recent.append(unit)
        self.arrivals_s.append(now_s)
        self.latencies_ms.append(unit.latency_ms)
        if unit.inference_ms is not None:
            self.inferences_ms.append(unit.inference_ms)
        if self.birth is not None and unit.latency_ms > self.birth.deadline_ms:
            self.late_units += 1
        return True

    def _take_fault(self, fault: FaultNews) -> None:
        if fault.state == "raised":
            self.faults[fault.component, fault.code] = fault
        elif fault.state == "cleared":
            self.faults.pop((fault.component, fault.code), None)
        else:
            self.noted.append(fault)

    def _take_lost(self, lost: Lost) -> None:
        if lost.of_stream == "inspection":
            self.lost += lost.lost
            self.seq.excuse(lost.ranges)


@dataclass
class Tally:
    """All stations that were heard, by name."""

    stations: dict[str, StationTally] = field(default_factory=dict)

    def take(self, station: str, message: Message, now_s: float) -> bool:
        """Fold one message in; False if it told nothing new."""
        return self.stations.setdefault(station, StationTally(station)).take(message, now_s)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None


def _range(hole: tuple[int, int]) -> str:
    return str(hole[0]) if hole[0] == hole[1] else f"{hole[0]} to {hole[1]}"
