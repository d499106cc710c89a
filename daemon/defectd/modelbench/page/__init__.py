"""Findings as one page: HTML, CSS and inline SVG, nothing to fetch, nothing to run. Pure.

render      the whole page
  summary     the headline and the table
  distributions, curves, clocks   the figures
  series, svg, scales             what figures are made of
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Iterable, Sequence

from defectd.modelbench.figures import quantity
from defectd.modelbench.findings import Findings
from defectd.modelbench.page.clocks import clocks, summary
from defectd.modelbench.page.curves import throughput_words, throughputs, warmup_words, warmups
from defectd.modelbench.page.distributions import distributions
from defectd.modelbench.page.series import Series, legend, series_of, swatch
from defectd.modelbench.page.svg import element
from defectd.modelbench.summary import Row, doubts, headline, refusal, rows

_CSS = Path(__file__).with_name("page.css")
_FIGURES = 9


def render(findings: Findings) -> str:
    """The page, as text to be written in UTF-8."""
    subject = findings.subject
    title = " ".join(filter(None, (subject.name, subject.version, "on the bench")))
    series = series_of(findings)
    body = [
        element("header", _heading(findings, title)),
        _section("Runtimes", _TABLE_WORDS, _table(findings)),
        *(_charts(series) if series else []),
        _section("The machine meanwhile", " ".join(summary(findings.conditions)), _clocks(findings, series)),
        _section("What each runtime says of itself", "", _notes(findings)),
        element("footer", escape(f"defectd {findings.defectd} bench, {findings.measured_at}. {findings.platform}.")),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_CSS.read_text(encoding='utf-8')}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


_TABLE_WORDS = (
    "Start: read, load and warm up in a new process. Warm-up: calls until they took a steady time. Latency: whole "
    "inference with batch 1, pixels to boxes. Agreement: boxes found again that the original model finds in the golden "
    "pictures, and the mean change of their confidence."
)


def _heading(findings: Findings, title: str) -> str:
    subject = findings.subject
    height, width = subject.input_hw
    facts = [
        findings.machine,
        f"input {width} × {height}",
        f"{len(subject.classes)} classes",
        f"{subject.golden_pictures} golden pictures" if subject.golden_pictures else "no golden pictures",
        f"sha256 {subject.sha256[:12]}",
        f"took {_duration(findings.took_s)}",
    ]
    return "".join(
        [
            element("h1", escape(title)),
            element("p", escape(headline(findings)), class_="headline"),
            element("p", " · ".join(escape(fact) for fact in facts), class_="facts"),
            *(element("p", escape(doubt), class_="doubt") for doubt in doubts(findings)),
        ]
    )


def _section(title: str, words: str, content: str) -> str:
    explanation = element("p", escape(words), class_="words") if words else ""
    return element("section", [element("h2", escape(title)), explanation, content])


def _table(findings: Findings) -> str:
    head = (
        '<thead><tr><th rowspan="2" scope="col">Runtime</th><th rowspan="2" scope="col">Verdict</th>'
        '<th rowspan="2" scope="col">Agreement</th><th rowspan="2" scope="col" class="n">Start<br>s</th>'
        '<th rowspan="2" scope="col" class="n">Warm-up<br>calls</th>'
        '<th colspan="4" scope="colgroup" class="group">Latency, ms</th>'
        '<th rowspan="2" scope="col" class="n">Units<br>per s</th>'
        '<th colspan="2" scope="colgroup" class="group">Peak memory, MB</th></tr>'
        '<tr><th class="n" scope="col">p50</th><th class="n" scope="col">p95</th><th class="n" scope="col">p99</th>'
        '<th class="n" scope="col">max</th><th class="n" scope="col">host</th><th class="n" scope="col">GPU</th></tr>'
        "</thead>"
    )
    lines = [_line(number, row) for number, row in enumerate(rows(findings))]
    return element("div", element("table", [head, element("tbody", lines)]), class_="scroll")


def _line(number: int, row: Row) -> str:
    entry = row.entry
    look = swatch(number) if entry.measured else '<span class="swatch"></span>'
    cells = [
        element("th", f"{look}<b>{escape(entry.name)}</b>", scope="row"),
        element(
            "td",
            element("span", entry.verdict.word, class_=f"verdict {entry.verdict.kind}")
            + (element("span", escape(entry.verdict.reason), class_="reason") if entry.measured else ""),
        ),
    ]
    if not row.figures:
        return element("tr", [*cells, element("td", escape(refusal(entry)), colspan=_FIGURES + 1, class_="why")])
    cells.append(element("td", escape(row.agreement), class_="agreement"))
    cells += [element("td", escape(cell), class_="n") for cell in row.figures]
    return element("tr", cells, class_=entry.verdict.kind)


def _charts(series: Sequence[Series]) -> list[str]:
    parts = [
        _section(
            "How long one inspection takes",
            "Every call is a tick; the height of a bar is relative to the highest of its runtime.",
            distributions(series),
        )
    ]
    halves = []
    if any(one.measured.curve_ms for one in series):
        words = "The first calls compile, search and allocate; none of them is in any other figure."
        halves.append(_section("Warm-up", words, legend((one, warmup_words(one)) for one in series) + warmups(series)))
    if any(run.latency_ms for one in series for run in one.measured.batches):
        words = "The network alone, batch after batch until memory or the program says stop."
        content = legend((one, throughput_words(one)) for one in series) + throughputs(series) + _batches(series)
        halves.append(_section("Throughput", words, content))
    return [*parts, element("div", halves, class_="halves")]


def _batches(series: Sequence[Series]) -> str:
    batches = sorted({run.batch for one in series for run in one.measured.batches})
    head = element("tr", ["<th>batch</th>", *(element("th", str(batch), class_="n") for batch in batches)])
    lines = []
    for one in series:
        by_batch = {run.batch: run for run in one.measured.batches}
        cells = [by_batch[batch].units_per_s if batch in by_batch else None for batch in batches]
        lines.append(
            element("tr", [
                element("th", escape(one.entry.name), scope="row"),
                *(element("td", "–" if cell is None else quantity(cell), class_="n") for cell in cells),
            ])
        )  # fmt: skip
    table = element("div", element("table", [head, *lines]), class_="scroll")
    return element("details", f"<summary>units per second as a table</summary>{table}")


def _clocks(findings: Findings, series: Sequence[Series]) -> str:
    return clocks(findings.entries, findings.conditions) if series and findings.conditions.samples else ""


def _notes(findings: Findings) -> str:
    parts: list[str] = []
    for entry in findings.entries:
        parts.append(element("dt", escape(entry.name)))
        if entry.measured is None:
            parts.append(element("dd", escape(refusal(entry))))
            continue
        golden = entry.measured.golden
        built = [] if entry.measured.build_s is None else [f"built in {_duration(entry.measured.build_s)}"]
        notes = [entry.measured.runtime, *built, *entry.measured.notes, *(golden.reasons if golden else ())]
        parts.append(element("dd", element("ul", _items(notes))))
    return element("dl", parts)


def _items(notes: Iterable[str]) -> list[str]:
    return [element("li", escape(note)) for note in notes]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
