"""TensorRT plans: bytes that one build of TensorRT made for one kind of GPU. Named tensors only: all of 8.5 to 11 have
them. Not yet proven on hardware: docs/adr/0007-tensorrt.md says what was checked, and against what."""

from __future__ import annotations

import logging
from collections import deque
from typing import Callable, Sequence, TypeVar

import tensorrt as trt
import torch

from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.engine.faults import Fault, classify
from defectd.engine.programs import Program
from defectd.errors import ModelError
from defectd.inspection.letterbox import PADDING_VALUE
from defectd.models.metadata import parse_engine_metadata
from defectd.workers.child import Unusable

log = logging.getLogger(__name__)
Made = TypeVar("Made")

_REBUILD = "A plan runs only with the very build of TensorRT and the kind of GPU that made it: build it on this device"
_LEVELS = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)  # by trt.ILogger.Severity
_WARNING = 2  # so grave is what it says if CUDA cannot be initialised
_TORCH_TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
}


class Log(trt.ILogger):  # type: ignore[misc, unused-ignore] # Any where TensorRT is not installed
    """Passes on what TensorRT says and keeps its last complaints: a call that fails returns None or False, no more."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)  # the vendor's documentation asks for this form
        self._complaints: deque[str] = deque(maxlen=5)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, from any thread."""
        log.log(_LEVELS[min(int(severity), len(_LEVELS) - 1)], "TensorRT: %s", msg)
        if int(severity) <= _WARNING:
            self._complaints.append(msg.strip())

    def failure(self, what: str) -> RuntimeError:
        """*what* failed, with TensorRT's reasons; out of memory is spelled as `faults.classify` knows it."""
        reasons = "; ".join(self._complaints) or "TensorRT gives no reason"
        self._complaints.clear()
        return RuntimeError(f"TensorRT {trt.__version__}: {what}: {reasons}".replace("OutOfMemory", "out of memory"))


def started(make: Callable[[Log], Made], voice: Log) -> Made:
    """What *make*, a class of TensorRT's, makes. Raises RuntimeError: the bindings' own TypeError tells no reason."""
    try:
        return make(voice)
    except TypeError as error:
        raise voice.failure("it cannot start") from error


class TensorRtRuntime:
    """See Runtime. `dtype` plays no part: what a plan computes in, and the type of its input, was fixed in the build.

    *stream* gives the CUDA stream to run on, None is torch's current one.
    """

    name = "tensorrt"

    def __init__(
        self,
        order: EngineOrder,
        model: VerifiedModel,
        device: torch.device,
        dtype: torch.dtype,
        stream: Callable[[], int] | None = None,
    ) -> None:
        del dtype
        self._log, self._device, self._path = Log(), device, order.path
        self._hw = model.metadata.input_hw
        self._stream = stream or (lambda: int(torch.cuda.current_stream(device).cuda_stream))
        dla_core: int | None = (order.metadata or {}).get("dla")
        self._runtime = started(trt.Runtime, self._log)
        if dla_core is not None:
            self._runtime.DLA_core = dla_core
        self._graphable = dla_core is None
        self._engine = self._deserialize(model.data[_plan_offset(model.data, order) :])

    def variants(self) -> Sequence[str]:
        """See Runtime."""
        return ("plan",)

    def program(self, variant: str, batch: int = 1) -> Program:
        """See Runtime."""
        context = self._engine.create_execution_context()
        if context is None:
            raise self._log.failure(f"{self._path}: no execution context")
        program = TensorRtProgram(self._engine, context, self._log, self._device, self._stream)
        wanted = (batch, 3, *self._hw)
        if tuple(program.input.shape) != wanted:
            raise Unusable(
                f"{self._path}: the plan takes an input of {tuple(program.input.shape)}, not {wanted}; "
                "build it anew for that size"
            )
        program.variant, program.graphable = variant, self._graphable
        return program

    def notes(self) -> list[str]:
        """See Runtime."""
        return [f"TensorRT {trt.__version__}"]

    def _deserialize(self, plan: bytes) -> trt.ICudaEngine:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            return engine
        failure = self._log.failure(f"{self._path}: the plan is refused")
        if classify(failure) is Fault.ONE_FRAME:
            raise Unusable(f"{failure}. {_REBUILD}")
        raise failure


class TensorRtProgram:
    """See Program. Each tensor of the plan has its own memory here, for good."""

    variant = "plan"
    graphable = True

    def __init__(
        self,
        engine: trt.ICudaEngine,
        context: trt.IExecutionContext,
        log: Log,
        device: torch.device,
        stream: Callable[[], int],
    ) -> None:
        self._owners, self._context, self._log, self._stream = (engine, log), context, log, stream
        self._tensors: dict[str, torch.Tensor] = {}
        inputs: list[str] = []
        outputs: list[str] = []
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(name)
            self._tensors[name] = _tensor(engine, name, device)
        heads = [name for name in outputs if self._tensors[name].dim() == 3]
        if len(inputs) != 1 or len(heads) != 1:
            raise Unusable(
                f"expected a plan with one input and one output of three dimensions, found inputs {inputs} and "
                f"outputs {outputs}; export a detection model without nms=True"
            )
        self.input, self._head = self._tensors[inputs[0]], self._tensors[heads[0]]
        if not self.input.is_floating_point():
            raise Unusable(f"the plan's input is of {self.input.dtype}; expected float32 or float16, in 0..1")
        self.input.fill_(PADDING_VALUE / 255)
        for name, tensor in self._tensors.items():
            if not context.set_tensor_address(name, tensor.data_ptr()):
                raise log.failure(f"the memory of {name} is refused")

    def forward(self) -> torch.Tensor:
        """See Program."""
        if not self._context.execute_async_v3(self._stream()):
            raise self._log.failure("the call is refused")
        return self._head


def _plan_offset(data: bytes, order: EngineOrder) -> int:
    """Where the plan begins: Ultralytics writes a header before it; what we build here has none."""
    try:
        return parse_engine_metadata(data, order.path)[1]
    except ModelError:
        if order.metadata is None:
            raise
        return 0


def sides(dims: trt.Dims) -> tuple[int, ...]:
    """The sides of a tensor; -1 where it is not fixed. (Dims has length and items, and is no Iterable.)"""
    return tuple(dims[axis] for axis in range(len(dims)))


def _tensor(engine: trt.ICudaEngine, name: str, device: torch.device) -> torch.Tensor:
    """Memory for one tensor of *engine*."""
    shape = sides(engine.get_tensor_shape(name))
    if any(side < 0 for side in shape):
        raise Unusable(f"the plan's {name} has no fixed shape: {shape}; export it without dynamic=True and nms=True")
    kind = engine.get_tensor_dtype(name).name
    if kind not in _TORCH_TYPES:
        raise Unusable(f"the plan's {name} is of type {kind}; expected one of {', '.join(_TORCH_TYPES)}")
    return torch.zeros(shape, dtype=_TORCH_TYPES[kind], device=device)
