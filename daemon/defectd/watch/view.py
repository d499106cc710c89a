"""The live view: what a tally means, on one screen, for a person who sees it for the first time."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from defectd.watch.lines import describe_findings, rate, said_at, share, time_of
from defectd.watch.listener import Link
from defectd.watch.tally import StationTally, Tally, quantile
from defectd.watch.wire import Inspected, StationStatus

VERDICT_STYLES = {
    "passed": "green",
    "failed": "bold red",
    "error": "bold magenta",
    "aborted": "yellow",
    "skipped": "yellow",
}
CONDITION_STYLES = {
    "inspecting": "bold black on green",
    "degraded": "bold black on yellow",
    "starting": "bold black on cyan",
    "stopping": "bold black on cyan",
    "stopped": "bold white on bright_black",
    "lost": "bold white on red",
}
_PANEL_ROWS = 4
_BAR_CELLS = 10
_FIXED_ROWS = 15  # everything but the table of units
_QUIET_S = 10.0
_FAULTS_SHOWN = 3
_WIDE = 100


def render(
    tally: Tally, link: Link, broker: str, size: tuple[int, int], now_s: float, note: str = ""
) -> RenderableType:
    """The whole screen; *size* is its width and height in cells, *note* a line of whoever runs the view."""
    stations = list(tally.stations.values())
    if len(stations) == 1:
        body = _station(stations[0], size[1] - bool(note), now_s)
    elif stations:
        body = [_summary(stations, size[0])]
    else:
        body = [Panel(Text(note or "no station has been heard yet", justify="center"), padding=(2, 2))]
    last = [Text(note, style="bold", no_wrap=True, overflow="ellipsis")] if note and stations else []
    return Group(_link_line(link, broker, size[0]), *body, *last)


def _link_line(link: Link, broker: str, width: int) -> Text:
    state = f"connected, {link.detail}" if link.connected else f"AWAY: {link.detail}; what is shown is old"
    if link.refused:
        state = f"REFUSED: {link.detail}"
    style = "green" if link.connected else "bold red"
    line = Text.assemble(("defectd", "bold"), "  broker ", broker, " ", (state, style))
    line.truncate(width, overflow="ellipsis")
    return line


def _station(station: StationTally, height: int, now_s: float) -> list[RenderableType]:
    extra = min(len(station.faults), _FAULTS_SHOWN) + bool(station.holes)
    middle = Table.grid(expand=True, padding=(0, 0))
    for ratio in (30, 36, 26):
        middle.add_column(ratio=ratio)
    middle.add_row(_verdicts(station), _latency(station), _codes(station))
    rows = max(height - _FIXED_ROWS - extra, 3)
    return [_head(station, now_s), middle, _units(station, rows), *_troubles(station)]


def _head(station: StationTally, now_s: float) -> RenderableType:
    status, birth = station.status, station.birth
    condition = status.condition if status else "unknown"
    first = Text.assemble(
        (station.name.replace("/", " / "), "bold"), "  ",
        (f" {condition.upper()} ", CONDITION_STYLES.get(condition, "reverse")), "  ", _pulse(station, now_s),
    )  # fmt: skip
    model, runtime = station.model
    second = Text.assemble(
        ("model ", "dim"), model or "none yet", (" on ", "dim"), runtime or "?",
        ("   camera ", "dim"), ", ".join(birth.cameras) if birth else "?",
        ("   recipe ", "dim"), birth.recipe if birth else "?",
    )  # fmt: skip
    for line in (first, second):
        line.no_wrap, line.overflow = True, "ellipsis"
    return Panel(Group(first, second), box=box.ROUNDED, padding=(0, 1))


def _pulse(station: StationTally, now_s: float) -> str:
    if not station.arrivals_s or (station.status and station.status.state == "offline"):
        return _last_words(station.status)
    silent_s = now_s - station.arrivals_s[-1]
    if silent_s > _QUIET_S:
        return f"no unit for {silent_s:.0f} s"
    return f"{rate(station)} units/s"


def _last_words(status: StationStatus | None) -> str:
    if status is None:
        return "no unit seen yet"
    return f"{status.detail}, {said_at(status)}" if status.at else status.detail


def _verdicts(station: StationTally) -> Panel:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    others = [verdict for verdict in ("aborted", "skipped") if station.verdicts[verdict]]
    for verdict in ["passed", "failed", "error", *others][:_PANEL_ROWS]:
        count = station.verdicts[verdict]
        style = VERDICT_STYLES[verdict] if count else "dim"
        part = share(count / station.units) if station.units else "-"
        table.add_row(Text(verdict, style), Text(str(count), style), Text(part, "dim"))
    if not others:
        table.add_row("pass rate", "", Text(share(station.pass_rate), "bold"))
    return _panel(table, f"{station.units} units")


def _latency(station: StationTally) -> Panel:
    deadline_ms = station.birth.deadline_ms if station.birth else None
    table = Table.grid(padding=(0, 1))
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for name, part in (("median", 0.5), ("99 %", 0.99)):
        value_ms = quantile(station.latencies_ms, part)
        if value_ms is None:
            table.add_row(name, "-", "")
        else:
            late = deadline_ms is not None and value_ms > deadline_ms
            value = Text(f"{value_ms:.1f} ms", "bold red" if late else "bold")
            table.add_row(name, value, _bar(value_ms, deadline_ms))
    inference_ms = quantile(station.inferences_ms, 0.5)
    table.add_row("model", "-" if inference_ms is None else f"{inference_ms:.1f} ms", Text("of these", "dim"))
    if deadline_ms is not None:
        late_units = f"{station.late_units} late" if station.late_units else "none late"
        table.add_row("limit", f"{deadline_ms:.0f} ms", Text(late_units, "bold red" if station.late_units else "green"))
    return _panel(table, "picture to verdict")


def _panel(table: Table, title: str) -> Panel:
    return Panel(table, title=title, title_align="left", box=box.ROUNDED, padding=(0, 1), height=_PANEL_ROWS + 2)


def _bar(value_ms: float, deadline_ms: float | None) -> Text:
    """How much of the deadline is used."""
    if not deadline_ms:
        return Text("")
    used = min(value_ms / deadline_ms, 1.0)
    cells = max(round(used * _BAR_CELLS), 1)
    style = "green" if used < 0.7 else "yellow" if used < 1.0 else "bold red"
    return Text.assemble(("━" * cells, style), ("─" * (_BAR_CELLS - cells), "dim"))


def _codes(station: StationTally) -> Panel:
    """The four commonest, and the rest as one number when there are more."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right")
    ranked = station.codes.most_common()
    shown = ranked[:4] if len(ranked) <= 4 else ranked[:3]
    for code, count in shown:
        table.add_row(code, str(count))
    if len(ranked) > len(shown):
        others = sum(count for _, count in ranked[len(shown) :])
        table.add_row(Text(f"{len(ranked) - len(shown)} other codes", "dim"), str(others))
    if not ranked:
        table.add_row(Text("none", "dim"), "")
    total = sum(station.codes.values())
    return _panel(table, f"{total} defects")


def _units(station: StationTally, rows: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    table.add_column("time", no_wrap=True)
    table.add_column("unit", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("trigger", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("latency", justify="right", no_wrap=True)
    table.add_column("defects (confidence)", ratio=1, no_wrap=True, overflow="ellipsis")
    for unit in list(station.recent)[: -rows - 1 : -1]:
        table.add_row(time_of(unit), unit.unit_id, str(unit.trigger), _verdict(unit), f"{unit.latency_ms:.1f} ms",
                      describe_findings(unit))  # fmt: skip
    for _ in range(rows - len(station.recent)):
        table.add_row()
    return table


def _verdict(unit: Inspected) -> Text:
    review = " review" if unit.needs_review else ""
    word = unit.verdict.upper() if unit.verdict in ("failed", "error") else unit.verdict
    return Text(word + review, VERDICT_STYLES.get(unit.verdict, "bold"))


def _troubles(station: StationTally) -> list[RenderableType]:
    lines = [
        Text(f"FAULT {fault.component}: {fault.code}: {fault.detail}", "bold yellow")
        for fault in list(station.faults.values())[:_FAULTS_SHOWN]
    ]
    holes = station.holes
    if holes:
        lines.append(Text(f"MISSING without an explanation: {', '.join(holes[:4])}", "bold red"))
    elif station.units:
        first, last = station.seq.first, station.seq.last
        lost = f"; {station.lost} given up by the station, as it reported" if station.lost else ""
        twice = f"; {station.redelivered} delivered twice, counted once" if station.redelivered else ""
        line = Text.assemble(("every unit accounted for", "green"), f": events {first} to {last}, no gap{lost}{twice}")
        lines.append(line if station.faults else Text.assemble(line, ("; no faults", "green")))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return list(lines)


def _summary(stations: list[StationTally], width: int) -> Table:
    """One row per station."""
    wide = width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, int(wide), 0, 0), show_edge=False, header_style="dim")
    longest = max(len(station.name) for station in stations)
    table.add_column("station", min_width=min(longest, width // 3), ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("condition", no_wrap=True)
    for name in ("units", "passed", "failed", "error", *(("pass rate",) if wide else ()), "99 % in"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("trouble", no_wrap=True)
    for station in sorted(stations, key=lambda one: one.name):
        condition = station.status.condition if station.status else "unknown"
        p99_ms = quantile(station.latencies_ms, 0.99)
        counts = [Text(str(station.verdicts[verdict]), VERDICT_STYLES[verdict] if station.verdicts[verdict] else "dim")
                  for verdict in ("passed", "failed", "error")]  # fmt: skip
        table.add_row(
            station.name, Text(condition.upper(), CONDITION_STYLES.get(condition, "reverse")),
            str(station.units), *counts, *((share(station.pass_rate),) if wide else ()),
            "-" if p99_ms is None else f"{p99_ms:.0f} ms", _trouble(station),
        )  # fmt: skip
    return table


def _trouble(station: StationTally) -> Text:
    if station.holes:
        return Text("MISSING", "bold red")
    if station.faults:
        return Text(f"{len(station.faults)} fault{'s' if len(station.faults) > 1 else ''}", "bold yellow")
    return Text("none", "dim")
