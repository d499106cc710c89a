"""Findings in words: the headline, and the cells of the summary table. For the terminal and for the page. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

from defectd.modelbench.figures import column, quantity, times
from defectd.modelbench.findings import Entry, Failed, Findings, Measured

HEADER = (
    "runtime", "verdict", "agreement", "start s", "warm-up", "p50 ms", "p95 ms", "p99 ms", "max ms", "units/s",
    "peak MB", "GPU MB",
)  # fmt: skip
"""Of the table on a terminal; the page groups and explains them."""
_FIGURES: tuple[Callable[[Measured], float | None], ...] = (
    lambda one: one.start_s,
    lambda one: one.latency.p50_ms,
    lambda one: one.latency.p95_ms,
    lambda one: one.latency.p99_ms,
    lambda one: one.latency.longest_ms,
    lambda one: one.latency.units_per_s,
    lambda one: round(one.peak_rss_mb),
    lambda one: None if one.peak_gpu_mb is None else round(one.peak_gpu_mb),
)
_BUSY, _STOLEN = 0.25, 0.05
_LESS_NEEDED = ("warm-up", "p95 ms", "GPU MB", "start s", "max ms", "agreement", "peak MB")
"""What a narrow terminal leaves out, first to last; the page has it all."""


@dataclass(frozen=True)
class Row:
    """One runtime as text. `figures` are start s, warm-up, p50, p95, p99, max, units/s, peak MB, GPU MB: empty if it
    was not measured."""

    entry: Entry
    agreement: str
    figures: tuple[str, ...]


def headline(findings: Findings) -> str:
    """What came out, in one or two sentences."""
    chosen = findings.chosen
    if chosen is None or chosen.measured is None:
        ran = len(findings.ran)
        if not ran:
            return "No runtime works on this machine."
        return f"No runtime may serve: {ran} ran, and none gave the right answers."
    latency = chosen.measured.latency
    speedup = findings.speedup(chosen)
    wrong = any(entry.verdict.kind == "refused" for entry in findings.ran)
    rank = (
        "has the lowest p99 of those that answer right"
        if wrong
        else "has the lowest p99"
        if len(findings.ran) > 1
        else "serves, p99"
    )
    text = f"{chosen.name} {rank}: {quantity(latency.p99_ms)} ms, p50 {quantity(latency.p50_ms)} ms"
    return text + ("." if speedup is None else f"; {times(speedup)} as fast as {findings.reference} by p50.")


def rows(findings: Findings) -> list[Row]:
    """One for each runtime, in the order of the bench."""
    measured = [entry.measured for entry in findings.entries]
    columns = [column([None if one is None else value(one) for one in measured]) for value in _FIGURES]
    columns.insert(1, ["–" if one is None else _warmup(one) for one in measured])
    return [
        Row(entry, agreement(entry), tuple(cells) if entry.measured else ())
        for entry, *cells in zip(findings.entries, *columns)
    ]


def agreement(entry: Entry) -> str:
    """With the boxes that the original model finds in the golden pictures."""
    measured = entry.measured
    if measured is None:
        return "–"
    golden = measured.golden
    if golden is None:
        return "not checked"
    if not golden.expected:
        return f"{golden.pictures} pictures without a box, {golden.found} found"
    return f"{golden.matched}/{golden.expected} boxes, drift {golden.confidence_drift:.3f}"


def refusal(entry: Entry) -> str:
    """Why there are no measurements."""
    return entry.outcome.detail if isinstance(entry.outcome, Failed) else ""


def doubts(findings: Findings) -> list[str]:
    """What makes figures doubtful, a sentence each."""
    throttled: list[str] = []
    waiting: list[str] = []
    stolen: list[str] = []
    for entry in findings.ran:
        spans = [span for span in entry.spans if span.stage == "measuring"]
        samples = [one for span in spans for one in findings.conditions.between(span.began_s, span.ended_s)]
        if names := sorted({name for one in samples for name in one.throttled}):
            throttled.append(f"{entry.name} ({', '.join(names)})")
        for of, limit, found in (("waiting", _BUSY, waiting), ("stolen", _STOLEN, stolen)):
            shares = [share for share in (getattr(one, of) for one in samples) if share is not None]
            if shares and (mean := sum(shares) / len(shares)) > limit:
                found.append(f"{entry.name} ({mean:.0%})")
    sentences = (
        (throttled, "Throttled while it was measured: {}."),
        (waiting, "Busy machine: while it was measured, some thread had no core for much of the time: {}."),
        (stolen, "While it was measured, the hypervisor took a share of the cores: {}."),
    )
    return [sentence.format(", ".join(found)) for found, sentence in sentences if found]


def table(findings: Findings, width: int | None = None) -> list[list[str]]:
    """The header and a line for each runtime: all columns that say something, or as many as fit in *width* cells with
    two between them."""
    lines = [list(HEADER)]
    for row in rows(findings):
        figures = row.figures or ("",) * (len(HEADER) - 3)
        lines.append([row.entry.name, row.entry.verdict.word, row.agreement.partition(",")[0], *figures])
    silent = [name for name, *cells in zip(*lines) if set(cells) <= {"", "–"}]
    for name in silent:
        lines = _without(name, lines)
    for name in _LESS_NEEDED:
        if width is None or sum(max(map(len, column)) + 2 for column in zip(*lines)) - 2 <= width:
            break
        lines = _without(name, lines)
    return lines


def _without(name: str, lines: list[list[str]]) -> list[list[str]]:
    if name not in lines[0]:
        return lines
    index = lines[0].index(name)
    return [[*line[:index], *line[index + 1 :]] for line in lines]


def plain_table(lines: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first three to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    texts = []
    for line in lines:
        padded = [cell.ljust(width) if index < 3 else cell.rjust(width)
                  for index, (cell, width) in enumerate(zip(line, widths))]  # fmt: skip
        texts.append("  ".join(padded).rstrip())
    return "\n".join(texts)


def _warmup(one: Measured) -> str:
    return f"{one.warmup.iterations}" if one.warmup.steady else f">{one.warmup.iterations}"
