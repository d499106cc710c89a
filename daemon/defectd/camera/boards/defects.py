"""Where a defect can be on a board, and how it is cut into or added to the copper.

The six kinds are those of the DeepPCB data set, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from defectd.camera.boards.artwork import FINE, Artwork, Mask
from defectd.camera.boards.layout import Layout, Point

CLASS_NAMES: tuple[str, ...] = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
OPEN, SHORT, MOUSEBITE, SPUR, COPPER, PIN_HOLE = range(6)

BOX_GROWN_PX = 5.0  # people who label defects leave about this much around them
_STRIDE_PX = 5.0
_END_CLEARANCE_PX = 13.0
_LOOK_PX = 26
_SITES_MAX = 400
_BOX_FREE_PX = 9  # half side of the square around a site that no pad, hole, print or edge may touch

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Site:
    """A place for one kind of defect, in canvas pixels."""

    x: float
    y: float
    along: tuple[float, float]  # unit vector along the trace
    normal: tuple[float, float]  # unit vector away from the trace, towards the side the defect is on
    width: float  # of the trace; for islands and pin-holes: the radius that fits
    gap: float = 0.0  # laminate between this trace and its neighbour


@dataclass(frozen=True)
class Cut:
    """One defect in the copper: what changes, and where."""

    class_id: int
    polygon: Floats  # (N, 2) x, y in canvas pixels
    adds_copper: bool


def find_sites(layout: Layout, artwork: Artwork, rng: np.random.Generator) -> dict[int, list[Site]]:
    """Up to _SITES_MAX places per kind; a kind that the layout has no place for has an empty list."""
    # blocked[y, x], the integral image, counts blocked pixels up and left of (x, y).
    blocked = np.asarray(cv2.integral((artwork.blocked > 0).astype(np.uint8)), np.int32)
    sites: dict[int, list[Site]] = {kind: [] for kind in range(6)}
    for trace in layout.traces:
        for start, end in zip(trace.points, trace.points[1:]):
            _add_sites_on_segment((start, end, trace.width), artwork.nets, blocked, sites)
    copper = artwork.nets > 0
    inside = np.asarray(cv2.distanceTransform(copper.astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    outside = np.asarray(cv2.distanceTransform((~copper).astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    sites[PIN_HOLE] = _open_places(inside, 9.0, blocked, rng)
    sites[COPPER] = _open_places(outside, 11.5, blocked, rng)
    return {kind: _thin(found, rng) for kind, found in sites.items()}


def make_cut(class_id: int, site: Site, rng: np.random.Generator) -> Cut:
    """The outline of a defect of one kind at a site, in a size and shape of its own."""
    chance = rng.random(4)
    along, normal = np.array(site.along), np.array(site.normal)
    centre = np.array([site.x, site.y])
    half = site.width / 2
    if class_id == OPEN:
        length = 7.0 + 5.0 * chance[0]
        polygon = _band((centre - normal * (half + 2), centre + normal * (half + 2)), along, (length, length), rng)
    elif class_id == SHORT:
        width = 6.5 + 5.0 * chance[0]
        polygon = _band(
            (centre + normal * (half - 2), centre + normal * (half + site.gap + 2)),
            along,
            (width, width * (0.8 + 0.5 * chance[1])),
            rng,
        )
    elif class_id == MOUSEBITE:
        depth = min(site.width * (0.52 + 0.14 * chance[0]), 7.0)
        polygon = _blob(centre + normal * half, along * (4.5 + 2.0 * chance[1]), normal * depth, rng)
    elif class_id == SPUR:
        reach = 7.5 + 3.0 * chance[0]
        polygon = _blob(centre + normal * half, along * (3.6 + 1.8 * chance[1]), normal * reach, rng)
        sunk = np.maximum(-(polygon - centre) @ normal, 0.0)  # below the trace's middle: would come out behind it
        polygon = polygon + sunk[:, None] * normal
    else:
        room = min(site.width, 8.0 if class_id == COPPER else 5.6)
        least = 5.0 if class_id == COPPER else 3.8
        radius = least + (room - least) * chance[0]
        slim = 0.75 + 0.25 * chance[1]
        turn = 6.2832 * chance[2]
        axis = np.array([np.cos(turn), np.sin(turn)])
        polygon = _blob(centre, axis * radius, np.array([-axis[1], axis[0]]) * radius * slim, rng)
    return Cut(class_id, polygon, class_id in (SHORT, SPUR, COPPER))


def apply_cut(cut: Cut, copper_fine: Mask, origin: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Change the copper in place; copper_fine is a part of the board with its top left at origin (canvas px).

    Returns the changed area's x0, y0, x1, y1 in canvas pixels, None if nothing changed.
    """
    shape = np.zeros_like(copper_fine)
    points = np.round(((cut.polygon - np.array(origin)) * FINE - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(shape, [points], 255, cv2.LINE_8, 4)
    changed = (shape > 0) & (copper_fine == 0 if cut.adds_copper else copper_fine > 0)
    if not changed.any():
        return None
    copper_fine[changed] = 255 if cut.adds_copper else 0
    columns, rows = np.flatnonzero(changed.any(axis=0)), np.flatnonzero(changed.any(axis=1))
    return (
        origin[0] + float(columns[0]) / FINE,
        origin[1] + float(rows[0]) / FINE,
        origin[0] + float(columns[-1] + 1) / FINE,
        origin[1] + float(rows[-1] + 1) / FINE,
    )


def _add_sites_on_segment(
    segment: tuple[Point, Point, float],
    nets: npt.NDArray[np.int32],
    blocked: npt.NDArray[np.int32],
    sites: dict[int, list[Site]],
) -> None:
    """Places along one straight piece of trace, given by its ends and its width."""
    start, end, width = segment
    ax, ay = end[0] - start[0], end[1] - start[1]
    length = float(np.hypot(ax, ay))
    if length < 2 * _END_CLEARANCE_PX:
        return
    along = (ax / length, ay / length)
    count = int((length - 2 * _END_CLEARANCE_PX) // _STRIDE_PX) + 1
    for i in range(count):
        at = _END_CLEARANCE_PX + i * _STRIDE_PX
        x, y = start[0] + along[0] * at, start[1] + along[1] * at
        if not _is_free(blocked, x, y, _BOX_FREE_PX):
            continue
        own = int(nets[int(y), int(x)])
        if own == 0:
            continue
        for sign in (1.0, -1.0):
            normal = (-along[1] * sign, along[0] * sign)
            gap, neighbour = _look(nets, x, y, normal, width / 2 + 1)
            site = Site(x, y, along, normal, width, gap + 1)
            if sign > 0 and gap >= 3:
                sites[OPEN].append(site)
            if gap >= 3:
                sites[MOUSEBITE].append(site)
            middle = width / 2 + gap / 2
            if (
                4 <= gap <= 15
                and neighbour not in (0, own)
                and _is_free(blocked, x + normal[0] * middle, y + normal[1] * middle, _BOX_FREE_PX)
            ):
                sites[SHORT].append(site)
            tip = (x + normal[0] * (width / 2 + 9), y + normal[1] * (width / 2 + 9))
            if gap >= 15 and _is_free(blocked, tip[0], tip[1], _BOX_FREE_PX) and _only(nets, tip, own, 8):
                sites[SPUR].append(site)


def _look(
    nets: npt.NDArray[np.int32], x: float, y: float, normal: tuple[float, float], start_px: float
) -> tuple[float, int]:
    """Pixels of laminate from a trace's edge along the normal, and the net number met there (0: none)."""
    height, width = nets.shape
    for step in range(_LOOK_PX):
        column = int(x + normal[0] * (start_px + step))
        row = int(y + normal[1] * (start_px + step))
        if not (0 <= column < width and 0 <= row < height):
            return float(_LOOK_PX), 0
        if nets[row, column]:
            return float(step), int(nets[row, column])
    return float(_LOOK_PX), 0


def _only(nets: npt.NDArray[np.int32], at: tuple[float, float], own: int, reach: int) -> bool:
    """Whether no copper but the site's own lies in a square around a point."""
    x, y = int(at[0]), int(at[1])
    part = nets[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    return bool(((part == 0) | (part == own)).all())


def _is_free(blocked: npt.NDArray[np.int32], x: float, y: float, reach: int) -> bool:
    x0, y0, x1, y1 = int(x) - reach, int(y) - reach, int(x) + reach + 1, int(y) + reach + 1
    if x0 < 0 or y0 < 0 or y1 >= blocked.shape[0] or x1 >= blocked.shape[1]:
        return False
    return int(blocked[y1, x1]) - int(blocked[y0, x1]) - int(blocked[y1, x0]) + int(blocked[y0, x0]) == 0


def _open_places(
    distance: npt.NDArray[np.float32],
    least_px: float,
    blocked: npt.NDArray[np.int32],
    rng: np.random.Generator,
) -> list[Site]:
    """Points of a wide enough area, with the radius that fits there."""
    rows, columns = np.nonzero(distance >= least_px)
    places = []
    for pick in rng.integers(0, max(len(rows), 1), 3 * _SITES_MAX if len(rows) else 0).tolist():
        x, y = float(columns[pick]) + 0.5, float(rows[pick]) + 0.5
        if _is_free(blocked, x, y, _BOX_FREE_PX):
            room = float(distance[rows[pick], columns[pick]]) - 4.5
            places.append(Site(x, y, (1.0, 0.0), (0.0, 1.0), room))
    return places


def _thin(found: list[Site], rng: np.random.Generator) -> list[Site]:
    if len(found) <= _SITES_MAX:
        return found
    picks = np.argsort(rng.random(len(found)), kind="stable")[:_SITES_MAX]
    return [found[int(i)] for i in picks]


def _band(ends: tuple[Floats, Floats], along: Floats, widths: tuple[float, float], rng: np.random.Generator) -> Floats:
    """A ragged strip from one end to the other, this wide along the trace at each end."""
    (start, end), (width, end_width) = ends, widths
    steps = np.linspace(0.0, 1.0, 7)[:, None]
    spine = start + (end - start) * steps
    half = 0.5 * (width + (end_width - width) * steps)
    left = spine - along * (half + (rng.random((7, 1)) - 0.5) * 2.2)
    right = spine + along * (half + (rng.random((7, 1)) - 0.5) * 2.2)
    return np.concatenate([left, right[::-1]])


def _blob(centre: Floats, axis_a: Floats, axis_b: Floats, rng: np.random.Generator) -> Floats:
    """A lumpy ellipse with the given half axes."""
    angle = np.linspace(0.0, 6.2832, 28, endpoint=False)
    radius = 1.0 + sum(0.16 / k * np.cos(k * angle + 6.2832 * rng.random()) for k in (2, 3, 5))
    return np.asarray(centre + np.outer(radius * np.cos(angle), axis_a) + np.outer(radius * np.sin(angle), axis_b))
