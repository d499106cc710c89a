"""The floor under every figure: the bare TorchScript forward, with nothing around it.

A process of its own, `python -m defectd.bench.floor MODEL`, because it imports torch. Requests come as JSON lines on
stdin, answers leave as JSON lines on stdout:

{"rate_hz": 4, "units": 40}  one call per period, each layout in its turn
{"rate_hz": null, "units": 40}  calls without a pause
-> {"contiguous": [ms, ...], "channels_last": [ms, ...]}
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from defectd.models.metadata import read_metadata

_WARM_CALLS = 10


def main() -> None:
    """Serve requests until stdin ends."""
    inputs, module = _load(sys.argv[1])
    with torch.inference_mode():
        for tensor in inputs.values():
            for _ in range(_WARM_CALLS):
                module(tensor)
        print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            samples_ms = {
                layout: _calls_ms(module, tensor, request["units"], request["rate_hz"])
                for layout, tensor in inputs.items()
            }
            print(json.dumps(samples_ms), flush=True)


def _load(path: str) -> tuple[dict[str, torch.Tensor], Any]:
    """The input in both layouts, and the module as loaded."""
    height, width = read_metadata(Path(path)).input_hw
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        module = torch.jit.load(path).eval()  # type: ignore[no-untyped-call]
    return {"contiguous": picture, "channels_last": picture.contiguous(memory_format=torch.channels_last)}, module


def _calls_ms(module: Any, tensor: torch.Tensor, units: int, rate_hz: float | None) -> list[float]:
    samples_ms = []
    began_s = time.monotonic()
    for unit in range(units):
        if rate_hz is not None:
            time.sleep(max(0.0, began_s + (unit + 1) / rate_hz - time.monotonic()))
        started_s = time.perf_counter()
        module(tensor)
        samples_ms.append((time.perf_counter() - started_s) * 1e3)
    return samples_ms


if __name__ == "__main__":
    main()
