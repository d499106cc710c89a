"""Bundles of the demo's network for a simulated line: as it is, worse, slow, and some that are good until they are not.

What goes wrong goes wrong after so many pictures of a camera, whatever the runtime did to warm up: in the shadow, or
when the candidate decides. Needs torch and cv2.
"""

from __future__ import annotations

import io
import json
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from defectd.camera.boards import CLASS_NAMES, BoardLine
from defectd.demo.scoring import score
from defectd.demo.station import MIN_CONFIDENCE, MODEL, SEED
from defectd.demo.torchscript import config, load
from defectd.inspection.letterbox import PADDING_VALUE, fit
from defectd.inspection.yolo import Head, Thresholds, detections_of, select
from support.releases import release
from support.signed import write_envelope

GOLDEN_PICTURES = 3
_GOLDEN_SEED = 424_242  # a layout that neither the training nor the line has seen
_THRESHOLDS = Thresholds(confidence=0.25, nms_iou=0.7)
NOISE_SIGMA = 0.14  # misses 11 % of the defects in the boards below; less misses none, and only invents some
_SCORED_BOARDS = 140
_CAMERA_STEPS = (0.005, 0.05)
"""Mean step between neighbouring pixels (0..1) of a board; warm-up's noise has more, the grey of keep-warm none."""


class AsItIs(torch.nn.Module):
    """The network, and a count of the pictures that a camera or the golden set showed it."""

    def __init__(self, network: torch.nn.Module, after: int = 0) -> None:
        super().__init__()
        self.network, self.after = network, after
        self.least, self.most = _CAMERA_STEPS
        self.register_buffer("seen", torch.zeros([], dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, 416, 416) -> (1, 4 + classes, anchors)."""
        return self.network(x)

    def is_due(self, x: torch.Tensor) -> bool:
        """More than `after` pictures were seen, this one included."""
        steps = float((x[:, :, :, 1:] - x[:, :, :, :-1]).abs().mean())
        if self.least < steps < self.most:
            self.seen += 1
            return int(self.seen) > self.after
        return False


class Unsure(AsItIs):
    """It believes half of what it should: what is faint is under the recipe's threshold, and nothing is invented."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As AsItIs, with half the scores."""
        output = self.network(x)
        return torch.cat([output[:, :4], output[:, 4:] * 0.5], 1)


class Crashing(AsItIs):
    """A division by zero in compiled code: SIGFPE, and the process is gone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As AsItIs, and then never again."""
        if self.is_due(x):
            return x + 1 % int(x.sum() * 0)
        return self.network(x)


class Hanging(AsItIs):
    """A loop that does not end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As AsItIs, and then nothing."""
        if self.is_due(x):
            while bool(x.max() > -1):
                x = x.clone()
        return self.network(x)


class TurningNaN(AsItIs):
    """One number of the answer is none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As AsItIs, and then with NaN."""
        output = self.network(x)
        if self.is_due(x):
            output[0, 0, 0] = float("nan")
        return output


class Slow(AsItIs):
    """`after` is the number of matrix products that it makes for nothing, of which each leaves its input as it is."""

    def __init__(self, network: torch.nn.Module, after: int) -> None:
        super().__init__(network, after)
        self.register_buffer("identity", torch.eye(416))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As AsItIs, later."""
        plane = x[0, 0]
        for _ in range(self.after):
            plane = torch.mm(plane, self.identity)
        return self.network(torch.cat([plane[None, None], x[:, 1:]], 1))


def network() -> torch.nn.Module:
    """The demo's, a copy."""
    module: torch.nn.Module = load(MODEL)
    return module


def noisy() -> torch.nn.Module:
    """Noise in all weights, of so many standard deviations of each tensor that a tenth of the defects is missed."""
    module, random = network(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in module.parameters():
            if weights.dim() > 1:
                weights.add_(torch.randn(weights.shape, generator=random) * NOISE_SIGMA * weights.std())
    return module


def quality(model: Path) -> str:
    """What a network misses of the line's first boards, and what it finds that is none, in words."""
    line = BoardLine(SEED)
    scores = score(model, (line.board(unit) for unit in range(1, _SCORED_BOARDS + 1)), MIN_CONFIDENCE)
    return (
        f"misses {1 - scores.recall:.0%} of {scores.defects} defects, {1 - scores.precision:.0%} of what it finds is "
        f"none or of another kind, and {scores.wrong_verdicts} of {scores.units} boards are judged wrong"
    )


def rounds_for(extra_s: float) -> int:
    """How many of Slow's products take *extra_s* on one thread of this machine when it is not busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plane, identity = torch.rand(416, 416), torch.eye(416)
        took_s = []
        for _ in range(20):
            begun_s = time.perf_counter()
            torch.mm(plane, identity)
            took_s.append(time.perf_counter() - begun_s)
    finally:
        torch.set_num_threads(threads)
    return max(1, round(extra_s / min(took_s)))


def boards_bundle(directory: Path, seq: int, module: torch.nn.Module | None = None) -> Path:
    """*module* (the demo's network) in the new *directory*, signed, with golden pictures and what it sees there."""
    module = network() if module is None else module
    data = _saved(module)
    pictures = [_golden_picture(number) for number in range(1, GOLDEN_PICTURES + 1)]
    names = [f"golden-{number:04d}.png" for number in range(1, GOLDEN_PICTURES + 1)]
    golden = [{"image": name, "boxes": _boxes(data, picture)} for name, picture in zip(names, pictures)]
    encoded = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
    artifacts = {
        "model.torchscript": ("torchscript", data),
        **{name: ("golden_image", png) for name, png in zip(names, encoded)},
    }
    height, width = config(MODEL)["imgsz"]
    release(
        directory, artifacts, seq, name="boards", version=str(seq), golden={"pictures": golden},
        network={
            "input_hw": [height, width], "stride": config(MODEL)["stride"], "classes": list(CLASS_NAMES),
            "end2end": False, "confidence": _THRESHOLDS.confidence, "nms_iou": _THRESHOLDS.nms_iou,
        },
    )  # fmt: skip
    write_envelope(directory)
    return directory


def _saved(module: torch.nn.Module) -> bytes:
    """As TorchScript with the exporter's metadata."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole, from 2.11 on
        scripted = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module.eval())
        torch.jit.save(scripted, buffer, _extra_files={"config.txt": json.dumps(config(MODEL))})
    return buffer.getvalue()


def _golden_picture(number: int) -> NDArray[np.uint8]:
    """Boards with more defects than the line has: a picture proves more then."""
    return BoardLine(_GOLDEN_SEED).with_defects(number, 4).image


def _boxes(data: bytes, picture: NDArray[np.uint8]) -> list[list[float]]:
    """x1, y1, x2, y2, score, class: as the exporter writes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(io.BytesIO(data), map_location="cpu").eval()
    height, width = config(MODEL)["imgsz"]
    place = fit((picture.shape[0], picture.shape[1]), (height, width))
    canvas = np.full((height, width, 3), PADDING_VALUE, np.uint8)
    small = cv2.resize(picture, place.resized_hw[::-1], interpolation=cv2.INTER_LINEAR)
    canvas[place.pad_top :, place.pad_left :][: place.resized_hw[0], : place.resized_hw[1]] = small
    planes = np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1), np.float32) / np.float32(255)
    with torch.no_grad():
        raw = module(torch.from_numpy(planes[None]))[0].numpy()
    found = detections_of(select(raw, _THRESHOLDS.confidence), Head.DENSE, len(CLASS_NAMES), _THRESHOLDS)
    return [
        [*(round(float(side), 2) for side in box), round(float(sure), 4), int(label)]
        for box, sure, label in zip(place.to_frame(found.xyxy), found.scores, found.class_ids)
    ]
