"""Which variant of a program is the fastest on this device, and still gives the same answers."""

from __future__ import annotations

import logging
import statistics
from typing import Callable

import torch

from defectd.clock import NS_PER_S, monotonic_ns, ms_between
from defectd.engine.faults import Fault, classify, essence
from defectd.engine.programs import Program, Runtime
from defectd.engine.warmup import COLD_CALLS

log = logging.getLogger(__name__)

_TRIALS = 5
_WORTH = 0.98
"""A variant must take at most this share of the time: noise is no reason to leave the plainer one."""
_BUDGET_NS = 10 * NS_PER_S
"""No further variant is begun after this long; one always is."""


def first_variant(runtime: Runtime, known: str | None) -> str:
    """What to begin with: what is known to be the fastest, if the runtime has it."""
    variants = runtime.variants()
    return known if known is not None and known in variants else variants[0]


def fastest_of(
    current: Program,
    runtime: Runtime,
    finish: Callable[[], None],
    breathe: Callable[[], None],
    known: str | None = None,
) -> tuple[Program, list[str]]:
    """The fastest of *current*, which is warm, and the other variants of *runtime*, and the figures in words.

    If *current* is *known* to be that, nothing is measured. *finish* waits for the device. The programs' inputs are
    left with noise in them. Raises RuntimeError if the device is lost; a variant that fails for itself is not taken.
    """
    if current.variant == known:  # an engine that died has a successor, and units wait for it
        return current, [f"layout {known}, as measured before"]
    begun_ns = monotonic_ns()
    notes: list[str] = []
    figures_ms: dict[str, float] = {}
    others = [variant for variant in runtime.variants() if variant != current.variant]
    for index, variant in enumerate(others):
        if index > 0 and monotonic_ns() - begun_ns > _BUDGET_NS:
            notes.append(f"not measured for lack of time: {', '.join(others[index:])}")
            break
        try:
            other = runtime.program(variant)
            if not agree(current, other, breathe):
                notes.append(f"{variant} not taken: it answers otherwise")
                continue
            current_ms, other_ms = _duel(current, other, finish, breathe)
        except (RuntimeError, ValueError, MemoryError) as error:
            if classify(error) is Fault.DEVICE_LOST:
                raise
            notes.append(f"{variant} not taken: {essence(error)}")
            if classify(error) is Fault.OUT_OF_MEMORY:
                break
            continue
        figures_ms.update({current.variant: current_ms, variant: other_ms})
        if other_ms < _WORTH * current_ms:
            current = other
    if figures_ms:
        figures = ", ".join(f"{variant} {figure_ms:.2f} ms" for variant, figure_ms in figures_ms.items())
        notes.insert(0, f"layout {current.variant} ({figures})")
    for note in notes:
        log.info(note)
    return current, notes


def agree(one: Program, other: Program, breathe: Callable[[], None]) -> bool:
    """True if both see the same in a picture of noise, but for rounding. Both are called COLD_CALLS times."""
    noise = torch.rand(one.input.shape, generator=torch.Generator().manual_seed(0))
    for program in (one, other):
        program.input.copy_(noise)
    for _ in range(COLD_CALLS):
        first = _comparable(one.forward()).float().clone()
        second = _comparable(other.forward()).float()
        breathe()
    if first.shape != second.shape:
        return False
    close = torch.isclose(second, first, rtol=0.05, atol=0.05, equal_nan=True)
    return float(close.float().mean()) >= 0.99


def _comparable(output: torch.Tensor) -> torch.Tensor:
    """Of an end-to-end head (1, N, 6) the scores, which are ranked: its boxes swap places if their scores are equal."""
    return output[..., 4] if output.shape[-1] == 6 else output


def _duel(
    current: Program, other: Program, finish: Callable[[], None], breathe: Callable[[], None]
) -> tuple[float, float]:
    """Median milliseconds of both, which are warm; in turns, so that a disturbance hits both."""
    trials_ms: list[tuple[float, float]] = []
    for _ in range(_TRIALS):
        trials_ms.append((_call_ms(current, finish), _call_ms(other, finish)))
        breathe()
    current_ms, other_ms = (statistics.median(column) for column in zip(*trials_ms))
    return current_ms, other_ms


def _call_ms(program: Program, finish: Callable[[], None]) -> float:
    finish()
    started_ns = monotonic_ns()
    program.forward()
    finish()
    return ms_between(started_ns, monotonic_ns())
