"""Routes traces over a board's grid: A* in eight directions, like a layout tool's first pass."""

from __future__ import annotations

import heapq
from typing import Tuple

import numpy as np
import numpy.typing as npt

Cell = Tuple[int, int]  # (column, row)

FREE = 0
WALL = -1
_STEPS: tuple[Cell, ...] = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
_TURN_COST = 0.35
_EXPANSIONS_MAX = 2500


class Grid:
    """Who owns each cell: FREE, WALL, or the number (>= 1) of the net that may use it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.owner: npt.NDArray[np.int32] = np.zeros((rows, columns), np.int32)

    def inside(self, cell: Cell) -> bool:
        return 0 <= cell[0] < self.columns and 0 <= cell[1] < self.rows

    def claim(self, cell: Cell, net: int) -> None:
        """Give a cell to a net; cells outside the grid or already owned stay as they are."""
        if self.inside(cell) and self.owner[cell[1], cell[0]] == FREE:
            self.owner[cell[1], cell[0]] = net

    def is_free(self, cell: Cell) -> bool:
        return self.inside(cell) and bool(self.owner[cell[1], cell[0]] == FREE)


def route(grid: Grid, start: Cell, goal: Cell, nets: tuple[int, int]) -> list[Cell] | None:
    """The cheapest path from start to goal over free cells and cells of the two nets, or None.

    A diagonal step also needs the two cells it squeezes between, so that parallel diagonals keep apart.
    """
    rows, columns = grid.rows, grid.columns
    usable = ((grid.owner == FREE) | (grid.owner == nets[0]) | (grid.owner == nets[1])).tolist()
    cost: dict[Cell, float] = {start: 0.0}
    came_from: dict[Cell, tuple[Cell, int]] = {}
    queue: list[tuple[float, Cell, int]] = [(0.0, start, -1)]
    for _ in range(_EXPANSIONS_MAX):
        if not queue:
            return None
        _, cell, heading = heapq.heappop(queue)
        if cell == goal:
            return _walk_back(came_from, cell)
        column, row = cell
        for direction, (dx, dy) in enumerate(_STEPS):
            x, y = column + dx, row + dy
            if not (0 <= x < columns and 0 <= y < rows and usable[y][x]):
                continue
            if dx and dy and not (usable[row][x] and usable[y][column]):
                continue
            turn = _turn(heading, direction)
            if turn > 1:  # layout tools bend traces by 45 degrees only
                continue
            step = (1.414 if dx and dy else 1.0) + turn * _TURN_COST
            total = cost[cell] + step
            if total < cost.get((x, y), 1e9) - 1e-9:
                cost[(x, y)] = total
                came_from[(x, y)] = (cell, direction)
                ahead, aside = abs(goal[0] - x), abs(goal[1] - y)
                estimate = max(ahead, aside) + 0.414 * min(ahead, aside)
                heapq.heappush(queue, (total + estimate, (x, y), direction))
    return None


def corners(path: list[Cell]) -> list[Cell]:
    """The path's ends and bends, without the cells on straight runs."""
    kept = [path[0]]
    for before, here, after in zip(path, path[1:], path[2:]):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            kept.append(here)
    kept.append(path[-1])
    return kept


def _turn(heading: int, direction: int) -> int:
    """Steps of 45 degrees between two headings; 0 at the start of a path."""
    if heading < 0:
        return 0
    turn = abs(heading - direction)
    return min(turn, 8 - turn)


def _walk_back(came_from: dict[Cell, tuple[Cell, int]], cell: Cell) -> list[Cell]:
    path = [cell]
    while cell in came_from and len(path) < 4096:
        cell = came_from[cell][0]
        path.append(cell)
    return path[::-1]
