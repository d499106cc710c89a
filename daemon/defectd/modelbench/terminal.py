"""The bench on a terminal: how far it is, then the table. Plain lines where nobody could see a live view."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence, TextIO

from defectd.modelbench.findings import Findings
from defectd.modelbench.measure import Audience
from defectd.modelbench.page.clocks import summary
from defectd.modelbench.page.scales import Scale, bin_edges, histogram
from defectd.modelbench.progress import Estimate, about, words
from defectd.modelbench.summary import Row, doubts, headline, plain_table, refusal, rows, table

_STYLES = {"chosen": "bold green", "slower": "", "refused": "red", "absent": "dim"}
_BLOCKS = " ▁▂▃▄▅▆▇█"
_SPARK_CELLS = 24


class Lines:
    """An audience of lines: one for each stage, through *say*."""

    def __init__(self, names: Sequence[str], say: Callable[[str], None]) -> None:
        self._estimate, self._say = Estimate(names), say
        self._name, self._count, self._number = "", len(names), 0

    def begins(self, name: str, at_s: float) -> None:
        """See Audience."""
        self._name, self._number = name, self._number + 1
        self._estimate.begin(at_s)
        left = about(self._estimate.left_s(at_s))
        self._say(f"{name} ({self._number} of {self._count}): loading; {left} left in all")

    def hears(self, stage: str, share: float | None, at_s: float) -> None:
        """See Audience."""
        if self._estimate.see(stage, share, at_s):
            self._say(f"{self._name}: {words(stage)}; {about(self._estimate.left_s(at_s))} left in all")

    def ends(self, failure: str | None, at_s: float) -> None:
        """See Audience."""
        self._estimate.end(at_s, completely=failure is None)
        if failure is not None:
            self._say(f"{self._name}: no result: {failure}")


class Bar:
    """An audience that sees one live line. Needs rich."""

    def __init__(self, names: Sequence[str], stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._estimate = Estimate(names)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=Console(file=stream, highlight=False), transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("starting", total=1.0, left="")
        self._name = ""

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begins(self, name: str, at_s: float) -> None:
        """See Audience."""
        self._name = name
        self._estimate.begin(at_s)
        self._show("starting", at_s)

    def hears(self, stage: str, share: float | None, at_s: float) -> None:
        """See Audience."""
        self._estimate.see(stage, share, at_s)
        self._show(words(stage), at_s)

    def ends(self, failure: str | None, at_s: float) -> None:
        """See Audience."""
        self._estimate.end(at_s, completely=failure is None)
        if failure is not None:
            self._progress.console.print(f"{self._name}: no result: {failure}", markup=False)
        self._show("done", at_s)

    def _show(self, doing: str, at_s: float) -> None:
        left = f"{about(self._estimate.left_s(at_s))} left"
        self._progress.update(
            self._task, completed=self._estimate.share, description=f"{self._name}: {doing}", left=left
        )


@contextmanager
def audience(names: Sequence[str], say: Callable[[str], None], plain: bool = False) -> Iterator[Audience]:
    """A live line on standard error if somebody can see it, else lines through *say*."""
    if plain or not sys.stderr.isatty() or _console(sys.stderr) is None:
        yield Lines(names, say)
        return
    with Bar(names, sys.stderr) as bar:
        yield bar


def show(findings: Findings, stream: TextIO | None = None, plain: bool = False) -> None:
    """The headline, the table, the reasons and the machine, on *stream* (standard output)."""
    stream = stream or sys.stdout
    console = None if plain or not stream.isatty() else _console(stream)
    if console is None:
        stream.write("\n".join(plain_report(findings)) + "\n")
        stream.flush()
        return
    _print(findings, console)


def plain_report(findings: Findings) -> list[str]:
    """Lines for a log."""
    reasons = [f"  {row.entry.name}: {reason(row)}" for row in rows(findings) if reason(row)]
    machine = [f"  {sentence}" for sentence in summary(findings.conditions)]
    doubtful = ["", "Doubts", *(f"  {doubt}" for doubt in doubts(findings))] if doubts(findings) else []
    return [
        headline(findings),
        "",
        plain_table(table(findings)),
        "",
        "Why",
        *reasons,
        "",
        "The machine",
        *machine,
        *doubtful,
    ]


def reason(row: Row) -> str:
    """Why the verdict."""
    return refusal(row.entry) or row.entry.verdict.reason


def sparkline(samples_ms: Sequence[float], low: float, high: float, cells: int = _SPARK_CELLS) -> str:
    """Where *samples_ms* lie between *low* and *high*, in characters."""
    if high <= low:
        return ""
    counts = histogram(samples_ms, bin_edges(Scale(low, high, 0, cells), 1))
    most = max(1, *counts)
    return "".join(_BLOCKS[-(-count * (len(_BLOCKS) - 1) // most)] for count in counts)


def _console(stream: TextIO) -> Any:
    """None without rich."""
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    return Console(file=stream, highlight=False)


def _print(findings: Findings, console: Any) -> None:
    from rich.text import Text

    console.print(Text(headline(findings), style="bold"))
    console.print()
    header, *lines = plain_table(table(findings, console.width)).splitlines()
    console.print(Text(header, style="dim"), no_wrap=True)
    for entry, line in zip(findings.entries, lines):
        console.print(Text(line, style=_STYLES[entry.verdict.kind]), no_wrap=True)
    console.print()
    _print_distributions(findings, console)
    for row in rows(findings):
        if reason(row):
            console.print(Text.assemble((f"{row.entry.name}: ", "bold"), reason(row)))
    console.print(Text(" ".join(summary(findings.conditions)), style="dim"))
    for doubt in doubts(findings):
        console.print(Text(doubt, style="yellow"))


def _print_distributions(findings: Findings, console: Any) -> None:
    measured = [(entry.name, entry.measured) for entry in findings.ran if entry.measured is not None]
    if not measured:
        return
    low = min(min(one.latency_ms) for _, one in measured)
    high = max(one.latency.p99_ms for _, one in measured)
    width = max(len(name) for name, _ in measured)
    for name, one in measured:
        console.print(
            f"{name:<{width}}  {low:8.2f} ms {sparkline(one.latency_ms, low, high)} {high:.2f} ms (p99)", markup=False
        )
    console.print()
