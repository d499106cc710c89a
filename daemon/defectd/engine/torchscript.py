"""Stock Ultralytics TorchScript exports through torch: load one, run one, and find its best memory layout."""

from __future__ import annotations

import io
import statistics
import warnings
from enum import Enum
from typing import Any, Callable

import torch

from defectd.clock import monotonic_ns, ms_between
from defectd.engine.base import VerifiedModel
from defectd.engine.warmup import COLD_CALLS
from defectd.inspection.letterbox import PADDING_VALUE
from defectd.inspection.yolo import Decoder, Thresholds, resolve_head

_TRIALS = 5


class Layout(Enum):
    """How input and weights lie in memory. The values are torch's names for it."""

    CHANNELS_LAST = "channels_last"
    CONTIGUOUS = "contiguous_format"


class Program:
    """A model on one device, with its one static input (1, 3, height, width), to be written in place.

    Neither frozen nor `optimize_for_inference`d: on exports, where batch norm is folded already, freezing made no
    difference and the latter made them slower (x86_64, torch 2.13).
    """

    def __init__(
        self, model: VerifiedModel, device: torch.device, dtype: torch.dtype, layout: Layout, thresholds: Thresholds
    ) -> None:
        self.layout = layout
        memory_format: torch.memory_format = getattr(torch, layout.value)
        height, width = model.metadata.input_hw
        grey = torch.full((1, 3, height, width), PADDING_VALUE / 255, dtype=dtype, device=device)
        self.input = grey.contiguous(memory_format=memory_format)
        self._metadata, self._thresholds = model.metadata, thresholds
        self._module = _load(model.data, device).to(dtype).to(memory_format=memory_format).eval()
        self._decoder: Decoder | None = None

    def forward(self) -> torch.Tensor:
        """The output for what is in the input now."""
        output = self._module(self.input)
        return output[0] if isinstance(output, (tuple, list)) else output  # type: ignore[no-any-return]

    def decoder(self, output: torch.Tensor) -> Decoder:
        """What understands *output*. The first time, its shape is checked. Raises HeadMismatch."""
        if self._decoder is None:
            class_count = len(self._metadata.names)
            head = resolve_head(tuple(output.shape), class_count, self._metadata.end2end)
            self._decoder = Decoder(head, class_count, self._thresholds)
        return self._decoder


def faster_of(
    current: Program, other: Program, finish: Callable[[], None], breathe: Callable[[], None]
) -> tuple[Program, str]:
    """The faster of a warm program and a fresh one in another layout, and the figures in words.

    Measured because no rule holds: on an x86_64 CPU channels-last took 16.6 ms where contiguous took 21.5, on
    others it is the other way round. *finish* waits for the device.
    """
    for _ in range(COLD_CALLS):
        _call_ms(other, finish)
        breathe()
    trials_ms: list[tuple[float, float]] = []
    for _ in range(_TRIALS):  # in turns, so that a disturbance hits both
        trials_ms.append((_call_ms(current, finish), _call_ms(other, finish)))
        breathe()
    current_ms, other_ms = (statistics.median(column) for column in zip(*trials_ms))
    chosen = other if other_ms < current_ms else current
    figures = f"{current.layout.name.lower()} {current_ms:.2f} ms, {other.layout.name.lower()} {other_ms:.2f} ms"
    return chosen, f"layout {chosen.layout.name.lower()} ({figures})"


def make_fuser_safe() -> None:
    """Before torch 2.1 the TorchScript fuser could crash on traced constants (`_Map_base::at`, or a segfault), so
    Ultralytics turns it off there, and so do we. JetPack 5 has such builds, and alphas of 2.1."""
    if fuser_is_unsafe(torch.__version__):
        torch._C._jit_set_texpr_fuser_enabled(False)


def fuser_is_unsafe(torch_version: str) -> bool:
    """True for torch before 2.1.0, its alphas ("2.1.0a0+41361538.nv23.06") included."""
    major, minor, patch = torch_version.partition("+")[0].split(".")[:3]
    return (int(major), int(minor)) < (2, 1) or ((major, minor) == ("2", "1") and patch.startswith("0a"))


def _load(data: bytes, device: torch.device) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")  # deprecated in 2.11, all there is in JetPack 5
        return torch.jit.load(io.BytesIO(data), map_location=device)  # type: ignore[no-untyped-call]


def _call_ms(program: Program, finish: Callable[[], None]) -> float:
    started_ns = monotonic_ns()
    program.forward()
    finish()
    return ms_between(started_ns, monotonic_ns())
