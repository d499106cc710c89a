"""What an error text of torch, CUDA or the Tegra memory driver means for the process. Pure.

On Tegra, running out of memory rarely raises `torch.OutOfMemoryError`. And after any
"CUDA error" the context may be poisoned: every later call fails, or worse, does not. Only a new process helps.
"""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """What to do about an error."""

    OUT_OF_MEMORY = "out of memory"  # end the process: its memory comes back whole only then
    DEVICE_LOST = "the CUDA context is lost"  # end the process: the context is poisoned
    ONE_FRAME = "this frame failed"  # refuse the frame and go on


_OUT_OF_MEMORY = (
    "out of memory",  # torch: "CUDA out of memory. Tried to allocate …", "CUDA error: out of memory"
    "nvml_success == r internal assert failed",  # what torch's report of an OOM trips over on Tegra: pytorch #185240
    "nvmapmemalloc",  # NvMapMemAllocInternalTagged … error 12: the carve-out is full or fragmented
    "nvmapmemhandlealloc",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",  # cublasCreate found no memory for its workspace
    "cudnn_status_alloc_failed",
    "cudnn_status_not_initialized",  # cudnnCreate likewise
    "cudaerrormemoryallocation",
    "can't allocate memory",  # torch on the CPU: "DefaultCPUAllocator: can't allocate memory"
    "cannot allocate memory",  # ENOMEM
    "not enough memory",
    "std::bad_alloc",
    "outofmemory",  # TensorRT: "… [allocator.cpp] OutOfMemory (Requested size was …)"
)
_DEVICE_LOST = (
    "cuda error",
    "cuda driver error",
    "cuda runtime error",
    "cuda runtime (",  # TensorRT: "Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
    "cudnn error",
    "cublas_status_",
    "cudnn_status_",
    "cufft_",
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
    "misaligned address",
    "nvrm",
)


def classify(error: BaseException) -> Fault:
    """The meaning of *error*, by its type's name and its text."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Fault.OUT_OF_MEMORY
    text = str(error).lower()
    if any(sign in text for sign in _OUT_OF_MEMORY):
        return Fault.OUT_OF_MEMORY
    if any(sign in text for sign in _DEVICE_LOST):
        return Fault.DEVICE_LOST
    return Fault.ONE_FRAME


def essence(error: BaseException, limit: int = 300) -> str:
    """The error in one line: torch's messages carry stack traces, TorchScript's put the cause last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    line = lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]
    kind = f"{type(error).__name__}: "
    return (line if line.startswith(kind) else kind + line)[:limit]
