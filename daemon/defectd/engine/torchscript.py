"""Stock Ultralytics TorchScript exports through torch."""

from __future__ import annotations

import io
import warnings
from typing import Any, Sequence

import torch

from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.inspection.letterbox import PADDING_VALUE

_LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
_TREATMENTS = ("", " frozen", " optimized")


class TorchScriptRuntime:
    """Its variants are the layouts in memory, as the file is, frozen, and `optimize_for_inference`d.

    Which is fastest follows no rule, so the engine measures: on an x86_64 CPU channels-last took 16.6 ms where
    contiguous took 21.5, on others it is the other way round; freezing rarely matters to exports, whose batch norm is
    folded already, and optimizing makes some slower.
    """

    name = "torchscript"

    def __init__(self, order: EngineOrder, model: VerifiedModel, device: torch.device, dtype: torch.dtype) -> None:
        del order
        self._model, self._device, self._dtype = model, device, dtype

    def variants(self) -> Sequence[str]:
        """See Runtime."""
        return [layout + treatment for treatment in _TREATMENTS for layout in _LAYOUTS]

    def program(self, variant: str, batch: int = 1) -> TorchScriptProgram:
        """See Runtime. The batch of a trace is open, although its pixels are not."""
        layout, _, treatment = variant.partition(" ")
        memory_format = _LAYOUTS[layout]
        module = _load(self._model.data, self._device).to(self._dtype).to(memory_format=memory_format).eval()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.*")  # deprecated in 2.11, all there is in JetPack 5
            if treatment == "frozen":
                module = torch.jit.freeze(module)
            elif treatment == "optimized":
                module = torch.jit.optimize_for_inference(module)
        shape = (batch, 3, *self._model.metadata.input_hw)
        return TorchScriptProgram(variant, module, grey(shape, self._device, self._dtype, memory_format))

    def notes(self) -> list[str]:
        """See Runtime."""
        return []


class TorchScriptProgram:
    """See Program."""

    graphable = True

    def __init__(self, variant: str, module: Any, static_input: torch.Tensor) -> None:
        self.variant, self._module, self.input = variant, module, static_input

    def forward(self) -> torch.Tensor:
        """See Program."""
        return head_of(self._module(self.input))


def grey(
    shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format
) -> torch.Tensor:
    """An input in which there is nothing but the letterbox's padding."""
    pixels = torch.full(shape, PADDING_VALUE / 255, dtype=dtype, device=device)
    return pixels.contiguous(memory_format=memory_format)


def head_of(output: Any) -> torch.Tensor:
    """What inference needs of a network's output: some return their training outputs behind it."""
    return output[0] if isinstance(output, (tuple, list)) else output  # type: ignore[no-any-return]


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
        warnings.filterwarnings("ignore", message=".*torch.jit.*")  # see above
        return torch.jit.load(io.BytesIO(data), map_location=device)  # type: ignore[no-untyped-call]
