"""How long one inspection takes: a histogram per runtime on one axis, every call as a tick below it."""

from __future__ import annotations

from typing import Iterator, Sequence

from defectd.engine.choice import percentile
from defectd.modelbench.figures import quantity
from defectd.modelbench.page.scales import Scale, bin_edges, histogram, linear, logarithmic, spread
from defectd.modelbench.page.series import Series
from defectd.modelbench.page.svg import element, figure, line, marker, polyline, text, text_px, tip, x_axis

_WIDTH, _LEFT, _RIGHT = 1120, 206, 1104
_LANE, _BARS, _RUG, _GAP = 26, 54, 12, 20
_ROW = _LANE + _BARS + _RUG + _GAP
_WIDE_RATIO = 6
_BIN_PX = 6


def distributions(series: Sequence[Series]) -> str:
    """The figure, from one runtime upwards."""
    scale = shared_scale([one.measured.latency_ms for one in series], _LEFT, _RIGHT)
    bottom = len(series) * _ROW
    title = "whole inference, pixels to boxes, ms" + (" (logarithmic)" if scale.logarithmic else "")
    body = x_axis(scale, 4, bottom, title, about=12)
    for index, one in enumerate(series):
        body += _row(one, scale, index * _ROW)
    words = ", ".join(f"{one.entry.name} p50 {quantity(one.measured.latency.p50_ms)} ms" for one in series)
    return figure(_WIDTH, bottom + 46, f"Latency distributions: {words}", body)


def shared_scale(rows_ms: Sequence[Sequence[float]], start: float, end: float) -> Scale:
    """From the fastest call to the slowest of the slowest runtime's 99 %: the few beyond would squeeze the rest into
    a corner, unless they are near. Logarithmic if runtimes differ widely."""
    low = min(min(row) for row in rows_ms)
    high = max(sorted(row)[max(0, -(-len(row) * 99 // 100) - 1)] for row in rows_ms)
    longest = max(max(row) for row in rows_ms)
    if longest <= high + 0.5 * (high - low):
        high = longest
    if low > 0 and high / low > _WIDE_RATIO:
        return logarithmic([low, high], start, end)
    return linear([low, high * 1.01], start, end)


def _row(one: Series, scale: Scale, top: float) -> list[str]:
    base = top + _LANE + _BARS
    body = [
        marker(9, base - _BARS + 9, one.number, 5.5),
        text(22, base - _BARS + 14, one.entry.name, "row-name"),
        *(text(22, base - _BARS + 32 + 17 * index, words, "note") for index, words in enumerate(_notes(one))),
        *_bars(one, scale, base),
        line(scale.start, base, scale.end, base, "baseline"),
        element("g", [_tick(sample, scale, base) for sample in one.measured.latency_ms if sample <= scale.high]),
    ]
    beyond = [sample for sample in one.measured.latency_ms if sample > scale.high]
    reserved = 0.0
    if beyond:
        words = f"{len(beyond)} beyond, longest {quantity(max(beyond))} →"
        reserved = text_px(words) + 12
        body.append(text(scale.end, top + 15, words, "note", "end"))
    body += _percentiles(one, scale, top, base, scale.end - reserved)
    return [element("g", body, class_=one.class_)]


def _notes(one: Series) -> Iterator[str]:
    refused = ", refused" if one.entry.verdict.kind == "refused" else ""
    yield f"{len(one.measured.latency_ms)} calls{refused}"
    if one.measured.inference_ms:
        yield f"network alone p50 {quantity(percentile(one.measured.inference_ms, 0.5))}"


def _bars(one: Series, scale: Scale, base: float) -> list[str]:
    edges = bin_edges(scale, _BIN_PX)
    counts = histogram(one.measured.latency_ms, edges)
    unit = (_BARS - 4) / max(1, *counts)
    return [
        element(
            "rect",
            tip(f"{count} calls of {quantity(low)} to {quantity(high)} ms"),
            x=scale(low) + 0.4, width=scale(high) - scale(low) - 0.8, y=base - count * unit, height=count * unit,
            class_="bar",
        )
        for low, high, count in zip(edges, edges[1:], counts)
        if count
    ]  # fmt: skip


def _tick(sample_ms: float, scale: Scale, base: float) -> str:
    x = round(scale(sample_ms), 1)
    return line(x, base + 2, x, base + _RUG, "rug")


def _percentiles(one: Series, scale: Scale, top: float, base: float, room: float) -> list[str]:
    latency = one.measured.latency
    marks = [("p50", latency.p50_ms), ("p95", latency.p95_ms), ("p99", latency.p99_ms)]
    labels = [f"{name} {quantity(value)}" for name, value in marks]
    wanted = [scale(value) for _, value in marks]
    places = spread(wanted, [text_px(label) for label in labels], 10, scale.start, room)
    body = []
    for (name, _), label, x, place in zip(marks, labels, wanted, places):
        elbow = [(place, top + 19), (x, top + _LANE), (x, base)]
        body += [
            polyline(elbow, f"mark {name}"),
            text(place, top + 15, label, "value strong" if name == "p50" else "value", "middle"),
        ]
    return body
