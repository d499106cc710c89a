"""Which device runs the model: what was asked for, if it is there and works."""

from __future__ import annotations

import logging
from typing import Sequence

import torch

from defectd.engine.base import Engine, EngineOrder, VerifiedModel
from defectd.engine.cpu import CpuEngine
from defectd.engine.faults import Fault, classify, essence
from defectd.workers.child import Broken, Unusable
from defectd.workers.ring import FrameRing

ONLY_ON_CUDA = ("tensorrt", "torch-tensorrt")

log = logging.getLogger(__name__)

_REMEDY = (
    "On a Jetson, install the torch wheel for its JetPack (not the one from PyPI) and see that this user may open "
    '/dev/nv*; or set device = "auto" or "cpu"'
)


def open_engine(order: EngineOrder, model: VerifiedModel, rings: Sequence[FrameRing]) -> tuple[Engine, str | None]:
    """The engine, cold, and why it is on the CPU if that is second choice. Raises Unusable, Broken, RuntimeError."""
    obstacle = None if order.device == "cpu" else cuda_obstacle()
    if obstacle is not None and order.device == "cuda":
        raise Unusable(f'device = "cuda", but {obstacle}. {_REMEDY}')
    if order.device == "cpu" or obstacle is not None:
        if order.runtime in ONLY_ON_CUDA:
            why = obstacle or 'device = "cpu"'
            raise Unusable(f'runtime = "{order.runtime}" needs a GPU, but {why}; set runtime = "torchscript" or "auto"')
        return CpuEngine(model, order), obstacle
    from defectd.engine.cuda_engine import CudaEngine  # noqa: PLC0415 - half of it does not exist on a CPU build

    return CudaEngine(model, order, rings), None


def cuda_obstacle() -> str | None:
    """Why CUDA cannot be used, or None if a kernel ran. Raises Broken if only memory was missing just now."""
    build = f"torch {torch.__version__}"
    if torch.version.cuda is None:
        return f"{build} is built without CUDA"
    if not torch.cuda.is_available():
        return f"{build} (for CUDA {torch.version.cuda}) finds no usable GPU: no device, no permission or no driver"
    try:
        ran = int((torch.ones(2, device="cuda") + 1).sum().item()) == 4
    except RuntimeError as error:
        if classify(error) is Fault.OUT_OF_MEMORY:
            raise Broken(f"no GPU memory: {essence(error)}") from error
        ran, problem = False, essence(error)
    else:
        problem = "it computes wrongly"
    if ran:
        return None
    major, minor = torch.cuda.get_device_capability()
    return (
        f"{torch.cuda.get_device_name()} (sm_{major}{minor}) cannot run the kernels of {build}, which has "
        f"{' '.join(torch.cuda.get_arch_list())}: {problem}"
    )
