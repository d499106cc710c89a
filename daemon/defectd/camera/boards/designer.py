"""Lays a board out from a seed: places parts on a grid, routes their nets, pours a plane, adds print."""

from __future__ import annotations

import numpy as np

from defectd.camera.boards.layout import (
    EDGE_INSET_PX,
    MARGIN_PX,
    PITCH_PX,
    POWER_PX,
    TRACE_PX,
    Box,
    Layout,
    Mark,
    Pad,
    Point,
    Trace,
)
from defectd.camera.boards.routing import WALL, Cell, Grid, corners, route


class Designer:
    """Places parts on a grid and routes their nets; one use per layout."""

    def __init__(self, rng: np.random.Generator, width_px: int, height_px: int) -> None:
        self._rng = rng
        self._canvas = (width_px + 2 * MARGIN_PX, height_px + 2 * MARGIN_PX)
        inset = MARGIN_PX + EDGE_INSET_PX
        self._edge: Box = (inset, inset, self._canvas[0] - inset, self._canvas[1] - inset)
        # Half a pitch and a bit from the edge: production rules keep copper away from the router's cut.
        self._columns = int((self._edge[2] - self._edge[0] - 24) // PITCH_PX)
        self._rows = int((self._edge[3] - self._edge[1] - 24) // PITCH_PX)
        self._grid = Grid(self._columns, self._rows)
        self._taken = np.zeros((self._rows, self._columns), bool)
        self._pads: list[Pad] = []
        self._pad_cells: list[Cell] = []
        self._traces: list[Trace] = []
        self._vias: list[Point] = []
        self._marks: list[Mark] = []
        self._counts = {"U": 0, "R": 0, "C": 0, "J": 0}
        self._next_net = 1

    def design(self) -> Layout:
        holes, fiducials = self._corners()
        for _ in range(1 + self._pick(2)):
            self._place_quad(4 + self._pick(3))
        for _ in range(2 + self._pick(2)):
            self._place_dual(3 + self._pick(4))
        for _ in range(2 + self._pick(2)):
            self._place_header(4 + self._pick(4))
        for _ in range(9 + self._pick(5)):
            self._place_passive()
        self._connect_pads()
        self._fill_with_nets(0.60)
        self._title()
        return Layout(
            self._canvas[0],
            self._canvas[1],
            self._edge,
            tuple(self._pads),
            tuple(self._traces),
            tuple(self._vias),
            tuple(self._marks),
            self._planes(),
            fiducials,
            holes,
        )

    # -- parts ---------------------------------------------------------------------------------------------

    def _corners(self) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
        """Mounting holes in two opposite corners, fiducials in the other two."""
        columns, rows = self._columns, self._rows
        spots = [(1, 1), (columns - 2, rows - 2), (columns - 2, 1), (1, rows - 2)]
        for x, y in spots:
            self._block(x - 1, y - 1, x + 1, y + 1)
        turn = self._pick(2) * 2
        points = [self._at(spot) for spot in spots]
        return tuple(points[turn : turn + 2]), tuple(points[2 - turn : 4 - turn])

    def _place_quad(self, pins: int) -> None:
        size = pins + 5
        spot = self._find_room(size, size)
        if spot is None:
            return
        x, y = spot
        for i in range(pins):
            self._add_pad((x + 3 + i, y + 1), 10, 24, along_y=True)
            self._add_pad((x + 3 + i, y + size - 2), 10, 24, along_y=True)
            self._add_pad((x + 1, y + 3 + i), 24, 10, along_y=False)
            self._add_pad((x + size - 2, y + 3 + i), 24, 10, along_y=False)
        x0, y0 = self._at((x + 2, y + 2))
        x1, y1 = self._at((x + size - 3, y + size - 3))
        self._outline((x0 + 2, y0 + 2, x1 - 2, y1 - 2))
        self._marks.append(Mark(((x0 + 12, y0 + 12),), radius=3.0))
        self._label("U", (x0 + x1) / 2 - 9, (y0 + y1) / 2 + 5)

    def _place_dual(self, pins: int) -> None:
        lying = self._pick(2) == 1
        across, along = 7, pins + 2
        spot = self._find_room(along if lying else across, across if lying else along)
        if spot is None:
            return
        x, y = spot
        for i in range(pins):
            if lying:
                self._add_pad((x + 1 + i, y + 1), 10, 24, along_y=True)
                self._add_pad((x + 1 + i, y + across - 2), 10, 24, along_y=True)
            else:
                self._add_pad((x + 1, y + 1 + i), 24, 10, along_y=False)
                self._add_pad((x + across - 2, y + 1 + i), 24, 10, along_y=False)
        x0, y0 = self._at((x + 1, y + 1))
        x1, y1 = self._at((x + (along if lying else across) - 2, y + (across if lying else along) - 2))
        box = (x0 - 6, y0 + 21, x1 + 6, y1 - 21) if lying else (x0 + 21, y0 - 6, x1 - 21, y1 + 6)
        self._outline(box)
        self._marks.append(Mark(((box[0] + 7, box[1] + 7),), radius=2.5))
        self._label("U", (x0 + x1) / 2 - 9, (y0 + y1) / 2 + 5)

    def _place_header(self, pins: int) -> None:
        lying = self._pick(2) == 1
        length = 2 * pins + 1
        spot = self._find_room(length if lying else 3, 3 if lying else length)
        if spot is None:
            return
        x, y = spot
        for i in range(pins):
            cell = (x + 1 + 2 * i, y + 1) if lying else (x + 1, y + 1 + 2 * i)
            self._add_pad(cell, 20, 20, is_round=i > 0, hole_radius=5.0)
        x0, y0 = self._at((x + 1, y + 1))
        x1, y1 = self._at((x + 2 * pins - 1, y + 1) if lying else (x + 1, y + 2 * pins - 1))
        self._outline((x0 - 15, y0 - 15, x1 + 15, y1 + 15))
        self._label("J", x0 - 13, y0 - 20)

    def _place_passive(self) -> None:
        lying = self._pick(2) == 1
        spot = self._find_room(4 if lying else 3, 3 if lying else 4)
        if spot is None:
            return
        x, y = spot
        first, second = (x, y + 1), ((x + 2, y + 1) if lying else (x, y + 3))
        if not lying:
            first, second = (x + 1, y), (x + 1, y + 2)
        self._add_pad(first, 18, 20)
        self._add_pad(second, 18, 20)
        x0, y0 = self._at(first)
        x1, y1 = self._at(second)
        # Two bars between the pads, as the land-pattern standard draws chip parts.
        if lying:
            for side in (-10, 10):
                self._marks.append(Mark(((x0 + 13, y0 + side), (x1 - 13, y1 + side))))
        else:
            for side in (-10, 10):
                self._marks.append(Mark(((x0 + side, y0 + 13), (x1 + side, y1 - 13))))
        self._label("R" if self._pick(2) else "C", x0 - 10, y0 - 15)

    # -- nets ----------------------------------------------------------------------------------------------

    def _connect_pads(self) -> None:
        """Join each pad to a near pad of another part, or lead it to a via where that fails."""
        done = [False] * len(self._pads)
        for first in range(len(self._pads)):
            if done[first]:
                continue
            x, y = self._pad_cells[first]
            near = sorted(
                (abs(x - cx) + abs(y - cy) + 4 * self._rng.random(), other)
                for other, (cx, cy) in enumerate(self._pad_cells)
                if not done[other] and abs(x - cx) + abs(y - cy) > 6
            )
            for _, second in near[:2]:
                nets = (self._pads[first].net, self._pads[second].net)
                path = route(self._grid, self._pad_cells[first], self._pad_cells[second], nets)
                if path is not None and len(path) > 2:
                    small = min(
                        self._pads[first].width,
                        self._pads[first].height,
                        self._pads[second].width,
                        self._pads[second].height,
                    )
                    self._lay(path, nets[0], POWER_PX if small > 14 and self._pick(2) else TRACE_PX)
                    done[first] = done[second] = True
                    break
            else:
                done[first] = self._lead_to_via(first)

    def _lead_to_via(self, pad: int) -> bool:
        x, y = self._pad_cells[pad]
        for _ in range(6):
            goal = (x + self._pick(11) - 5, y + self._pick(11) - 5)
            if self._grid.is_free(goal) and self._has_room_for_via(goal):
                path = route(self._grid, (x, y), goal, (self._pads[pad].net, self._pads[pad].net))
                if path is not None and 2 < len(path) < 16:
                    self._lay(path, self._pads[pad].net, TRACE_PX)
                    self._vias.append(self._at(goal))
                    return True
        return False

    def _fill_with_nets(self, share: float) -> None:
        """Traces from via to via, until about this share of the grid is in use: the board's other nets."""
        for _ in range(70):
            if float((self._grid.owner != 0).mean()) > share:
                return
            start, goal = self._any_cell(), self._any_cell()
            distance = abs(start[0] - goal[0]) + abs(start[1] - goal[1])
            if not (5 < distance < 26 and self._has_room_for_via(start) and self._has_room_for_via(goal)):
                continue
            net = self._new_net()
            path = route(self._grid, start, goal, (net, net))
            if path is not None and len(path) < 1.6 * distance + 3:
                self._lay(path, net, POWER_PX if self._pick(4) == 0 else TRACE_PX)
                self._vias.extend((self._at(start), self._at(goal)))

    def _lay(self, path: list[Cell], net: int, width: int) -> None:
        for cell in path:
            self._grid.claim(cell, net)
        self._traces.append(Trace(tuple(self._at(cell) for cell in corners(path)), float(width)))

    # -- planes and print ----------------------------------------------------------------------------------

    def _planes(self) -> tuple[tuple[Point, ...], ...]:
        """One ground plane with a 45 degree corner on a side of the board, about two fifths of it."""
        x0, y0, x1, y1 = (self._edge[0] + 10, self._edge[1] + 10, self._edge[2] - 10, self._edge[3] - 10)
        part = 0.38 + 0.12 * self._rng.random()
        slant = 60 + 60 * self._rng.random()
        side = self._pick(4)
        if side < 2:
            cut = x0 + (x1 - x0) * part
            points = [
                (x0, y0),
                (cut + slant, y0),
                (cut + slant, y0 + (y1 - y0) * 0.3),
                (cut, y0 + (y1 - y0) * 0.3 + slant),
                (cut, y1),
                (x0, y1),
            ]
            if side == 1:
                points = [(x0 + x1 - x, y) for x, y in points]
        else:
            cut = y0 + (y1 - y0) * part
            points = [
                (x0, y0),
                (x1, y0),
                (x1, cut),
                (x0 + (x1 - x0) * 0.6 + slant, cut),
                (x0 + (x1 - x0) * 0.6, cut + slant),
                (x0, cut + slant),
            ]
            if side == 3:
                points = [(x, y0 + y1 - y) for x, y in points]
        return (tuple(points),)

    def _outline(self, box: Box) -> None:
        x0, y0, x1, y1 = box
        self._marks.append(Mark(((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))))

    def _label(self, kind: str, x: float, y: float) -> None:
        self._counts[kind] += 1
        at = (min(x, self._edge[2] - 28), max(y, self._edge[1] + 16))  # print stops before the router's cut
        self._marks.append(Mark((at,), text=f"{kind}{self._counts[kind]}", text_height=10.0))

    def _title(self) -> None:
        x0, _, _, y1 = self._edge
        number = 1000 + self._pick(9000)
        revision = "ABCD"[self._pick(4)]
        text = f"DFX-{number} REV {revision}   {1 + self._pick(52):02d}/26"
        self._marks.append(Mark(((x0 + 78, y1 - 8),), text=text, text_height=9.0))

    # -- the grid ------------------------------------------------------------------------------------------

    def _pick(self, count: int) -> int:
        return int(self._rng.integers(0, count))

    def _at(self, cell: Cell) -> Point:
        return (
            self._edge[0] + 12 + (cell[0] + 0.5) * PITCH_PX,
            self._edge[1] + 12 + (cell[1] + 0.5) * PITCH_PX,
        )

    def _new_net(self) -> int:
        self._next_net += 1
        return self._next_net

    def _any_cell(self) -> Cell:
        return self._pick(self._columns), self._pick(self._rows)

    def _has_room_for_via(self, cell: Cell) -> bool:
        x, y = cell
        return all(self._grid.is_free(c) for c in ((x, y), (x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)))

    def _block(self, x0: int, y0: int, x1: int, y1: int) -> None:
        self._taken[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                self._grid.claim((x, y), WALL)

    def _find_room(self, width: int, height: int) -> Cell | None:
        """The top-left cell of a free rectangle of cells, which is then taken; None if none was met."""
        for _ in range(40):
            if self._columns <= width or self._rows <= height:
                return None
            x, y = self._pick(self._columns - width + 1), self._pick(self._rows - height + 1)
            if not self._taken[y : y + height, x : x + width].any():
                self._taken[y : y + height, x : x + width] = True
                return x, y
        return None

    def _add_pad(
        self,
        cell: Cell,
        width: int,
        height: int,
        along_y: bool | None = None,
        *,
        is_round: bool = False,
        hole_radius: float = 0.0,
    ) -> None:
        """A pad on a cell; a long pad also owns the cells before its ends."""
        net = self._new_net()
        x, y = cell
        self._grid.claim(cell, net)
        if along_y is not None:
            for end in (-1, 1):
                self._grid.claim((x, y + end) if along_y else (x + end, y), net)
        at = self._at(cell)
        self._pads.append(Pad(at[0], at[1], width, height, is_round, hole_radius, net))
        self._pad_cells.append(cell)
