"""The floor under every figure: the bare TorchScript forward, with nothing around it.

A process of its own, `python -m defectd.bench.floor MODEL`, because it imports torch. Requests come as JSON lines on
stdin, answers leave as JSON lines on stdout:

{"units": 40}  so many calls without a pause, each way in its turn
-> {"as loaded": [ms, ...], "channels-last input": [ms, ...], "channels-last input and weights": [ms, ...]}
{"units": 1, "way": "as loaded"}  only that way
-> {"as loaded": [ms, ...]}
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Dict, Tuple

import torch

from defectd.models.metadata import read_metadata

_WARM_CALLS = 10
_LAST = torch.channels_last

Ways = Dict[str, Tuple[Any, torch.Tensor]]


def main() -> None:
    """Serve requests until stdin ends."""
    ways = _load(sys.argv[1])
    with torch.inference_mode():
        for module, picture in ways.values():
            for _ in range(_WARM_CALLS):
                module(picture)
        greeting = {"torch": torch.__version__, "threads": torch.get_num_threads(), "ways": list(ways)}
        print(json.dumps(greeting), flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            samples_ms = {
                name: _calls_ms(module, picture, request["units"])
                for name, (module, picture) in ways.items()
                if name == request.get("way", name)
            }
            print(json.dumps(samples_ms), flush=True)


def _load(path: str) -> Ways:
    """Modules with their inputs, from what everybody does to the best that we know."""
    height, width = read_metadata(Path(path)).input_hw
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        stock, converted = (torch.jit.load(path).eval() for _ in range(2))  # type: ignore[no-untyped-call]
    turned = picture.contiguous(memory_format=_LAST)
    return {
        "as loaded": (stock, picture),
        "channels-last input": (stock, turned),
        "channels-last input and weights": (converted.to(memory_format=_LAST), turned),
    }


def _calls_ms(module: Any, picture: torch.Tensor, units: int) -> list[float]:
    samples_ms = []
    for _ in range(units):
        started_s = time.perf_counter()
        module(picture)
        samples_ms.append((time.perf_counter() - started_s) * 1e3)
    return samples_ms


if __name__ == "__main__":
    main()
