"""The machine while it was measured: what was running, clocks, temperature, load, throttling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

from defectd.modelbench.conditions import Conditions, Sample
from defectd.modelbench.findings import Entry
from defectd.modelbench.page.scales import Scale
from defectd.modelbench.page.svg import SERIES, element, figure, line, marker, polyline, text, text_px, tip, x_axis

_WIDTH, _LEFT, _RIGHT = 1120, 206, 1104
_HEAD, _ROW, _GAP = 34, 62, 22


@dataclass(frozen=True)
class _Row:
    """One quantity: lines on a scale from 0 to *high*."""

    name: str
    unit: str
    high: float
    lines: tuple[tuple[str, Callable[[Sample], float | None]], ...]
    limit: float | None = None


def clocks(entries: Sequence[Entry], conditions: Conditions) -> str:
    """The figure: one lane for what ran when, one row for each quantity that can be read here."""
    ends = [span.ended_s for entry in entries for span in entry.spans]
    ends += [sample.at_s for sample in conditions.samples]
    x = Scale(0.0, max(ends, default=1.0) or 1.0, _LEFT, _RIGHT)
    rows = _rows(conditions)
    lanes = len(rows) + (1 if conditions.limits.alerts else 0)
    bottom = _HEAD + lanes * (_ROW + _GAP) + 6
    body = [*_phases(entries, x, bottom), *x_axis(x, _HEAD, bottom, "seconds since the bench began", about=12)]
    for index, row in enumerate(rows):
        body += _row(row, conditions.samples, x, _HEAD + _GAP + index * (_ROW + _GAP))
    if conditions.limits.alerts:
        body += _throttling(conditions, x, _HEAD + _GAP + len(rows) * (_ROW + _GAP))
    return figure(_WIDTH, bottom + 46, "The machine during the run: " + "; ".join(summary(conditions)), body)


def summary(conditions: Conditions) -> list[str]:
    """What a reader must know, a sentence each; what is not readable, too."""
    samples, limits = conditions.samples, conditions.limits
    if not samples:
        return ["Too short to look at the machine."]
    known, unknown = [], []
    cpu = [mhz for sample in samples for mhz in sample.cpu_mhz]
    gpu = [sample.gpu_mhz for sample in samples if sample.gpu_mhz is not None]
    heat = [sample.hottest_c for sample in samples if sample.hottest_c is not None]
    stolen = [sample.stolen for sample in samples if sample.stolen is not None]
    for values, name in ((cpu, "CPU clock"), (gpu, "GPU clock"), (heat, "temperatures")):
        if not values:
            unknown.append(name)
    if cpu:
        known.append(f"CPU {_range(cpu)} MHz ({limits.cpu_source}){_of(limits.cpu_mhz)}.")
    if gpu:
        known.append(f"GPU {_range(gpu)} MHz{_of(limits.gpu_mhz)}.")
    if heat:
        known.append(f"Hottest zone {_range(heat)} °C.")
    if limits.alerts:
        names = ", ".join(conditions.throttled)
        known.append(f"Throttled: {names}." if names else f"No throttling: {limits.alerts} alerts were never on.")
    else:
        unknown.append("throttle alerts")
    if conditions.overcurrents is None:
        unknown.append("over-current counters")
    else:
        known.append(f"{conditions.overcurrents} over-current events.")
    if limits.power_mode:
        known.append(f"Power mode {limits.power_mode}.")
    if stolen and max(stolen) > 0.01:
        known.append(f"The hypervisor took up to {max(stolen):.0%} of the cores' time.")
    return [*known, *([f"Not readable on this machine: {', '.join(unknown)}."] if unknown else [])]


def _rows(conditions: Conditions) -> list[_Row]:
    samples, limits = conditions.samples, conditions.limits
    rows = []
    cores = max((len(sample.cpu_mhz) for sample in samples), default=0)
    if cores:
        cpu_lines = tuple(("thin", _core(core)) for core in range(cores))
        top = max(max(sample.cpu_mhz, default=0) for sample in samples)
        rows.append(
            _Row("CPU clock", "MHz, each core", max(top, limits.cpu_mhz or 0) * 1.05, cpu_lines, limits.cpu_mhz)
        )
    gpu = [sample.gpu_mhz for sample in samples if sample.gpu_mhz is not None]
    if gpu:
        high = max(*gpu, limits.gpu_mhz or 0) * 1.05
        rows.append(_Row("GPU clock", "MHz", high, (("thin", lambda one: one.gpu_mhz),), limits.gpu_mhz))
    heat = [sample.hottest_c for sample in samples if sample.hottest_c is not None]
    if heat:
        rows.append(_Row("Hottest zone", "°C", max(100.0, *heat), (("thin", lambda one: one.hottest_c),)))
    if any(sample.busy is not None for sample in samples):
        shares = (("area", lambda one: _percent(one.busy)), ("waiting", lambda one: _percent(one.waiting)))
        rows.append(_Row("Cores in use", "%; red: short of cores", 105.0, shares))
    return rows


def _core(core: int) -> Callable[[Sample], float | None]:
    return lambda sample: sample.cpu_mhz[core] if core < len(sample.cpu_mhz) else None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _row(row: _Row, samples: Sequence[Sample], x: Scale, top: float) -> list[str]:
    y = Scale(0.0, row.high, top + _ROW, top)
    ticks = y.ticks(3)
    body = [text(0, top + 14, row.name, "row-name"), text(0, top + 32, row.unit, "note")]
    for tick in ticks:
        body += [
            line(x.start, y(tick), x.end, y(tick), "grid"),
            text(x.start - 8, y(tick) + 4, f"{tick:,.0f}", "tick", "end"),
        ]
    if row.limit is not None:
        body.append(line(x.start, y(row.limit), x.end, y(row.limit), "limit"))
    for class_, value in row.lines:
        points = [(x(one.at_s), y(v)) for one in samples for v in [value(one)] if v is not None]
        if not points:
            continue
        if class_ == "area":
            outline = [(points[0][0], y(0)), *points, (points[-1][0], y(0))]
            body.append(polyline(outline, "machine area"))
        else:
            body.append(polyline(points, f"machine {class_}"))
    return body


def _throttling(conditions: Conditions, x: Scale, top: float) -> list[str]:
    body = [text(0, top + 14, "Throttling", "row-name"), line(x.start, top + 40, x.end, top + 40, "baseline")]
    names = conditions.throttled
    body.append(text(0, top + 32, ", ".join(names) if names else "never", "alert" if names else "note"))
    for words, began_s, ended_s in _runs(conditions.samples):
        told = tip(f"{words} throttled from {began_s:.1f} to {ended_s:.1f} s")
        width = max(2.0, x(ended_s) - x(began_s))
        body.append(element("rect", told, x=x(began_s), y=top + 16, width=width, height=24, class_="throttled"))
    return body


def _runs(samples: Sequence[Sample]) -> list[tuple[str, float, float]]:
    """Times without a break in which the same things throttled: what, from, to (seconds)."""
    runs: list[tuple[str, float, float]] = []
    before_s = 0.0
    for sample in samples:
        words = ", ".join(sample.throttled)
        if runs and words and runs[-1][0] == words and runs[-1][2] == before_s:
            runs[-1] = (words, runs[-1][1], sample.at_s)
        elif words:
            runs.append((words, before_s, sample.at_s))
        before_s = sample.at_s
    return runs


def _phases(entries: Sequence[Entry], x: Scale, bottom: float) -> list[str]:
    body = []
    for number, entry in enumerate(entries):
        if not entry.spans:
            continue
        began, ended = x(entry.spans[0].began_s), x(entry.spans[-1].ended_s)
        shapes = [
            tip(f"{entry.name}: {entry.spans[0].began_s:.1f} to {entry.spans[-1].ended_s:.1f} s"),
            element("rect", x=began, y=_HEAD - 6, width=ended - began, height=bottom - _HEAD + 6, class_="phase"),
            line(began, _HEAD - 6, ended, _HEAD - 6, "phase-bar"),
        ]
        for span in entry.spans:
            if span.stage == "measuring":
                left, right = x(span.began_s), x(span.ended_s)
                shapes.append(line(left, _HEAD - 6, max(right, left + 2), _HEAD - 6, "measuring"))
        if ended - began > 20:
            shapes.append(marker(began + 9, _HEAD - 19, number, 4.5))
        if text_px(entry.name) + 24 < ended - began:
            shapes.append(text(began + 19, _HEAD - 15, entry.name, "value"))
        body.append(element("g", shapes, class_=f"s{number % SERIES}"))
    return body


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f}"


def _of(limit: float | None) -> str:
    return "" if limit is None else f", of {limit:,.0f}"
