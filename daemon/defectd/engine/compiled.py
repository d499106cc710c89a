"""A `.pt2` of torch.export, compiled by torch for the machine that it runs on.

What can be unpickled on the way? `torch.export.load` (2.13) goes through torch.load for the example inputs and for
weights that are no plain tensors, without `weights_only` if need be, and through pickle itself for constants that are
opaque objects. The bytes were verified before, but none of it is needed: torch.load is held to plain tensors here, and
opaque objects are refused. Inductor's own cache has pickles and shared objects, too: see environment.py, only this user
can write there.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import zipfile
from pathlib import Path
from typing import Any, Iterator, Sequence

import torch
import torch.export  # not loaded by torch before 2.2
from torch.fx.node import map_aggregate

from defectd.clock import monotonic_ns, ms_between
from defectd.engine.background import available_memory_mb
from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.engine.compiling import Meter, check_headroom
from defectd.engine.environment import CORES
from defectd.engine.faults import Fault, classify, essence
from defectd.engine.torchscript import grey, head_of
from defectd.workers.child import Unusable

log = logging.getLogger(__name__)

_MARKS = ("archive_format", "serialized_exported_program.json")  # from torch 2.8 on; before
_INSTEAD = 'set runtime = "torchscript" or "auto"'


class CompiledRuntime:
    """One variant only, as compiling takes minutes: channels-last, on an x86_64 CPU some 10 % faster than contiguous.
    Inductor's `freezing` gains nothing there, and its results are not cached."""

    name = "compiled"

    def __init__(self, order: EngineOrder, model: VerifiedModel, device: torch.device, dtype: torch.dtype) -> None:
        begun_ns = monotonic_ns()
        self._module = _placed(_load(model.data, order.path), device, dtype)
        self._loaded_s = ms_between(begun_ns, monotonic_ns()) / 1000
        self._path, self._input_hw, self._device, self._dtype = order.path, model.metadata.input_hw, device, dtype
        self._programs: list[CompiledProgram] = []

    def variants(self) -> Sequence[str]:
        """See Runtime."""
        return ["channels_last"]

    def program(self, variant: str, batch: int = 1) -> CompiledProgram:
        """See Runtime. What was exported has one shape: each of several sizes is a file of its own."""
        if batch != 1:
            raise Unusable(f"{self._path}: was exported for batch 1, not {batch}")
        static_input = grey((1, 3, *self._input_hw), self._device, self._dtype, torch.channels_last)
        self._programs.append(CompiledProgram(variant, self._module, static_input, self._path))
        return self._programs[-1]

    def notes(self) -> list[str]:
        """See Runtime."""
        return [f"loaded in {self._loaded_s:.1f} s", *(program.note for program in self._programs if program.note)]


class CompiledProgram:
    """See Program. Compiled in its first call, in the thread and on the stream that all calls must come from.

    On CUDA the compiled code has CUDA graphs of its own, whose output the next call overwrites.
    """

    graphable = False

    def __init__(self, variant: str, module: torch.fx.GraphModule, static_input: torch.Tensor, path: Path) -> None:
        self.variant, self.input, self.note, self._path = variant, static_input, "", path
        self._compiled: Any = torch.compile(module, fullgraph=True, dynamic=False, mode="reduce-overhead")
        self._on_cuda = static_input.is_cuda

    def forward(self) -> torch.Tensor:
        """See Program."""
        if not self.note:
            return self._compile()
        if self._on_cuda:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return head_of(self._compiled(self.input))

    def _compile(self) -> torch.Tensor:
        """The first call. Raises Unusable; RuntimeError or MemoryError if the device or its memory is gone."""
        check_headroom(Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")), available_memory_mb())
        meter = Meter(self._on_cuda)
        try:
            with _all_cores():
                output = head_of(self._compiled(self.input))
        except Exception as error:
            if classify(error) is not Fault.ONE_FRAME:
                raise
            log.warning("cannot compile %s: %s", self._path, essence(error))
            raise Unusable(f"{self._path}: {_why(error)}") from error
        self.note = meter.note()
        return output


@contextlib.contextmanager
def _all_cores() -> Iterator[None]:
    """OMP_PROC_BIND leaves this thread one core; the compilers that it starts would share it."""
    bound = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, bound)


def _why(error: BaseException) -> str:
    """What torch's compiler is missing, and what to do."""
    text = str(error).lower()
    if "c++ compiler" in text or "invalidcxxcompiler" in text or "find c compiler" in text:
        return f"torch.compile needs a C++ compiler: apt install g++, or {_INSTEAD}"
    if "triton" in text and ("install" in text or "missing" in text):
        return f"torch.compile needs the triton that was built for this torch: install it, or {_INSTEAD}"
    if "no space left" in text:
        return f"no space left in {os.environ.get('TORCHINDUCTOR_CACHE_DIR')}: free some, or {_INSTEAD}"
    return f"torch {torch.__version__} cannot compile this model: {essence(error)}; {_INSTEAD}"


def _load(data: bytes, path: Path) -> torch.fx.GraphModule:
    """The network as it was exported. Raises Unusable."""
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError):
        names = []
    if not any(name.endswith(_MARKS) for name in names):  # half of one reads as the archive of example inputs inside
        raise Unusable(f"{path}: is not a .pt2 of torch.export, or damaged; copy it again")
    opaque = [name for name in names if "opaque_obj" in name]
    if opaque:
        raise Unusable(f"{path}: has pickled objects inside ({opaque[0]}), which could run any code when loaded")
    try:
        return torch.export.load(io.BytesIO(data)).module()
    except MemoryError:
        raise
    except Exception as error:  # the format differs between releases of torch, and so do their errors
        raise Unusable(
            f"this torch {torch.__version__} cannot read {path} ({essence(error)}): a .pt2 can be read by the torch "
            f"that exported it, and by some newer ones. The TorchScript artifact serves: {_INSTEAD}"
        ) from error


def _placed(module: torch.fx.GraphModule, device: torch.device, dtype: torch.dtype) -> torch.fx.GraphModule:
    """*module*, on *device*, its weights and what they meet in *dtype*; what it knows of pixels stays in fp32."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(dtype)
    module.to(device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def here(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)  # it asserts the dtype and the device of the exporter
            continue
        if node.op == "get_attr":
            _move_constant(module, str(node.target), device)
        node.args, node.kwargs = map_aggregate(node.args, here), map_aggregate(node.kwargs, here)
    module.recompile()
    return module


def _move_constant(module: torch.nn.Module, target: str, device: torch.device) -> None:
    """Tensors that were constants of the program are mere attributes here, which `Module.to` does not see."""
    owner_name, _, name = target.rpartition(".")
    owner = module.get_submodule(owner_name)
    value = getattr(owner, name)
    if isinstance(value, torch.Tensor) and value.device != device:
        setattr(owner, name, value.to(device))
