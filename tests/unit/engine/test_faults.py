from __future__ import annotations

import pytest

from defectd.engine.faults import Fault, classify, essence


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("whatever it says"),
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.44 GiB total capacity)"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError(
            'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/opt/pytorch/c10/cuda/CUDACachingAllocator.cpp":838, '
            "please report a bug to PyTorch."
        ),
        RuntimeError("NvMapMemAllocInternalTagged: 1075072515 error 12"),
        RuntimeError("NvMapMemHandleAlloc: error 0"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_every_shape_of_out_of_memory_is_recognised(error: BaseException) -> None:
    assert classify(error) is Fault.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure",
        "CUDA error: device-side assert triggered",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA driver error: invalid argument",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
        "The following operation failed in the TorchScript interpreter.\nTraceback…\nRuntimeError: CUDA error: unknown",
    ],
)
def test_a_cuda_error_means_that_the_context_is_lost(text: str) -> None:
    assert classify(RuntimeError(text)) is Fault.DEVICE_LOST


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (80) must match the size of tensor b (64) at non-singleton dimension 2"),
        RuntimeError("shape '[7, -1, 11]' is invalid for input of size 18432"),
        ValueError("a frame of 0x0 has no pixels"),
    ],
)
def test_any_other_error_concerns_one_frame(error: BaseException) -> None:
    assert classify(error) is Fault.ONE_FRAME


def test_the_essence_of_an_error_is_one_short_line() -> None:
    assert essence(RuntimeError("first\nsecond")) == "RuntimeError: first"
    assert essence(ValueError()) == "ValueError: no message"
    assert len(essence(RuntimeError("x" * 5000))) == 300


def test_the_essence_of_a_torchscript_error_is_its_cause() -> None:
    text = (
        "The following operation failed in the TorchScript interpreter.\n"
        'Traceback of TorchScript, serialized code (most recent call last):\n  File "code/x.py", line 4\n'
        "RuntimeError: shape '[7]' is invalid\n"
    )
    assert essence(RuntimeError(text)) == "RuntimeError: shape '[7]' is invalid"
