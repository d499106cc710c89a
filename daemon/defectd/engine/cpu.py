"""The engine on a CPU, whatever runs the network."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from defectd.clock import monotonic_ns, ms_between
from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.engine.fastest import fastest_of, first_variant
from defectd.engine.preprocess import CpuLetterbox
from defectd.engine.programs import Decoders, Program, Runtime, open_runtime
from defectd.inspection.detections import MONOTONIC, Detections, EngineTimings
from defectd.inspection.letterbox import fit
from defectd.inspection.yolo import Thresholds


class CpuEngine:
    """Always fp32. Only the network itself runs in torch: before and after it, numpy and OpenCV are faster.

    torch's threads meet after each layer. Unless each is bound to a core (OMP_PROC_BIND, set by the worker), the
    kernel puts two of them on one core now and then, and while other work holds a core, nearly always: then they wait
    for each other through every layer, for seconds. docs/benchmarks.md has the figures.
    """

    device = "cpu"

    def __init__(self, model: VerifiedModel, order: EngineOrder) -> None:
        if order.threads is not None:
            torch.set_num_threads(order.threads)
        self.runtime, self.device_name = f"{order.runtime}-fp32-cpu", cpu_name()
        self._input_hw, self._decoder = model.metadata.input_hw, Decoders(model.metadata, order.thresholds)
        self._source: Runtime | None = open_runtime(order, model, torch.device("cpu"), torch.float32)
        self._known = order.variant
        self._use(self._source.program(first_variant(self._source, order.variant)))

    @property
    def variant(self) -> str:
        """See Engine."""
        return self._active.variant

    def infer(self, pixels: NDArray[np.uint8]) -> tuple[Detections, EngineTimings]:
        """See Engine."""
        started_ns = monotonic_ns()
        letterbox = fit((pixels.shape[0], pixels.shape[1]), self._input_hw)
        self._letterbox.write(pixels, letterbox)
        written_ns = monotonic_ns()
        with torch.inference_mode():
            output = self._active.forward()
        decoder = self._decoder(output)
        candidates = decoder.candidates(output.float().numpy())
        inferred_ns = monotonic_ns()
        detections = decoder.detections(candidates, letterbox)
        ended_ns = monotonic_ns()
        timings = EngineTimings(
            preprocess_ms=ms_between(started_ns, written_ns),
            inference_ms=ms_between(written_ns, inferred_ns),
            postprocess_ms=ms_between(inferred_ns, ended_ns),
            inference_clock=MONOTONIC,
        )
        return detections, timings

    def judge_by(self, thresholds: Thresholds) -> None:
        """See Engine."""
        self._decoder.judge_by(thresholds)

    def settle(self, breathe: Callable[[], None]) -> list[str]:
        """See Engine."""
        assert self._source is not None
        with torch.inference_mode():
            chosen, notes = fastest_of(self._active, self._source, lambda: None, breathe, self._known)
        self._use(chosen)
        notes += [*self._source.notes(), f"{torch.get_num_threads()} threads"]
        self._source = None  # made for good: what it holds is not needed any more
        return notes

    def check(self) -> None:
        """A CPU goes on."""

    def _use(self, program: Program) -> None:
        self._active = program
        self._letterbox = CpuLetterbox(program.input[0].permute(1, 2, 0).numpy())


def cpu_name() -> str:
    """As the kernel calls it; ARM kernels often name only the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
