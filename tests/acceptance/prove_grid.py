"""`make prove-grid`: a rollout is struck in every state in every way, and has its power cut at every write.

    PYTHONPATH=daemon:tests python -m acceptance.prove_grid [--list] [--only NAME] [--quick]

Each cell is a real station with its broker; two run at once. --quick: the first two kinds of strikes, fewer moments.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Callable, Sequence

from acceptance.rollout_crash import CRASHES
from defectd.rollout.injection import KINDS
from defectd.rollout.states import State
from support.brokers import NO_MOSQUITTO, find_mosquitto
from support.cells import FROM_OUTSIDE, UNDER_WAY, Bundles, Cell, Seen, run_cell, table
from support.proving import Proof, Setting, Short, Skipped, main

_AT_ONCE = 2
_QUICK_KINDS = KINDS[:2]
_WITHIN = [state for state in UNDER_WAY if state is not State.ROLLING_BACK]
_LATER_S = 1.5
_MOMENTS, _QUICK_MOMENTS, _SEED = 6, 2, 4
_NOT_ON_THE_WAY = (State.DOWNLOADING, State.ROLLING_BACK)


@dataclass
class Grid:
    """What was seen so far. The bundles are made when the first row needs them."""

    directory: Path
    cells: dict[tuple[State, str], Seen] = field(default_factory=dict)
    _bundles: Bundles | None = None

    def row(self, state: State) -> Callable[[Setting], str]:
        """Proves all cells of one state."""

        def prove(setting: Setting) -> str:
            row = self._struck(setting, [Cell(state, kind) for kind in (_QUICK_KINDS if setting.quick else KINDS)])
            self.cells.update({(state, seen.cell.kind): seen for seen in row})
            return _figure(row, [seen.cell.kind for seen in row])

        return prove

    def way_back(self, setting: Setting) -> str:
        """Proves that a rollback on command, which downloads nothing, survives a crash in each of its states."""
        row = self._struck(
            setting, [Cell(state, "kill", back=True) for state in UNDER_WAY if state not in _NOT_ON_THE_WAY]
        )
        return _figure(row, [seen.cell.state.value for seen in row])

    def any_moment(self, setting: Setting) -> str:
        """Proves the same for moments within the states: nobody says when a process dies."""
        chance = random.Random(_SEED)
        cells = [
            Cell(chance.choice(_WITHIN), kind, after_s=chance.uniform(0, _LATER_S))
            for kind in FROM_OUTSIDE
            for _ in range(_QUICK_MOMENTS if setting.quick else _MOMENTS)
        ]
        row = self._struck(setting, cells)
        return _figure(row, [str(cell) for cell in cells])

    def _struck(self, setting: Setting, cells: Sequence[Cell]) -> list[Seen]:
        if find_mosquitto() is None:
            raise Skipped(NO_MOSQUITTO)
        if self._bundles is None:
            self._bundles = Bundles.made_in(self.directory)
        bundles = self._bundles

        def strike(cell: Cell) -> Seen:
            directory = setting.directory / str(cell)
            seen = run_cell(directory, cell, bundles)
            if not seen.problems:
                rmtree(directory, ignore_errors=True)
            return seen

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(strike, cells))

    def summary(self) -> str:
        """The table, and counts."""
        seen = list(self.cells.values())
        units, deaths = sum(one.units for one in seen), sum(one.deaths for one in seen)
        ends = ", ".join(f"{count} {end}" for end, count in Counter(one.end for one in seen).most_common())
        broken = sum(bool(one.problems) for one in seen)
        return (
            f"{table(self.cells)}\n(after a /: attempts)\n{len(seen)} cells, {broken} broken: {ends}; "
            f"{units} units with one verdict each, {deaths} deaths of the daemon"
        )


def _figure(row: Sequence[Seen], names: Sequence[str]) -> str:
    broken = [seen.line() for seen in row if seen.problems]
    if broken:
        raise Short(" | ".join(broken))
    ends = ", ".join(f"{name} {seen.end}" for name, seen in zip(names, row))
    return f"{ends}; {sum(seen.units for seen in row)} units"


def _run() -> int:
    grid = Grid(Path(mkdtemp(prefix="prove-grid-bundles-")))
    claim = "struck in this state in every way, it ends as the table of states says, and the line goes on"
    try:
        back = Proof("grid.way_back", "a rollback on command, killed in every state, ends likewise", grid.way_back)
        any_moment = Proof("grid.any_moment", "the daemon or its engines die at any moment", grid.any_moment)
        rows = tuple(Proof(f"grid.{state.value}", claim, grid.row(state)) for state in UNDER_WAY)
        code = main("prove-grid", (*CRASHES, *rows, back, any_moment))
        if grid.cells:
            print(grid.summary())
        return code
    finally:
        rmtree(grid.directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(_run())
