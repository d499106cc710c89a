"""The TorchScript engine on a CPU."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from defectd.clock import monotonic_ns, ms_between
from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.engine.preprocess import CpuLetterbox
from defectd.engine.torchscript import Layout, Program, faster_of
from defectd.inspection.detections import MONOTONIC, Detections, EngineTimings
from defectd.inspection.letterbox import fit


class CpuEngine:
    """Always fp32. Only the network itself runs in torch: before and after it, numpy and OpenCV are faster.

    torch's threads meet after each layer. Unless each is bound to a core (OMP_PROC_BIND, set by the worker), the
    kernel puts two of them on one core now and then, and while other work holds a core, nearly always: then they wait
    for each other through every layer, for seconds. docs/benchmarks.md has the figures.
    """

    runtime = "torchscript-fp32-cpu"
    device = "cpu"

    def __init__(self, model: VerifiedModel, order: EngineOrder) -> None:
        if order.threads is not None:
            torch.set_num_threads(order.threads)
        self.device_name = cpu_name()
        self._model, self._thresholds = model, order.thresholds
        self._use(self._program(Layout.CHANNELS_LAST))

    def infer(self, pixels: NDArray[np.uint8]) -> tuple[Detections, EngineTimings]:
        """See Engine."""
        started_ns = monotonic_ns()
        letterbox = fit((pixels.shape[0], pixels.shape[1]), self._model.metadata.input_hw)
        self._letterbox.write(pixels, letterbox)
        written_ns = monotonic_ns()
        with torch.inference_mode():
            output = self._active.forward()
        decoder = self._active.decoder(output)
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

    def settle(self, breathe: Callable[[], None]) -> list[str]:
        """See Engine."""
        with torch.inference_mode():
            chosen, note = faster_of(self._active, self._program(Layout.CONTIGUOUS), lambda: None, breathe)
        self._use(chosen)
        self._model = dataclasses.replace(self._model, data=b"")  # loaded for good
        return [note, f"{torch.get_num_threads()} threads"]

    def check(self) -> None:
        """A CPU goes on."""

    def _program(self, layout: Layout) -> Program:
        return Program(self._model, torch.device("cpu"), torch.float32, layout, self._thresholds)

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
