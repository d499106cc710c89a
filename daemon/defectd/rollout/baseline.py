"""How a line ran with the model before, and what a gate says: what both gates have in common. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Sequence, Union

from defectd.clock import ms_between
from defectd.engine.choice import percentile
from defectd.inspection.events import ErrorReason
from defectd.inspection.shadow import JudgedUnit
from defectd.rollout.statistics import LEAST_UNITS, Latencies

Numbers = Dict[str, Union[int, float, None]]
"""For the report."""

ENGINE_ERRORS: frozenset[ErrorReason] = frozenset(
    {"deadline_exceeded", "engine_unavailable", "engine_failed", "non_finite_output"}
)
"""What a model answers for. The others are the camera's."""

JUDGED = ("passed", "failed")


@dataclass(frozen=True)
class GateVerdict:
    """`code` is empty if it passed; `detail` is for a technician, with the numbers."""

    passed: bool
    code: str
    detail: str


@dataclass(frozen=True)
class Baseline:
    """How the line ran with the model before. `units` were judged; shares are 0..1, errors those of the engine.
    `p99_ms` is from capture to verdict, of the last 5000; None without units."""

    units: int
    p99_ms: float | None
    failed_share: float
    error_share: float
    interval_ms: float | None = None
    """From one unit to the next, the median."""

    @classmethod
    def of(cls, units: Sequence[JudgedUnit]) -> Baseline:
        """From the units of one model, or of none if the line was idle."""
        failed = sum(unit.verdict == "failed" for unit in units)
        judged = sum(unit.verdict in JUDGED for unit in units)
        errors = sum(unit.error in ENGINE_ERRORS for unit in units)
        gaps_ms = [ms_between(one.at_ns, next_one.at_ns) for one, next_one in zip(units, units[1:])]
        latencies = Latencies(unit.capture_to_verdict_ms for unit in units if has_latency(unit))
        return cls(
            units=judged,
            p99_ms=latencies.p99_ms if len(latencies) else None,
            failed_share=failed / judged if judged else 0.0,
            error_share=errors / (judged + errors) if errors else 0.0,
            interval_ms=percentile(gaps_ms, 0.5) if gaps_ms else None,
        )

    @property
    def telling(self) -> bool:
        """Enough units to compare with; else only what is absolute counts."""
        return self.units >= LEAST_UNITS


def has_latency(unit: JudgedUnit) -> bool:
    """A model judged it, or was too late to."""
    return unit.verdict in JUDGED or unit.error == "deadline_exceeded"
