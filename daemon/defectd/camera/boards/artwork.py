"""Draws a layout as the masks that a board house would plot: copper, openings, holes, print.

Copper is drawn FINE times finer than the image, so that a defect can be cut into it with a smooth edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from defectd.camera.boards.layout import CLEARANCE_PX, VIA_RADIUS_PX, Layout, Point

FINE = 4
Mask = npt.NDArray[np.uint8]

_SHIFT = 4  # cv2 draws with 1/16 pixel positions
_MOUNT_RADIUS_PX = 15.0
_ISLAND_MIN_PX = 1200


@dataclass(frozen=True)
class Artwork:
    """Masks over the canvas, 0..255; `copper_fine` is FINE times larger per side and strictly 0 or 255."""

    copper_fine: Mask
    board: Mask
    opening: Mask  # where the solder mask is absent
    hole: Mask
    barrel: Mask  # the plated rim inside a hole
    via: Mask  # dimples of vias that the solder mask covers
    ink: Mask
    nets: npt.NDArray[np.int32]  # (H, W) number of the connected copper, 0 on laminate
    blocked: Mask  # not 0 where a defect would be hidden or would not be one


class _Pen:
    """Draws on one mask in canvas pixels at a chosen fineness."""

    def __init__(self, layout: Layout, fine: int = FINE) -> None:
        self.fine = fine
        self.mask: Mask = np.zeros((layout.height_px * fine, layout.width_px * fine), np.uint8)

    def _fixed(self, value: float) -> int:
        return round((value * self.fine - 0.5) * (1 << _SHIFT))

    def disc(self, at: Point, radius: float, value: int = 255) -> None:
        centre = (self._fixed(at[0]), self._fixed(at[1]))
        cv2.circle(self.mask, centre, round(radius * self.fine * (1 << _SHIFT)), value, -1, cv2.LINE_8, _SHIFT)

    def line(self, points: Sequence[Point], width: float, value: int = 255) -> None:
        fixed = np.array([[self._fixed(x), self._fixed(y)] for x, y in points], np.int32)
        thickness = max(1, round(width * self.fine))
        cv2.polylines(self.mask, [fixed], False, value, thickness, cv2.LINE_8, _SHIFT)

    def polygon(self, points: Sequence[Point], value: int = 255) -> None:
        fixed = np.array([[self._fixed(x), self._fixed(y)] for x, y in points], np.int32)
        cv2.fillPoly(self.mask, [fixed], value, cv2.LINE_8, _SHIFT)

    def slab(self, at: Point, width: float, height: float, corner: float) -> None:
        """A rectangle with round corners."""
        half_w, half_h = width / 2 - corner, height / 2 - corner
        inner = [
            (at[0] - half_w, at[1] - half_h),
            (at[0] + half_w, at[1] - half_h),
            (at[0] + half_w, at[1] + half_h),
            (at[0] - half_w, at[1] + half_h),
        ]
        self.polygon(inner)
        self.line(inner + inner[:1], 2 * corner)
        for point in inner:
            self.disc(point, corner)

    def coarse(self) -> Mask:
        size = (self.mask.shape[1] // self.fine, self.mask.shape[0] // self.fine)
        return np.asarray(cv2.resize(self.mask, size, interpolation=cv2.INTER_AREA), np.uint8)


def draw(layout: Layout, rng: np.random.Generator) -> Artwork:
    """All masks of a layout; rng gives the etch its roughness."""
    signals = _signals(layout)
    planes = _planes(layout, signals)
    copper = _etch(np.maximum(signals, planes), rng)
    opening, hole, barrel, via = _openings(layout), _holes(layout, 0.0), _holes(layout, 1.6), _vias(layout)
    copper[cv2.resize(hole, copper.shape[::-1], interpolation=cv2.INTER_LINEAR) > 127] = 0
    board = _board(layout)
    ink = _ink(layout)
    ink[cv2.dilate(np.maximum(opening, hole), _disc(5)) > 0] = 0
    coarse = cv2.resize(copper, (layout.width_px, layout.height_px), interpolation=cv2.INTER_AREA)
    _, nets = cv2.connectedComponents((coarse > 96).astype(np.uint8), connectivity=8)
    hidden = np.maximum(np.maximum(opening, hole), np.maximum(ink, via))
    blocked = np.maximum(cv2.dilate(hidden, _disc(5)), 255 - cv2.erode(board, _disc(21)))
    return Artwork(
        copper,
        board,
        opening,
        hole,
        barrel,
        via,
        ink,
        np.asarray(nets, np.int32),
        np.asarray(blocked, np.uint8),
    )


def _disc(size: int) -> Mask:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def _signals(layout: Layout) -> Mask:
    """Traces, pads, vias, fiducials and the rings of the mounting holes."""
    pen = _Pen(layout)
    for trace in layout.traces:
        pen.line(trace.points, trace.width)
        for point in trace.points:
            pen.disc(point, trace.width / 2)
    for pad in layout.pads:
        if pad.is_round:
            pen.disc((pad.x, pad.y), pad.width / 2)
        else:
            pen.slab((pad.x, pad.y), pad.width, pad.height, 2.0)
    for via in layout.vias:
        pen.disc(via, VIA_RADIUS_PX)
    for point in layout.fiducials:
        pen.disc(point, 6.5)
    for point in layout.mounting_holes:
        pen.disc(point, _MOUNT_RADIUS_PX)
    return pen.mask


def _planes(layout: Layout, signals: Mask) -> Mask:
    """The ground plane, clear of every signal, without slivers and without small islands."""
    pen = _Pen(layout)
    for plane in layout.planes:
        pen.polygon(plane)
    for point in layout.fiducials + layout.mounting_holes:
        pen.disc(point, _MOUNT_RADIUS_PX + CLEARANCE_PX, 0)
    # Distances at half the fineness are as good and four times cheaper.
    half = cv2.resize(signals, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_NEAREST)
    distance = cv2.distanceTransform((half == 0).astype(np.uint8), cv2.DIST_L2, 5)
    clear = (distance > CLEARANCE_PX * FINE / 2).astype(np.uint8)
    clear &= (cv2.resize(pen.mask, half.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0).astype(np.uint8)
    clear = np.asarray(cv2.morphologyEx(clear, cv2.MORPH_OPEN, _disc(5 * FINE // 2 * 2 + 1)), np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(clear, connectivity=4)
    keep = np.zeros(count, np.uint8)
    keep[1:][stats[1:, cv2.CC_STAT_AREA] > _ISLAND_MIN_PX * FINE * FINE // 4] = 255
    return np.asarray(cv2.resize(keep[labels], signals.shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def _etch(copper: Mask, rng: np.random.Generator) -> Mask:
    """Round the corners a little and roughen the edges, as etching does."""
    height, width = copper.shape
    grain = rng.standard_normal((height // 8 + 1, width // 8 + 1)).astype(np.float32) * 26 + 127
    rough = cv2.resize(np.clip(grain, 40, 215).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(copper, (0, 0), 0.7 * FINE)
    return np.where(soft > rough, 255, 0).astype(np.uint8)


def _openings(layout: Layout) -> Mask:
    pen = _Pen(layout)
    for pad in layout.pads:
        if pad.is_round:
            pen.disc((pad.x, pad.y), pad.width / 2 + 1.5)
        else:
            pen.slab((pad.x, pad.y), pad.width + 3, pad.height + 3, 2.5)
    for point in layout.fiducials:
        pen.disc(point, 12.0)
    for point in layout.mounting_holes:
        pen.disc(point, _MOUNT_RADIUS_PX + 1)
    return pen.coarse()


def _holes(layout: Layout, rim: float) -> Mask:
    pen = _Pen(layout)
    for pad in layout.pads:
        if pad.hole_radius > 0:
            pen.disc((pad.x, pad.y), pad.hole_radius + rim)
    for point in layout.mounting_holes:
        pen.disc(point, 8.5 + rim)
    return pen.coarse()


def _vias(layout: Layout) -> Mask:
    pen = _Pen(layout)
    for via in layout.vias:
        pen.disc(via, 2.6)
    return pen.coarse()


def _board(layout: Layout) -> Mask:
    pen = _Pen(layout, 2)
    x0, y0, x1, y1 = layout.edge
    pen.slab(((x0 + x1) / 2, (y0 + y1) / 2), x1 - x0, y1 - y0, 14.0)
    return pen.coarse()


def _ink(layout: Layout) -> Mask:
    pen = _Pen(layout)
    for mark in layout.marks:
        if mark.text:
            _write(pen, mark.text, mark.points[0], mark.text_height)
        elif mark.radius:
            pen.disc(mark.points[0], mark.radius)
        else:
            pen.line(mark.points, 1.6)
    return pen.coarse()


def _write(pen: _Pen, text: str, at: Point, height: float) -> None:
    origin: tuple[int, int] = (int(at[0] * FINE), int(at[1] * FINE))
    scale = height * FINE / 21.0  # HERSHEY_SIMPLEX capitals are 21 pixels high at scale 1
    cv2.putText(pen.mask, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, int(1.5 * FINE), cv2.LINE_8)
