"""Run by an interpreter that has Ultralytics, never by ours: `python ultralytics_boxes.py MODEL IMAGES OUTPUT`.

Writes what `predict` sees in each picture of the folder IMAGES to OUTPUT, as JSON: stem to a list of
[x1, y1, x2, y2, confidence, class name]. DEFECTD_PEER_SETUP names a module to import first. Ultralytics is AGPL-3.0:
it is a peer to compare with, and no part of defectd.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path


def main(model_path: str, images: str, output: str) -> None:
    """Predict on every picture at the thresholds of the comparison."""
    if os.environ.get("DEFECTD_PEER_SETUP"):
        importlib.import_module(os.environ["DEFECTD_PEER_SETUP"])
    from ultralytics import YOLO

    model = YOLO(model_path, task="detect")
    seen = {}
    for path in sorted(Path(images).glob("*.jpg")):
        (result,) = model.predict(str(path), conf=0.25, iou=0.7, max_det=300, device="cpu", verbose=False)
        rows = result.boxes.data.tolist()
        seen[path.stem] = [[*row[:5], result.names[int(row[5])]] for row in rows]
    Path(output).write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:4])
