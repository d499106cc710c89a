"""The runtimes of a figure, each with its colour, marker and dash, the same in every figure; and legends."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Iterable

from defectd.modelbench.findings import Entry, Findings, Measured
from defectd.modelbench.page.svg import SERIES, dash, element, line, marker


@dataclass(frozen=True)
class Series:
    """One measured runtime; `number` chooses how it looks."""

    number: int
    entry: Entry
    measured: Measured

    @property
    def class_(self) -> str:
        """Its CSS class: colour, and paler if it was refused."""
        return f"s{self.number % SERIES}" + (" refused" if self.entry.verdict.kind == "refused" else "")


def series_of(findings: Findings) -> list[Series]:
    """Those that were measured, in the order of the bench."""
    return [
        Series(number, entry, entry.measured)
        for number, entry in enumerate(findings.entries)
        if entry.measured is not None
    ]


def swatch(number: int) -> str:
    """How a series looks, small enough for a line of text."""
    parts = [line(0, 7, 26, 7, "curve", dashes=dash(number)), marker(13, 7, number)]
    return element(
        "svg", parts, width=26, height=14, viewBox="0 0 26 14", class_=f"swatch s{number % SERIES}", aria_hidden="true"
    )


def legend(lines: Iterable[tuple[Series, str]]) -> str:
    """Each series with its name and a few words."""
    items = [
        element("li", f"{swatch(one.number)}<b>{escape(one.entry.name)}</b> <span>{escape(words)}</span>")
        for one, words in lines
    ]
    return element("ul", items, class_="legend")
