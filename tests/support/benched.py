"""Findings as a bench brings them home: results in the form that a trial sends, and a machine with clocks."""

from __future__ import annotations

import random
from typing import Any

from defectd.engine.choice import TrialResult
from defectd.modelbench.conditions import Conditions, Limits, Sample
from defectd.modelbench.findings import Entry, Failed, Findings, Measured, Subject, Verdict
from defectd.modelbench.measure import spans


def result(
    runtime: str = "torchscript-fp32-cpu", typical_ms: float = 17.0, seed: int = 1, **changes: Any
) -> dict[str, Any]:
    """What a trial sends; latencies have a tail, the first calls are slow."""
    chance = random.Random(seed)
    latency_ms = [typical_ms * (0.97 + 0.05 * chance.expovariate(1.2)) for _ in range(200)]
    curve_ms = [typical_ms * 60, typical_ms * 22, typical_ms * 3]
    curve_ms += [typical_ms * (1 + 0.5 / (call + 1) + 0.03 * chance.random()) for call in range(21)]
    return {
        "runtime": runtime,
        "device": "cpu",
        "device_name": "Cortex-A78AE",
        "notes": ["channels_last 16.6 ms, contiguous 21.5 ms", "4 threads"],
        "start_s": 4.31,
        "warmup": {
            "cold_first_call_ms": curve_ms[0], "iterations": 24, "steady": True,
            "steady_p50_ms": typical_ms, "steady_p99_ms": typical_ms * 1.2,
        },
        "curve_ms": curve_ms,
        "golden": golden(),
        "latency_ms": latency_ms,
        "inference_ms": [value * 0.9 for value in latency_ms],
        "batches": [batch(size, typical_ms) for size in (1, 2, 4, 8)] + [batch(16, typical_ms, "no memory")],
        "peak_rss_mb": 612.4,
        "peak_gpu_mb": None,
        **changes,
    }  # fmt: skip


def batch(size: int, typical_ms: float, error: str | None = None) -> dict[str, Any]:
    """A batch is cheaper than its units, a little."""
    return {"batch": size, "latency_ms": [] if error else [typical_ms * size**0.93] * 20, "error": error}


def golden(*reasons: str, **changes: Any) -> dict[str, Any]:
    """A report in which all is well, or not."""
    return {
        "pictures": 16, "expected": 98, "found": 98, "matched": 98, "recall": 1.0, "precision": 1.0,
        "confidence_drift": 0.0011, "lowest_iou": 0.97, "missed_critical": 0, "reasons": list(reasons), **changes,
    }  # fmt: skip


def entry(name: str, kind: Any = "slower", reason: str = "", began_s: float = 0.0, **changes: Any) -> Entry:
    """A runtime that was measured from *began_s* on, 24 s long."""
    stages = ("loading", "warming", "golden", "measuring", "batch")
    times = [(stage, began_s + 0.5 + 4.0 * index) for index, stage in enumerate(stages)]
    measured = Measured.of(TrialResult.model_validate(result(**changes)))
    return Entry(name, measured, Verdict(kind, reason), spans(began_s, times, began_s + 24))


def refused(name: str, detail: str, began_s: float = 0.0) -> Entry:
    """A runtime that did not work."""
    return Entry(name, Failed(detail), Verdict("refused", detail), spans(began_s, [], began_s + 1.5))


def jetson(seconds: float = 100.0) -> Conditions:
    """Clocks that move, and a GPU that throttles once."""
    chance = random.Random(7)
    samples = []
    for index in range(int(seconds * 2)):
        at_s = index / 2
        hot = seconds * 0.6 < at_s < seconds * 0.7
        events = 12 + 3 * (at_s > seconds * 0.6)
        mhz = tuple(1420.8 if hot else chance.choice((2201.6, 2201.6, 2035.2)) for _ in range(4))
        samples.append(
            Sample(
                at_s, mhz, 612.0 if hot else 1300.5, 48 + 30 * at_s / seconds, ("gpu",) if hot else (), events,
                0.55 + 0.3 * chance.random(), 0.0, 0.05 * chance.random(),
            )
        )  # fmt: skip
    return Conditions(Limits(2201.6, 1300.5, 8, "cpufreq", "0000", 4), tuple(samples))


def busy(seconds: float = 100.0) -> Conditions:
    """A virtual machine that has other work to do, and whose host has, too."""
    moments = (index / 2 for index in range(int(seconds * 2)))
    samples = (Sample(at_s, (2596.1,) * 2, busy=1.0, stolen=0.1, waiting=0.6) for at_s in moments)
    return Conditions(Limits(cpu_source="/proc/cpuinfo", cores=2), tuple(samples))


def findings(*entries: Entry, conditions: Conditions | None = None, **changes: Any) -> Findings:
    """Four runtimes, of which one is fastest, one wrong and one missing, unless *entries* says otherwise."""
    subject = Subject(
        "deeppcb", "1.4.0", "ab12cd34" * 8, "bundle-deeppcb", (640, 640),
        ("open", "short", "mousebite", "spur", "copper", "pin-hole"), 16,
    )  # fmt: skip
    values: dict[str, Any] = {
        "subject": subject,
        "machine": "NVIDIA Jetson AGX Orin, Cortex-A78AE",
        "platform": "Linux 5.15 aarch64, Python 3.10.12, torch 2.8.0, TensorRT 10.3.0",
        "measured_at": "2026-11-20 15:00 UTC",
        "defectd": "0.1.0",
        "took_s": 100.4,
        "reference": "torchscript",
        "entries": entries or four(),
        "conditions": conditions or jetson(),
    }
    return Findings(**{**values, **changes})


def four() -> tuple[Entry, ...]:
    """The usual case of an Orin."""
    rival = "tensorrt-fp16 4.08 ms"
    missed = "recall 0.9184, at least 0.98 is required"
    wrong = golden(missed, matched=90, found=91, recall=0.9184)
    return (
        entry(
            "torchscript", "slower", f"p99 9.44 ms, {rival}", 0.0, typical_ms=8.3,
            runtime="torchscript-fp16-cuda", peak_gpu_mb=410.0,
        ),
        entry(
            "compiled", "slower", f"p99 7.60 ms, {rival}", 25.0, typical_ms=6.4, seed=2,
            runtime="compiled-fp16-cuda", start_s=41.7, peak_gpu_mb=780.0, peak_rss_mb=1822.0,
        ),
        entry(
            "tensorrt-fp16", "chosen", "lowest p99 of all that give the right answers", 50.0, typical_ms=3.5, seed=3,
            runtime="tensorrt-fp16-cuda", start_s=3.1, peak_gpu_mb=298.0,
        ),
        entry(
            "tensorrt-int8", "refused", missed, 75.0, typical_ms=2.9, seed=4,
            runtime="tensorrt-int8-cuda", start_s=3.0, peak_gpu_mb=262.0, golden=wrong,
        ),
        refused("torch-tensorrt", "torch_tensorrt is not installed; install the wheel that fits torch 2.8", 99.0),
    )  # fmt: skip
