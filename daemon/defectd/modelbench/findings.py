"""What a bench found out, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from defectd.engine.choice import TrialResult
from defectd.engine.warmup import WarmupResult
from defectd.modelbench.conditions import Conditions
from defectd.modelbench.figures import Latency, units_per_s
from defectd.models.golden import GoldenReport


@dataclass(frozen=True)
class BatchRun:
    """The network alone with *batch* units per call; `latency_ms` is per call. `error` says why there are none."""

    batch: int
    latency_ms: tuple[float, ...]
    error: str | None

    @property
    def units_per_s(self) -> float | None:
        """None if it did not run."""
        return units_per_s(self.batch, self.latency_ms) if self.latency_ms else None


@dataclass(frozen=True)
class Measured:
    """What a trial says of itself. `latency_ms` is the whole inference, pixels to boxes; `inference_ms` the network's
    part of it. `start_s` ends with the first answer. `golden` is None without golden pictures."""

    runtime: str
    device: str
    device_name: str
    notes: tuple[str, ...]
    start_s: float
    warmup: WarmupResult
    curve_ms: tuple[float, ...]
    golden: GoldenReport | None
    latency_ms: tuple[float, ...]
    inference_ms: tuple[float, ...]
    batches: tuple[BatchRun, ...]
    peak_rss_mb: float
    peak_gpu_mb: float | None
    build_s: float | None = None

    @classmethod
    def of(cls, result: TrialResult, build_s: float | None = None) -> Measured:
        """From a trial; *build_s* is what building its engine took. Raises TypeError if it is of another version."""
        return cls(
            result.runtime, result.device, result.device_name, tuple(result.notes), result.start_s,
            WarmupResult(**result.warmup), tuple(result.curve_ms), result.golden, tuple(result.latency_ms),
            tuple(result.inference_ms),
            tuple(BatchRun(one.batch, tuple(one.latency_ms), one.error) for one in result.batches),
            result.peak_rss_mb, result.peak_gpu_mb, build_s,
        )  # fmt: skip

    @property
    def latency(self) -> Latency:
        """Of the whole inference."""
        return Latency.of(self.latency_ms)

    @property
    def best_batch(self) -> BatchRun | None:
        """The one with the highest throughput."""
        ran = [run for run in self.batches if run.latency_ms]
        return max(ran, key=lambda run: run.units_per_s or 0, default=None)


@dataclass(frozen=True)
class Failed:
    """No result; `detail` says why, for a person."""

    detail: str


@dataclass(frozen=True)
class Span:
    """When a stage of a trial ran: seconds since the bench began."""

    stage: str
    began_s: float
    ended_s: float


@dataclass(frozen=True)
class Verdict:
    """What becomes of a runtime, and why."""

    kind: Literal["chosen", "slower", "refused", "absent"]
    reason: str

    @property
    def word(self) -> str:
        """For people."""
        return "not tried" if self.kind == "absent" else self.kind


@dataclass(frozen=True)
class Entry:
    """One runtime of the bench. `name` is unique: torchscript, compiled, tensorrt-fp16, …"""

    name: str
    outcome: Measured | Failed
    verdict: Verdict
    spans: tuple[Span, ...] = ()

    @property
    def measured(self) -> Measured | None:
        """The measurements, if there are any."""
        return self.outcome if isinstance(self.outcome, Measured) else None


@dataclass(frozen=True)
class Subject:
    """The model on the bench."""

    name: str
    version: str
    sha256: str
    file: str
    input_hw: tuple[int, int]
    classes: tuple[str, ...]
    golden_pictures: int


@dataclass(frozen=True)
class Findings:
    """Everything. `reference` names the entry that the others are compared with."""

    subject: Subject
    machine: str
    platform: str
    measured_at: str
    defectd: str
    took_s: float
    reference: str
    entries: tuple[Entry, ...]
    conditions: Conditions

    @property
    def chosen(self) -> Entry | None:
        """The one that would serve."""
        return next((entry for entry in self.entries if entry.verdict.kind == "chosen"), None)

    @property
    def ran(self) -> list[Entry]:
        """Those with measurements."""
        return [entry for entry in self.entries if entry.measured is not None]

    def speedup(self, entry: Entry) -> float | None:
        """How many times faster than the reference, by the median; None if one of them was not measured."""
        reference = next((one.measured for one in self.entries if one.name == self.reference), None)
        if reference is None or entry.measured is None or entry.name == self.reference:
            return None
        return reference.latency.p50_ms / entry.measured.latency.p50_ms
