"""Each format as a function from an input (1, 3, height, width) float32 to the head's output, loaded from the very
bytes that go into the bundle."""

from __future__ import annotations

import io
from typing import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from defectd.export.formats import INPUT, quiet
from defectd.export.packages import required

Floats = NDArray[np.float32]
Forward = Callable[[Floats], Floats]


def run_module(module: torch.nn.Module) -> Forward:
    """As it is, in this process."""

    def forward(tensor: Floats) -> Floats:
        with torch.no_grad():
            output = module(torch.from_numpy(tensor))
        return _whole(output)

    return forward


def run_torchscript(data: bytes) -> Forward:
    """fp32 on the CPU."""
    return run_module(_load_torchscript(data))


def run_rounded_to_fp16(data: bytes) -> Forward:
    """TorchScript whose weights went through fp16 and back, computed in fp32: what fp16 loses in the weights. Its
    arithmetic is the GPU's, and is judged on the station by the golden pictures."""
    module = _load_torchscript(data)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    return run_module(module)


def run_exported_program(data: bytes) -> Forward:
    """Operator by operator, not compiled."""
    with quiet():
        program = torch.export.load(io.BytesIO(data)).module()
    return run_module(program)


def run_onnx(data: bytes) -> Forward:
    """ONNX Runtime on the CPU."""
    runtime = required("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def forward(tensor: Floats) -> Floats:
        return np.asarray(session.run(None, {INPUT: tensor})[0], np.float32)

    return forward


def _load_torchscript(data: bytes) -> torch.nn.Module:
    with quiet():
        module: torch.nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    return module.eval()


def _whole(output: object) -> Floats:
    tensor = output[0] if isinstance(output, (tuple, list)) else output
    assert isinstance(tensor, torch.Tensor), "a detection head in export mode returns one tensor"
    return np.ascontiguousarray(tensor.float().numpy())
