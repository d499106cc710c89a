"""Torch-TensorRT: TorchScript with TensorRT plans inside. Running it takes the runtime library only; compiling it, the
whole package. Not yet proven on hardware: docs/adr/0007-tensorrt.md says what was checked, and against what."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any, Sequence

import torch

from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.engine.build_order import BuildOrder, Say
from defectd.engine.programs import Program
from defectd.inspection.letterbox import PADDING_VALUE
from defectd.workers.child import Unusable

_CONFIG = "config.txt"


class TorchTensorRtRuntime:
    """See Runtime. The input is float32, whatever the `dtype`: which precision the plans inside compute in was chosen
    when they were compiled."""

    name = "torch-tensorrt"

    def __init__(self, order: EngineOrder, model: VerifiedModel, device: torch.device, dtype: torch.dtype) -> None:
        del dtype
        self._library = load_runtime_library()
        self._model, self._device, self._path = model, device, order.path

    def variants(self) -> Sequence[str]:
        """See Runtime."""
        return ("contiguous",)

    def program(self, variant: str, batch: int = 1) -> Program:
        """See Runtime."""
        if batch != 1:
            raise Unusable(f"{self._path}: compiled for batch 1, not {batch}")
        return TorchTensorRtProgram(self._model, self._device, variant)

    def notes(self) -> list[str]:
        """See Runtime."""
        return [f"with {self._library.name}"]


class TorchTensorRtProgram:
    """See Program. Not graphable: its runtime has streams and events of its own, and no board has shown us that a
    capture holds them."""

    graphable = False

    def __init__(self, model: VerifiedModel, device: torch.device, variant: str) -> None:
        self.variant = variant
        shape = (1, 3, *model.metadata.input_hw)
        self.input = torch.full(shape, PADDING_VALUE / 255, dtype=torch.float32, device=device)
        self._module, _ = _load(model.data, device)

    def forward(self) -> torch.Tensor:
        """See Program."""
        output = self._module(self.input)
        return output[0] if isinstance(output, (tuple, list)) else output  # type: ignore[no-any-return]


def load_runtime_library() -> Path:
    """Make torch know the operators of such files. Raises ImportError without the package, Unusable if its library
    does not fit."""
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt")  # where pip installed it, its libraries are found only by importing it
    found = importlib.util.find_spec("torch_tensorrt")  # not imported: the package loads every compiler it has
    if found is None or not found.submodule_search_locations:
        raise ImportError("No module named 'torch_tensorrt'")
    library = Path(next(iter(found.submodule_search_locations))) / "lib" / "libtorchtrt_runtime.so"
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call, unused-ignore]
    except OSError as error:
        raise Unusable(
            f"torch-tensorrt does not fit torch {torch.__version__}: {error}; install the one built for this torch, "
            'or set runtime = "torchscript"'
        ) from error
    return library


def compile_module(order: BuildOrder, say: Say, device: torch.device | None = None) -> tuple[bytes, dict[str, str]]:
    """The bytes of *order.source* compiled for *device*, None being the GPU, with the exporter's metadata kept; and
    the versions of what compiled it. Raises Unusable, ImportError, RuntimeError."""
    if order.precision == "int8" or order.dla is not None:
        raise Unusable('torch-tensorrt is built here for the GPU, in fp16 or fp32; for int8 or a DLA use "tensorrt"')
    say("loading the compiler", None)
    import torch_tensorrt  # noqa: PLC0415 - runtime-only devices lack it

    module, config = _load(order.source.read_bytes(), device or torch.device("cuda"))
    say("compiling", None)
    shape = (1, 3, *order.input_hw)
    image = torch_tensorrt.Input(shape, dtype=torch.float32)  # type: ignore[no-untyped-call, unused-ignore]
    compiled = torch_tensorrt.ts.compile(
        module.eval(),
        inputs=[image],
        enabled_precisions={torch.float32, torch.float16} if order.precision == "fp16" else {torch.float32},
        workspace_size=order.workspace_mb << 20,
        truncate_long_and_double=True,
    )
    buffer = io.BytesIO()
    with _without_deprecation():
        torch.jit.save(compiled, buffer, _extra_files={_CONFIG: config})
    return buffer.getvalue(), {"torch": torch.__version__, "torch_tensorrt": torch_tensorrt.__version__}


def _load(data: bytes, device: torch.device) -> tuple[Any, str]:
    """The module, and its exporter's metadata."""
    extra = {_CONFIG: ""}
    with _without_deprecation():
        module = torch.jit.load(io.BytesIO(data), map_location=device, _extra_files=extra)  # type: ignore[no-untyped-call]
    config: Any = extra[_CONFIG]
    return module, config.decode() if isinstance(config, bytes) else config


@contextlib.contextmanager
def _without_deprecation() -> Any:
    """torch.jit is deprecated since 2.11, and the only form of these files."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        yield
