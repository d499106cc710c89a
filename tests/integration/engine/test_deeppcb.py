"""A real model on real images. DEFECTD_DEEPPCB names a folder with images/, labels/, best.pt, deeppcb.torchscript."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from defectd.workers.protocol import Inferred
from support.engine import order, running

pytest.importorskip("torch", reason="needs torch")
cv2 = pytest.importorskip("cv2", reason="needs OpenCV")

FOLDER = Path(os.environ.get("DEFECTD_DEEPPCB", "/nonexistent"))
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        not (FOLDER / "deeppcb.torchscript").is_file(), reason="set DEFECTD_DEEPPCB to the DeepPCB folder"
    ),
]


def labels(image: Path) -> NDArray[np.float32]:
    """(N, 5): class, and a box xyxy in pixels."""
    rows = np.loadtxt(FOLDER / "labels" / f"{image.stem}.txt", dtype=np.float32, ndmin=2)
    centre, half = rows[:, 1:3] * 640, rows[:, 3:5] * 320
    return np.hstack([rows[:, :1], centre - half, centre + half])


def hits(truth: NDArray[np.float32], class_ids: NDArray[np.int32], xyxy: NDArray[np.float32]) -> int:
    """How many labelled defects have a detection of their class around their centre."""
    found = 0
    for class_id, x1, y1, x2, y2 in truth:
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        inside = (xyxy[:, 0] < x) & (x < xyxy[:, 2]) & (xyxy[:, 1] < y) & (y < xyxy[:, 3])
        found += bool((inside & (class_ids == int(class_id))).any())
    return found


def test_most_labelled_defects_are_found() -> None:
    images = sorted((FOLDER / "images").glob("*.jpg"))[:20]
    labelled = found = 0
    with running(order(FOLDER / "deeppcb.torchscript", warmup_min=4, warmup_max=4)) as engine:
        engine.ready()
        for image in images:
            reply = engine.infer(cv2.imread(str(image)))
            assert isinstance(reply, Inferred)
            detections = engine.ring.read_detections(0, reply.count)
            truth = labels(image)
            labelled += len(truth)
            found += hits(truth, detections.class_ids, detections.xyxy)
    assert found / labelled > 0.75, f"{found} of {labelled}"


def test_the_checkpoint_beside_it_is_refused() -> None:
    with running(order(FOLDER / "best.pt", sha256="0" * 64)) as engine:
        assert "pickled checkpoint" in engine.last_words()["detail"]
