"""Shows stations while they work: a bar for each on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Mapping, TextIO

from defectd.technician.places import tersely
from defectd.technician.report import STYLES, Table, alarm, change
from defectd.technician.standing import Kind, Standing

_BAR_CELLS = 20
_AROUND = 4
"""Rows of a screen that are not stations."""
_FIRST = (Kind.FAILED, Kind.REJECTED, Kind.SILENT, Kind.WAITING, Kind.SENT, Kind.WORKING, Kind.DONE)
"""Where not all fit on the screen, those come first that somebody must look at."""


class Screen:
    """Plain when asked to, without rich, and when nobody could see more; `with` while stations are followed."""

    def __init__(self, plain: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._console = None if plain or not self._stream.isatty() else _console(self._stream)
        self._live: Any = None
        self._said: dict[str, Standing] = {}
        self._began_s = time.monotonic()
        self.title, self.note = "", ""

    def __enter__(self) -> Screen:
        if self._console is not None:
            from rich.live import Live  # noqa: PLC0415 - rich is an extra

            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""
        if self._console is None:
            print(text, file=self._stream, flush=True)
        else:
            self._console.print(text, style=style, markup=False, emoji=False)

    def show(self, standings: Mapping[str, Standing]) -> None:
        """How all stations stand now. What went wrong is said once in full, and stays."""
        names = tersely(list(standings))
        for station, now in standings.items():
            line = (change if self._live is None else alarm)(names[station], now, self._said.get(station))
            if line and now.kind is not Kind.UNSENT:
                self.say(f"{time.strftime('%H:%M:%S')} {line}", STYLES[now.kind])
            if line or self._live is not None:
                self._said[station] = now
        if self._live is not None:
            self._live.update(self._picture(standings), refresh=True)

    def table(self, table: Table) -> None:
        """Nothing of it is cut off."""
        if self._console is None:
            self.say("\n".join(table.lines()))
            return
        from rich import box  # noqa: PLC0415
        from rich.table import Table as RichTable  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in table.header:
            shown.add_column(name, overflow="fold")
        for row in table.rows:
            shown.add_row(*(Text(cell, row.style if column < 2 else "") for column, cell in enumerate(row.cells)))
        self._console.print(shown)
        self._console.print()
        if table.notes:
            notes = RichTable.grid(padding=(0, 2, 0, 0))
            notes.add_column(no_wrap=True, style="bold")
            notes.add_column(overflow="fold")
            for station, text in table.notes:
                notes.add_row(Text(station), Text(text))
            self._console.print(notes)
            self._console.print()

    def _picture(self, standings: Mapping[str, Standing]) -> Any:
        from rich.console import Group  # noqa: PLC0415
        from rich.table import Table as RichTable  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        names, room = tersely(list(standings)), max(self._console_height() - _AROUND, 1)
        asked = [name for name, one in standings.items() if one.kind is not Kind.UNSENT]
        order = sorted(asked, key=lambda name: _FIRST.index(standings[name].kind))[:room]
        grid = RichTable.grid(padding=(0, 1), expand=True)
        for _ in range(3):
            grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for station in (name for name in asked if name in order):
            one = standings[station]
            detail = "" if one.kind.settled else one.detail  # what went wrong stands above, in full
            grid.add_row(Text(names[station]), _bar(one), Text(one.doing, STYLES[one.kind]), Text(detail, "dim"))
        left = [f"{len(asked) - len(order)} more"] if len(order) < len(asked) else []
        left += [f"{len(standings) - len(asked)} not sent yet"] if len(asked) < len(standings) else []
        done = sum(standings[name].kind is Kind.DONE for name in asked)
        passed = time.strftime("%H:%M:%S", time.gmtime(time.monotonic() - self._began_s))
        head = Text.assemble((self.title, "bold"), (f"   {passed}   {done} of {len(standings)} done", "dim"))
        foot = Text(self.note or "Ctrl-C stops watching: what was sent goes on", "bold yellow" if self.note else "dim")
        for line in (head, foot):
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(head, grid, *([Text(f"and {', '.join(left)}", "dim")] if left else []), foot)

    def _console_height(self) -> int:
        return int(self._console.size.height) if self._console is not None else 0


def _bar(one: Standing) -> Any:
    from rich.text import Text  # noqa: PLC0415

    if one.share is None:
        return Text(" " * _BAR_CELLS)
    cells = min(_BAR_CELLS, int(one.share * _BAR_CELLS))
    return Text.assemble(("━" * cells, STYLES[one.kind]), ("─" * (_BAR_CELLS - cells), "dim"))


def _console(stream: TextIO) -> Any:
    """None without rich."""
    try:
        from rich.console import Console  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    return Console(file=stream, highlight=False)
