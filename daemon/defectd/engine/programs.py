"""What runs a network, whichever compiler made it: runtimes make programs, engines put pixels in and boxes out.

An engine asks its runtime for one program per variant, keeps the one that is fastest on this device, and lets go of
the runtime: what only the making needs should belong to the runtime, what every call needs to the program.
"""

from __future__ import annotations

from typing import Protocol, Sequence

import torch

from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.inspection.yolo import Decoder, Thresholds, resolve_head
from defectd.models.metadata import ModelMetadata
from defectd.workers.child import Unusable


class Program(Protocol):
    """A network on one device, with one static input that is written in place between calls."""

    variant: str
    """In words, for people: "channels_last", "contiguous, frozen"."""
    input: torch.Tensor
    """(batch, 3, height, width) of the runtime's dtype on its device; RGB in 0..1; begins as letterbox grey."""
    graphable: bool
    """Its kernels may be captured in a CUDA graph of ours: it launches them on torch's current stream, neither waits
    for the device nor has graphs of its own."""

    def forward(self) -> torch.Tensor:
        """The head for what is in `input` now: (batch, 4 + classes, anchors) or (batch, N, 6), any float type, on the
        same device, queued on torch's current stream, and valid until the next call. Runs in inference mode.

        Raises RuntimeError, ValueError or MemoryError, of which `faults.classify` tells the meaning.
        """
        ...


class Runtime(Protocol):
    """One file, loaded by one framework, for one device and one dtype."""

    name: str
    """torchscript, compiled, tensorrt or torch-tensorrt."""

    def variants(self) -> Sequence[str]:
        """What is worth a measurement, at least one; the first is what to begin with."""
        ...

    def program(self, variant: str, batch: int = 1) -> Program:
        """A fresh program; compiled, if anything is to compile, at the latest in its first call. Raises Unusable where
        the file does not allow that *batch*, and RuntimeError as `Program.forward`."""
        ...

    def notes(self) -> list[str]:
        """What a person should know about how it was made, in words: "compiled in 31.2 s". Asked after the programs
        have been called."""
        ...


class Decoders:
    """Calling it gives what understands an output; its shape is checked when it is first seen."""

    def __init__(self, metadata: ModelMetadata, thresholds: Thresholds) -> None:
        self._metadata, self._thresholds = metadata, thresholds
        self._known: dict[tuple[int, ...], Decoder] = {}

    def judge_by(self, thresholds: Thresholds) -> None:
        """Use these from now on."""
        self._thresholds = thresholds
        self._known.clear()

    def __call__(self, output: torch.Tensor) -> Decoder:
        """Raises HeadMismatch."""
        shape = tuple(output.shape)
        if shape not in self._known:
            class_count = len(self._metadata.names)
            head = resolve_head(shape, class_count, self._metadata.end2end)
            self._known[shape] = Decoder(head, class_count, self._thresholds)
        return self._known[shape]


def open_runtime(order: EngineOrder, model: VerifiedModel, device: torch.device, dtype: torch.dtype) -> Runtime:
    """The runtime that *order* names. `environment.prepare` must have seen the order before torch was loaded.

    Raises Unusable, with what to do; RuntimeError if the file cannot be loaded.
    """
    from defectd.engine.torchscript import TorchScriptRuntime, make_fuser_safe  # noqa: PLC0415 - beside the others

    make_fuser_safe()  # torch-tensorrt runs TorchScript, too
    try:
        if order.runtime == "compiled":
            from defectd.engine.compiled import CompiledRuntime  # noqa: PLC0415 - loads torch's compiler

            return CompiledRuntime(order, model, device, dtype)
        if order.runtime == "tensorrt":
            from defectd.engine.tensorrt import TensorRtRuntime  # noqa: PLC0415 - TensorRT may not be installed

            return TensorRtRuntime(order, model, device, dtype)
        if order.runtime == "torch-tensorrt":
            from defectd.engine.torch_tensorrt import TorchTensorRtRuntime  # noqa: PLC0415 - nor may this

            return TorchTensorRtRuntime(order, model, device, dtype)
    except ImportError as error:
        raise Unusable(f'runtime = "{order.runtime}": {error}. {_REMEDIES[order.runtime]}') from error
    return TorchScriptRuntime(order, model, device, dtype)


_REMEDIES = {
    "compiled": 'It needs torch 2.1 or newer with torch.export; set runtime = "torchscript" or "auto"',
    "tensorrt": (
        "TensorRT's Python package comes with JetPack (apt install python3-libnvinfer; the virtual environment needs "
        '--system-site-packages); or set runtime = "torchscript" or "auto"'
    ),
    "torch-tensorrt": (
        "Install the torch-tensorrt that was built for this torch and this JetPack; "
        'or set runtime = "torchscript" or "auto"'
    ),
}
