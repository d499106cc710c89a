"""What is on the board: pads, traces, vias, print and planes.

All lengths are pixels of the canvas, which is the camera image plus MARGIN_PX on each side, so that shift and
rotation never run out of picture. x is a column, y is a row; the origin is the canvas' top left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

MARGIN_PX = 24
EDGE_INSET_PX = 18  # the camera sees this much conveyor around the board
PITCH_PX = 18
TRACE_PX = 8
POWER_PX = 13
CLEARANCE_PX = 7
VIA_RADIUS_PX = 6.0

Point = Tuple[float, float]
Box = Tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Pad:
    x: float
    y: float
    width: float
    height: float
    is_round: bool
    hole_radius: float  # 0 for a surface pad
    net: int


@dataclass(frozen=True)
class Trace:
    points: tuple[Point, ...]
    width: float


@dataclass(frozen=True)
class Mark:
    """White print: a line, a circle or a text, by which fields are set."""

    points: tuple[Point, ...]
    text: str = ""
    radius: float = 0.0
    text_height: float = 0.0


@dataclass(frozen=True)
class Layout:
    width_px: int  # of the canvas
    height_px: int
    edge: Box
    pads: tuple[Pad, ...]
    traces: tuple[Trace, ...]
    vias: tuple[Point, ...]
    marks: tuple[Mark, ...]
    planes: tuple[tuple[Point, ...], ...]
    fiducials: tuple[Point, ...]
    mounting_holes: tuple[Point, ...]
