"""Pictures for an export: read, invented, letterboxed into the network's input as on a station."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from defectd.engine.preprocess import CpuLetterbox
from defectd.errors import ModelError
from defectd.inspection.letterbox import Letterbox, fit

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class NetworkInput:
    """One picture as the network sees it: `tensor` (1, 3, height, width) float32 RGB in 0..1, and the way back."""

    tensor: Floats
    letterbox: Letterbox


def pictures_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """The picture files in *folder*, sorted; *deep* looks into its folders, too."""
    files = folder.rglob("*") if deep else folder.iterdir()
    return sorted(file for file in files if file.suffix.lower() in PICTURES and file.is_file())


def read_picture(path: Path) -> Pixels:
    """(height, width, 3) BGR. Raises ModelError."""
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, MemoryError, cv2.error) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if image is None:
        raise ModelError(f"{path}: {data.size} bytes that are no picture; remove it or copy it again")
    return np.asarray(image, np.uint8)


def to_png(pixels: Pixels) -> bytes:
    """Without loss: decoding it gives *pixels* again."""
    ok, data = cv2.imencode(".png", pixels)
    assert ok, "OpenCV encodes any (height, width, 3) uint8 as PNG"
    return data.tobytes()


def network_input(pixels: Pixels, input_hw: tuple[int, int]) -> NetworkInput:
    """Letterboxed by the same code as on a station's CPU."""
    letterbox = fit((pixels.shape[0], pixels.shape[1]), input_hw)
    canvas = np.empty((*input_hw, 3), np.float32)
    CpuLetterbox(canvas).write(pixels, letterbox)
    return NetworkInput(np.ascontiguousarray(canvas.transpose(2, 0, 1)[None]), letterbox)


def noise_pictures(input_hw: tuple[int, int], count: int = 4) -> list[Pixels]:
    """Invented pictures, from fine to coarse noise, the same each time; every other one is not of the input's shape,
    so that the letterbox takes part."""
    random = np.random.default_rng(20260117)
    height, width = input_hw
    pictures = []
    for index in range(count):
        frame_h = height if index % 2 == 0 else max(height * 3 // 4, 1)
        grain = 4**index
        small = random.integers(0, 256, (-(-frame_h // grain), -(-width // grain), 3), np.uint8)
        pictures.append(np.asarray(cv2.resize(small, (width, frame_h), interpolation=cv2.INTER_CUBIC), np.uint8))
    return pictures


def probes(input_hw: tuple[int, int]) -> list[Floats]:
    """Inputs (1, 3, height, width) in 0..1 that differ as much as inputs can: a branch on what is seen takes another
    way on one of them."""
    height, width = input_hw
    random = np.random.default_rng(3)
    ramp = np.linspace(0, 1, width, dtype=np.float32)
    shapes: list[Floats] = [
        random.random((1, 3, height, width), np.float32),
        np.zeros((1, 3, height, width), np.float32),
        np.ones((1, 3, height, width), np.float32),
        np.broadcast_to(ramp, (1, 3, height, width)).copy(),
    ]
    red = np.zeros((1, 3, height, width), np.float32)
    red[:, 0, : height // 2] = 1
    return [*shapes, red]
