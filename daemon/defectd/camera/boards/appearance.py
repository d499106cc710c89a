"""How a board looks to the camera: masks to colour, and the light, tilt, blur and noise of one exposure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import cv2
import numpy as np
import numpy.typing as npt

from defectd.camera.boards.artwork import Artwork, Mask
from defectd.camera.boards.layout import MARGIN_PX

Image = npt.NDArray[np.uint8]  # (H, W, 3) BGR
Floats = npt.NDArray[np.float32]
Window = Tuple[int, int, int, int]  # x0, y0, x1, y1 in canvas pixels

# BGR of: laminate under the mask, copper under the mask. Green is by far the most common solder mask.
_GREENS = (((40, 72, 26), (70, 146, 78)), ((46, 78, 22), (82, 156, 70)), ((34, 66, 32), (62, 138, 92)))
_OTHERS = (((92, 52, 22), (158, 112, 62)), ((34, 30, 96), (66, 66, 182)))
_FINISHES = ((118, 196, 226), (112, 186, 214), (190, 200, 204))  # gold, gold, tin
_RESIN = (84, 128, 132)
_INK = (216, 226, 224)
_CONVEYOR = (34, 33, 31)
REACH_PX = 3  # filters in `paint` look this far
_SLACK_PX = 96  # light and noise are this much larger than the image, and cut at a random place


@dataclass(frozen=True)
class Exposure:
    """One unit's pose and light; drawn before any defect, so a defect never changes it."""

    matrix: npt.NDArray[np.float64]  # (2, 3), canvas to image
    gain: float
    blur_sigma_px: float
    light_at: tuple[int, int]
    noise_at: tuple[int, int]


class Finish:
    """The materials of one run: colours, weave and stains, fixed by the seed."""

    def __init__(self, artwork: Artwork, rng: np.random.Generator, green_only: bool = False) -> None:
        self._artwork = artwork
        common = green_only or rng.random() < 0.8
        palette = _GREENS if common else _OTHERS
        laminate, copper = palette[int(rng.integers(0, len(palette)))]
        self._laminate = _bgr(laminate, rng)
        self._copper = _bgr(copper, rng)
        metal = np.array(_FINISHES[int(rng.integers(0, len(_FINISHES)))], np.float32)
        self._metal = np.asarray(metal * np.float32(0.94 + 0.12 * rng.random(3).mean()), np.float32)  # no tint
        height, width = artwork.board.shape
        self._weave = _weave(height, width) + _cloud(height, width, 6, 1.2, rng)
        self._stain = _cloud(height, width, 24, 3.0, rng) + _cloud(height, width, 3, 2.0, rng)
        belt = _cloud(height, width, 2, 3.0, rng)
        self._belt = np.asarray(belt + 8 * np.sin(np.arange(width, dtype=np.float32) / 9.0)[None, :], np.float32)

    def whole(self, copper_fine: Mask) -> Image:
        height, width = self._artwork.board.shape
        return self.paint(copper_fine, (0, 0, width, height))

    def paint(self, copper_fine: Mask, window: Window) -> Image:
        """Colour of a window of the canvas; copper_fine covers that window only, FINE times finer.

        A change of copper shows up to REACH_PX away, and its outer REACH_PX are uncertain: crop it.
        """
        x0, y0, x1, y1 = window
        cut = (slice(y0, y1), slice(x0, x1))
        art = self._artwork
        copper = _unit(cv2.resize(copper_fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA))
        smooth = cv2.GaussianBlur(copper, (5, 5), 1.0)
        # The mask lies over the copper's edge as a slope: bright where it faces the lamp, dark behind.
        relief = cv2.filter2D(smooth, -1, _SLOPE)
        image = _mix(self._laminate, self._copper, smooth * 0.25 + copper * 0.75)
        image += (relief * 26 + self._weave[cut] * (1 - copper) + self._stain[cut] * (0.4 + copper))[:, :, None]
        dimple = _unit(art.via[cut])
        image *= (1 - 0.55 * dimple)[:, :, None]

        opening = _unit(art.opening[cut])
        sheen = 1.0 + relief * 0.16 + self._stain[cut] * 0.012
        bare = _mix(np.array(_RESIN, np.float32), self._metal, copper) * sheen[:, :, None]
        image = _blend(image, bare, opening)
        image = _blend(image, self._metal * 0.55, _unit(art.barrel[cut]))
        image = _blend(image, np.array(_CONVEYOR, np.float32) * 0.7, _unit(art.hole[cut]))
        ink = np.array(_INK, np.float32) * (1 + relief * 0.06 + self._weave[cut] * 0.006)[:, :, None]
        image = _blend(image, ink, _unit(art.ink[cut]) * 0.93)
        board = _unit(art.board[cut])
        belt = np.array(_CONVEYOR, np.float32) + self._belt[cut][:, :, None]
        rim = cv2.GaussianBlur(board, (5, 5), 1.2)
        image *= (0.82 + 0.18 * np.clip(rim * 2 - 1, 0, 1))[:, :, None]
        return np.clip(_blend(belt, image, board), 0, 255).astype(np.uint8)


class Lamp:
    """The station's light and sensor noise, precomputed larger than the image and cut at random places."""

    def __init__(self, rng: np.random.Generator, width_px: int, height_px: int) -> None:
        self._size = (width_px, height_px)
        wide, high = width_px + _SLACK_PX, height_px + _SLACK_PX
        y, x = np.mgrid[0:high, 0:wide].astype(np.float32)
        x, y = x / wide - 0.5, y / high - 0.5
        angle = 6.2832 * float(rng.random())
        slope = 0.10 + 0.08 * float(rng.random())
        light = 1.02 + slope * (x * float(np.cos(angle)) + y * float(np.sin(angle))) - 0.34 * (x * x + y * y)
        tint = np.array([0.97, 1.0, 1.0], np.float32) + 0.02 * rng.random(3).astype(np.float32)
        self._light = np.clip(light[:, :, None] * tint * 128, 0, 255).astype(np.uint8)
        grain = rng.standard_normal((high, wide, 3)).astype(np.float32)
        shared = rng.standard_normal((high, wide, 1)).astype(np.float32)
        self._noise = np.clip(grain * 1.6 + shared * 2.4, -40, 40).round().astype(np.int16)

    def draw_exposure(self, rng: np.random.Generator) -> Exposure:
        width, height = self._size
        chance = rng.random(8)
        degrees = 2.0 * chance[0] - 1.0
        shift = (chance[1:3] * 2 - 1) * 5.0
        turn = np.deg2rad(degrees)
        cos, sin = float(np.cos(turn)), float(np.sin(turn))
        centre = (width / 2 + MARGIN_PX, height / 2 + MARGIN_PX)
        matrix = np.array(
            [
                [cos, sin, width / 2 + shift[0] - cos * centre[0] - sin * centre[1]],
                [-sin, cos, height / 2 + shift[1] + sin * centre[0] - cos * centre[1]],
            ],
            np.float64,
        )
        places = (chance[4:8] * _SLACK_PX).astype(np.int64)
        return Exposure(
            matrix,
            0.93 + 0.14 * float(chance[3]),
            0.45 + 0.35 * float(rng.random()),
            (int(places[0]), int(places[1])),
            (int(places[2]), int(places[3])),
        )

    def expose(self, canvas: Image, exposure: Exposure) -> Image:
        """The camera's picture of a canvas: tilt, lens, light, noise."""
        width, height = self._size
        image = cv2.warpAffine(
            canvas, exposure.matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        image = cv2.GaussianBlur(image, (3, 3), exposure.blur_sigma_px)
        x, y = exposure.light_at
        image = cv2.multiply(image, self._light[y : y + height, x : x + width], scale=exposure.gain / 128)
        x, y = exposure.noise_at
        return np.asarray(cv2.add(image, self._noise[y : y + height, x : x + width], dtype=cv2.CV_8U), np.uint8)


_SLOPE = np.array([[1, 1, 0], [1, 0, -1], [0, -1, -1]], np.float32)


def _bgr(colour: tuple[int, int, int], rng: np.random.Generator) -> Floats:
    """A material's colour in this run: batches of mask differ in hue and depth."""
    batch = 0.94 + 0.12 * rng.random(3)
    return np.asarray(np.array(colour, np.float32) * batch.astype(np.float32), np.float32)


def _unit(mask: npt.NDArray[np.generic]) -> Floats:
    return np.asarray(np.asarray(mask, np.float32) * np.float32(1 / 255), np.float32)


def _mix(low: Floats, high: Floats, share: Floats) -> Floats:
    return np.asarray(low + (high - low) * share[:, :, None], np.float32)


def _blend(under: Floats, over: Floats, share: Floats) -> Floats:
    return np.asarray(under + (over - under) * share[:, :, None], np.float32)


def _weave(height: int, width: int) -> Floats:
    """The glass fabric of the laminate, which shines through the mask."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    warp, weft = np.sin(x * np.float32(6.2832 / 5.6)), np.sin(y * np.float32(6.2832 / 6.4))
    return np.asarray(2.2 * warp * weft + 1.2 * np.sign(warp * weft), np.float32)


def _cloud(height: int, width: int, grain_px: int, strength: float, rng: np.random.Generator) -> Floats:
    """Smooth random brightness with patches of about grain_px."""
    coarse = rng.standard_normal((height // grain_px + 2, width // grain_px + 2)).astype(np.float32) * strength
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
