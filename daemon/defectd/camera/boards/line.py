"""A simulated production line: the same board again and again, no two units alike, some defective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np
import numpy.typing as npt

from defectd.camera.boards.appearance import REACH_PX, Exposure, Finish, Image, Lamp, Window
from defectd.camera.boards.artwork import FINE, draw
from defectd.camera.boards.defects import BOX_GROWN_PX, CLASS_NAMES, Cut, apply_cut, find_sites, make_cut
from defectd.camera.boards.designer import Designer

SIDE_MIN_PX = 192
_LAYOUT, _EXPOSURE, _DEFECTS = range(3)  # separate random streams, so that one never shifts another
_TRIES_PER_DEFECT = 12

Area = Tuple[float, float, float, float]  # x0, y0, x1, y1 in canvas pixels


@dataclass(frozen=True)
class TrueDefect:
    class_id: int
    class_name: str
    xywh_px: tuple[float, float, float, float]  # top-left x, y, width, height in pixels of the image


@dataclass(frozen=True)
class Board:
    unit_number: int
    image: npt.NDArray[np.uint8]  # (H, W, 3) BGR
    defects: tuple[TrueDefect, ...]


class BoardLine:
    """All units of one run; `board` is a pure function of the seed and the unit number.

    Any process can make any unit again, alone and exactly. Raises ValueError for a picture smaller than
    SIDE_MIN_PX or a rate outside 0..1.
    """

    def __init__(self, seed: int, width_px: int = 640, height_px: int = 512, defect_rate: float = 0.45) -> None:
        if min(width_px, height_px) < SIDE_MIN_PX:
            raise ValueError(f"a board needs at least {SIDE_MIN_PX} x {SIDE_MIN_PX} pixels")
        if not 0.0 <= defect_rate <= 1.0:
            raise ValueError("defect_rate must be within 0..1")
        self._seed = seed & 0xFFFFFFFFFFFFFFFF  # SeedSequence takes no negative numbers
        self._size = (width_px, height_px)
        self._defect_rate = defect_rate
        rng = self._stream(_LAYOUT, 0)
        layout = Designer(rng, width_px, height_px).design()
        artwork = draw(layout, rng)
        self._sites = find_sites(layout, artwork, rng)
        self._finish = Finish(artwork, rng)
        self._lamp = Lamp(rng, width_px, height_px)
        self._copper_fine = artwork.copper_fine
        self._canvas = self._finish.whole(self._copper_fine)

    def board(self, unit_number: int) -> Board:
        """The unit's picture and its true defects; always the same for the same number."""
        rng = self._stream(_DEFECTS, unit_number)
        chance = rng.random(2)
        count = 1 + int(chance[1] * 3) if chance[0] < self._defect_rate else 0
        return self.with_defects(unit_number, count, rng)

    def with_defects(self, unit_number: int, count: int, rng: np.random.Generator | None = None) -> Board:
        """The unit with up to this many defects, fewer where no room is left: for training data."""
        rng = self._stream(_DEFECTS, unit_number) if rng is None else rng
        exposure = self._lamp.draw_exposure(self._stream(_EXPOSURE, unit_number))
        canvas = self._canvas.copy() if count else self._canvas
        windows: list[Window] = []
        defects: list[TrueDefect] = []
        kinds = [kind for kind, sites in self._sites.items() if sites]
        for _ in range(count * _TRIES_PER_DEFECT if kinds else 0):
            if len(defects) == count:
                break
            kind = kinds[int(rng.integers(0, len(kinds)))]
            sites = self._sites[kind]
            cut = make_cut(kind, sites[int(rng.integers(0, len(sites)))], rng)
            window = self._window(cut)
            if any(_overlap(window, other) for other in windows):
                continue
            area = self._cut_and_paint(cut, window, canvas)
            if area is not None:
                windows.append(window)
                defects.append(TrueDefect(kind, CLASS_NAMES[kind], self._seen_at(area, exposure)))
        return Board(unit_number, self._lamp.expose(canvas, exposure), tuple(defects))

    def _stream(self, purpose: int, unit_number: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, purpose, unit_number))))

    def _window(self, cut: Cut) -> Window:
        """What of the canvas a cut can touch and what paint needs around it, within the canvas."""
        around = 2 * REACH_PX + 1  # what the cut changes, then what the painter cannot see whole
        low = np.floor(cut.polygon.min(axis=0)).astype(int) - around
        high = np.ceil(cut.polygon.max(axis=0)).astype(int) + around
        height, width = self._canvas.shape[:2]
        return max(int(low[0]), 0), max(int(low[1]), 0), min(int(high[0]), width), min(int(high[1]), height)

    def _cut_and_paint(self, cut: Cut, window: Window, canvas: Image) -> Area | None:
        """Paint a cut into the canvas; returns the changed area in canvas pixels, None if nothing changed."""
        x0, y0, x1, y1 = window
        patch = self._copper_fine[y0 * FINE : y1 * FINE, x0 * FINE : x1 * FINE].copy()
        area = apply_cut(cut, patch, (x0, y0))
        if area is not None:
            r = REACH_PX
            canvas[y0 + r : y1 - r, x0 + r : x1 - r] = self._finish.paint(patch, window)[r:-r, r:-r]
        return area

    def _seen_at(self, area: Area, exposure: Exposure) -> tuple[float, float, float, float]:
        """The changed area, grown a little, as x, y, width, height in the camera's picture."""
        x0, y0, x1, y1 = area
        (xx, xy, dx), (yx, yy, dy) = exposure.matrix.tolist()
        corners = [(x - 0.5, y - 0.5) for x in (x0, x1) for y in (y0, y1)]  # cv2 counts from pixel centres
        columns = [xx * x + xy * y + dx + 0.5 for x, y in corners]
        rows = [yx * x + yy * y + dy + 0.5 for x, y in corners]
        left, top = max(min(columns) - BOX_GROWN_PX, 0.0), max(min(rows) - BOX_GROWN_PX, 0.0)
        right = min(max(columns) + BOX_GROWN_PX, float(self._size[0]))
        bottom = min(max(rows) + BOX_GROWN_PX, float(self._size[1]))
        # Rounded, so that the last bits of another processor's or numpy's sine do not show.
        return round(left, 3), round(top, 3), round(right - left, 3), round(bottom - top, 3)


def _overlap(one: Window, other: Window) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
