"""What torch is built for, and with `run` whether it computes what a station needs: a convolution (FP16 on a GPU), and
from raw candidates to suppressed boxes without torchvision."""

from __future__ import annotations

import time
from typing import Any, Mapping

import numpy as np

from defectd.doctor.probes.answering import answer
from defectd.inspection.yolo import Head, corners, suppress

_TOLERANCE = 0.05  # of values around 1, in half precision
_CANDIDATES = ((20, 20, 10, 10, 0.9, 0.1), (21, 20, 10, 10, 0.8, 0.1), (60, 60, 10, 10, 0.1, 0.7))
"""cx, cy, w, h, and the scores of two classes: the second overlaps the first and has to go."""
_KEPT = [0.9, 0.7]


def probe(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises ImportError and whatever a broken library raises."""
    import torch  # noqa: PLC0415 - it is what is examined

    found: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "archs": _architectures(torch),
        "available": bool(torch.cuda.is_available()),
        "threads": torch.get_num_threads(),
    }
    if not request["run"]:
        return found
    use_gpu = found["available"] and request["device"] != "cpu"
    device = torch.device("cuda" if use_gpu else "cpu")
    if use_gpu:
        major, minor = torch.cuda.get_device_capability()
        found.update(gpu=torch.cuda.get_device_name(), sm=f"sm_{major}{minor}")
    started_s = time.monotonic()
    found["ran_on"] = device.type
    found["conv_error"] = _convolution_error(torch, device)
    found["kept"] = _kept_scores(torch, device)
    found["right"] = found["conv_error"] <= _TOLERANCE and found["kept"] == _KEPT
    found["took_s"] = round(time.monotonic() - started_s, 3)
    return found


def _architectures(torch: Any) -> list[str]:
    try:
        return list(str(torch._C._cuda_getArchFlags() or "").split())  # get_arch_list() hides it without a GPU
    except AttributeError:  # a build without CUDA
        return []


def _convolution_error(torch: Any, device: Any) -> float:
    """The largest difference to the same in FP32 on the CPU."""
    generator = torch.Generator().manual_seed(7)
    picture = torch.rand(1, 8, 32, 32, generator=generator)
    kernel = torch.rand(8, 8, 3, 3, generator=generator) / 72
    expected = torch.nn.functional.conv2d(picture, kernel)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    got = torch.nn.functional.conv2d(picture.to(device, dtype), kernel.to(device, dtype))
    return round(float((got.float().cpu() - expected).abs().max()), 5)


def _kept_scores(torch: Any, device: Any) -> list[float]:
    from defectd.engine.kernels import pack  # noqa: PLC0415 - it imports torch

    raw = torch.tensor(_CANDIDATES, device=device).T.unsqueeze(0)
    packed = pack(raw, Head.DENSE).cpu().numpy()[:, :-1]
    kept = suppress(corners(packed[:4].T), packed[5].astype(np.int32), 0.5, 10)
    return [round(float(score), 3) for score in packed[4, kept]]


if __name__ == "__main__":
    answer(probe)
