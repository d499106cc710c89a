"""Ultralytics `predict` on the same file and the same pictures, for comparison.

Run by path with the peer's interpreter, never imported by defectd: Ultralytics is AGPL-3.0. It needs nothing of
defectd either: `PEER/bin/python peer.py MODEL IMAGES CONFIDENCE [SETUP_MODULE]`. JSON lines on stdin and stdout:

{"mode": "paced", "rate_hz": 4, "units": 40}  -> {"read_ms": [...], "predict_ms": [...]}
{"mode": "stream", "units": 300}  -> {"rate_hz": 21.4}
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Iterator

_WARM_CALLS = 10
_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def main() -> None:
    """Serve requests until stdin ends."""
    del sys.path[0]  # this folder: its names are nobody else's business
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ultralytics greets on stdout
    model, images, confidence = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    for name in sys.argv[4:]:
        importlib.import_module(name)
    import torch
    import ultralytics

    files = sorted(str(file) for file in images.iterdir() if file.suffix.lower() in _SUFFIXES)
    yolo = ultralytics.YOLO(model, task="detect")
    options: dict[str, Any] = {"conf": confidence, "device": "cpu", "verbose": False}
    _paced(yolo, files, options, _WARM_CALLS, rate_hz=1000.0)
    greeting = {"ultralytics": ultralytics.__version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps(greeting), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["mode"] == "paced":
            answer = _paced(yolo, files, options, request["units"], request["rate_hz"])
        else:
            answer = {"rate_hz": _stream_hz(yolo, str(images), options, request["units"])}
        print(json.dumps(answer), file=answers, flush=True)


def _paced(yolo: Any, files: list[str], options: dict[str, Any], units: int, rate_hz: float) -> dict[str, Any]:
    import cv2

    read_ms, predict_ms = [], []
    began_s = time.monotonic()
    for unit, file in enumerate(itertools.islice(itertools.cycle(files), units)):
        time.sleep(max(0.0, began_s + (unit + 1) / rate_hz - time.monotonic()))
        started_s = time.perf_counter()
        picture = cv2.imread(file)
        read_s = time.perf_counter()
        yolo.predict(picture, **options)
        ended_s = time.perf_counter()
        read_ms.append((read_s - started_s) * 1e3)
        predict_ms.append((ended_s - read_s) * 1e3)
    return {"read_ms": read_ms, "predict_ms": predict_ms}


def _stream_hz(yolo: Any, images: str, options: dict[str, Any], units: int) -> float:
    """Results per second within the passes over the folder; what a pass takes to begin is not counted."""
    results, elapsed_s = 0, 0.0
    while results < units:
        moments_s = list(_moments_s(yolo.predict(images, stream=True, **options)))
        results += len(moments_s) - 1
        elapsed_s += moments_s[-1] - moments_s[0]
    return results / elapsed_s


def _moments_s(results: Any) -> Iterator[float]:
    for _ in results:
        yield time.perf_counter()


if __name__ == "__main__":
    main()
