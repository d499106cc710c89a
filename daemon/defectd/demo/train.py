"""Train the demo's model on simulated boards, from nothing, the same way every time.

    python -m defectd.demo.train --out boards.torchscript [--units N] [--epochs N N] [--imgsz N]
    python -m defectd.demo.train --score boards.torchscript

A development tool: it needs torch, OpenCV and, to train, Ultralytics (AGPL-3.0; imported inside functions of
this file and nowhere else) with a torchvision that fits the torch. No picture or weight is downloaded. An
epoch of 1440 pictures took 67 s on two cores. What the model in this folder reaches is in boards.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator, Sequence

import cv2
import numpy as np
import torch

from defectd.camera.boards import CLASS_NAMES, Board, BoardLine
from defectd.demo.scoring import Scores, score
from defectd.demo.torchscript import rewrite

DEMO_SEED = 7  # the demo's own board: never trained on
HELD_OUT_SEED = 900_000
HELD_OUT_LAYOUTS = 40
OPERATING_THRESHOLD = 0.40  # the score from which the demo reports a defect
_DEFECTS_MIN, _DEFECTS_MAX = 4, 15  # far more than on the line: a picture then teaches more


@dataclass(frozen=True)
class Stage:
    """One part of the training, on layouts of its own: the first learns what defects look like from many
    pictures of few boards, the second what is no defect from few pictures of many."""

    name: str
    first_seed: int
    units_per_layout: int
    share_without_defects: float
    learning_rate: float


LEARN = Stage("learn", 100_000, 8, 0.1, 0.003)
REFINE = Stage("refine", 200_000, 4, 0.25, 0.0012)


def training_boards(stage: Stage, units: int) -> Iterator[Board]:
    """Boards for training, most of them square, so that no input is padding."""
    rng = np.random.Generator(np.random.PCG64(1))
    for number in range(units):
        layout, unit = divmod(number, stage.units_per_layout)
        if unit == 0:
            height_px = 512 if layout % 4 == 0 else 640  # the camera's own format too, with its padding
            line = BoardLine(stage.first_seed + layout, 640, height_px)
        is_good = rng.random() < stage.share_without_defects
        yield line.with_defects(unit, 0 if is_good else int(rng.integers(_DEFECTS_MIN, _DEFECTS_MAX + 1)))


def held_out_boards(units_per_layout: int = 10) -> Iterator[Board]:
    """Boards as the line makes them, of layouts that training never saw."""
    for layout in range(HELD_OUT_LAYOUTS):
        line = BoardLine(HELD_OUT_SEED + layout)
        yield from (line.board(unit) for unit in range(1, units_per_layout + 1))


def demo_boards(units: int = 200) -> Iterator[Board]:
    """The demo's own first units."""
    line = BoardLine(DEMO_SEED)
    return (line.board(unit) for unit in range(1, units + 1))


def write_dataset(folder: Path, boards: Iterable[Board]) -> Path:
    """Pictures and labels in Ultralytics' layout; returns the data file."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, board in enumerate(boards):
        height_px, width_px = board.image.shape[:2]
        cv2.imwrite(str(folder / "images" / (f"{number:05d}.png")), board.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        rows = []
        for defect in board.defects:
            x, y, w, h = defect.xywh_px
            box = ((x + w / 2) / width_px, (y + h / 2) / height_px, w / width_px, h / height_px)
            rows.append(" ".join([str(defect.class_id), *(f"{value:.6f}" for value in box)]))
        (folder / "labels" / (f"{number:05d}.txt")).write_text("\n".join(rows))
    (folder / "val.txt").write_text("./images/00000.png\n")  # Ultralytics wants one; nothing is judged by it
    data = folder / "data.yaml"
    data.write_text(
        json.dumps({"path": str(folder), "train": "images", "val": "val.txt", "names": dict(enumerate(CLASS_NAMES))})
    )  # JSON is YAML
    return data


def train(folder: Path, units: int, epochs: tuple[int, int], imgsz_px: int) -> Path:
    """Train in a folder, both stages; returns Ultralytics' TorchScript export (FP32, batch 1, fixed size)."""
    learnt = fit_weights(folder, LEARN, units, epochs[0], imgsz_px)
    refined = fit_weights(folder, REFINE, units, epochs[1], imgsz_px, start=learnt)
    from ultralytics.models import YOLO

    return Path(YOLO(str(refined)).export(format="torchscript", imgsz=imgsz_px, device="cpu"))


def fit_weights(
    folder: Path, stage: Stage, units: int, epochs: int, imgsz_px: int, *, start: Path | None = None
) -> Path:
    """Train one stage, from nothing or from weights; returns the last weights.

    A stage that was interrupted is taken up after its last whole epoch, with the settings it began with.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    from ultralytics.models import YOLO
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Trainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics has no types
        """Judges nothing while it trains: the last weights are taken, and scored after export."""

        def validate(self) -> tuple[dict[str, float], float]:
            return {}, 0.0

        def final_eval(self) -> None:
            pass

    weights, done = folder / stage.name / "weights" / "last.pt", folder / stage.name / "done"
    if done.exists():
        return weights
    resumes = weights.exists()
    data = folder / f"{stage.name}-data" / "data.yaml"
    if not resumes:
        write_dataset(data.parent, training_boards(stage, units))
    model = YOLO(str(weights if resumes else start or Path(__file__).with_name("model.yaml")), task="detect")
    # Ultralytics leaves one core idle, which is half of a small machine.
    model.add_callback("on_train_start", lambda _: torch.set_num_threads(os.cpu_count() or 1))
    model.train(
        trainer=Trainer,
        resume=resumes,
        data=str(data),
        epochs=epochs,
        imgsz=imgsz_px,
        batch=16,
        nbs=16,
        device="cpu",
        workers=0,
        cache="ram",
        seed=0,
        deterministic=True,
        amp=False,
        val=False,
        plots=False,
        project=str(folder),
        name=stage.name,
        exist_ok=True,
        optimizer="AdamW",
        lr0=stage.learning_rate,
        lrf=0.01,
        cos_lr=True,
        warmup_epochs=1.0,
        weight_decay=0.0005,
        mosaic=0.0,
        fliplr=0.5,
        flipud=0.5,
        scale=0.1,
        translate=0.05,
        hsv_h=0.015,
        hsv_s=0.3,
        hsv_v=0.2,
        close_mosaic=0,
    )
    done.touch()
    return weights


def report(model: Path, threshold: float) -> dict[str, dict[str, object]]:
    """Scores of a model on held-out layouts and on the demo's own units, as printed."""
    results: dict[str, Scores] = {
        "held-out layouts": score(model, held_out_boards(), threshold),
        f"demo (seed {DEMO_SEED})": score(model, demo_boards(), threshold),
    }
    return {name: scores.as_dict() for name, scores in results.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="defectd.demo.train", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="train, and write the TorchScript model here")
    what.add_argument("--score", type=Path, help="score an existing model, without training")
    parser.add_argument("--units", type=int, default=1440, help="pictures to train on, in each stage")
    parser.add_argument("--epochs", type=int, nargs=2, default=(14, 6), help="of the two stages")
    parser.add_argument("--imgsz", type=int, default=416, help="side of the model's square input in pixels")
    parser.add_argument("--threshold", type=float, default=OPERATING_THRESHOLD)
    parser.add_argument("--work", type=Path, help="folder for pictures and checkpoints; kept, and taken up again")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    if options.out is not None:
        folder = Path(options.work or tempfile.mkdtemp(prefix="defectd-train-"))
        try:
            rewrite(train(folder.resolve(), options.units, tuple(options.epochs), options.imgsz), options.out)
        finally:
            if options.work is None:
                shutil.rmtree(folder, ignore_errors=True)
    json.dump(report(options.out or options.score, options.threshold), sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
