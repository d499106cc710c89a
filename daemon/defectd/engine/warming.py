"""Warming an engine: whole inferences, from pixels to boxes, until they take a steady time. See warmup.py for when."""

from __future__ import annotations

from typing import Callable

import numpy as np

from defectd.clock import monotonic_ns, ms_between
from defectd.engine.base import Engine, EngineOrder
from defectd.engine.warmup import WarmupLimits, WarmupResult, warm_up


def warm(
    engine: Engine,
    order: EngineOrder,
    input_hw: tuple[int, int],
    breathe: Callable[[float], None],
    heard: Callable[[float], None] = lambda _: None,
) -> tuple[WarmupResult, list[str]]:
    """Call *engine* with noise until it is warm, and let it settle on its fastest variant. *breathe* hears the share
    of the calls that may be needed, *heard* what each call took, in milliseconds. Returns the report, and what was
    chosen, in words. Raises what `infer` raises."""
    frame = np.random.default_rng(0).integers(0, 256, (*input_hw, 3), np.uint8)
    limits = WarmupLimits.of(engine.device, order.warmup_min, order.warmup_max)
    notes: list[str] = []
    calls = 0

    def call() -> float:
        nonlocal calls
        started_ns = monotonic_ns()
        engine.infer(frame)
        took_ms = ms_between(started_ns, monotonic_ns())
        calls += 1
        heard(took_ms)
        return took_ms

    def settle() -> None:
        engine.infer(np.ascontiguousarray(frame[::3, ::2]))  # resizing and padding have kernels of their own to load
        notes.extend(engine.settle(between))

    def between() -> None:
        breathe(min(1.0, calls / limits.maximum))

    return warm_up(call, settle, limits, between), notes
