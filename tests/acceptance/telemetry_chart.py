"""The heat of a run, what was done about it, and what the line felt: four panels over one axis of time, as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Iterable, Sequence, Tuple

from defectd.modelbench.page.scales import Scale
from defectd.modelbench.page.svg import element, line, polyline, text, x_axis, y_axis

Point = Tuple[float, float]

LEVELS = ("normal", "warn", "shed", "slow", "alarm")
_WIDTH, _LEFT, _RIGHT = 1100.0, 70.0, 1080.0
_STYLE = """
text { font: 13px sans-serif; fill: #333 } .title { font-size: 17px; font-weight: bold } .tick { font-size: 12px }
.axis { stroke: #555 } .grid { stroke: #e4e4e4 } polyline { fill: none; stroke-width: 1.6 }
.limit { stroke: #c33; stroke-dasharray: 5 4 } .limit-name { fill: #c33; font-size: 12px }
.s0 { stroke: #999 } .s1 { stroke: #c33 } .s2 { stroke: #0a6cb0 } .s3 { stroke: #b35c00 }
circle.s1 { fill: #c33; stroke: none } circle.s2 { fill: #0a6cb0; stroke: none } circle.s4 { fill: #446; stroke: none }
.held { fill: #e8653a; opacity: 0.22 } .shed { fill: #2f6db5; opacity: 0.15 }
"""


@dataclass(frozen=True)
class Span:
    """From when to when the machine was held back, or shed what is optional (class "held" or "shed")."""

    begin_s: float
    end_s: float
    class_: str
    name: str


@dataclass(frozen=True)
class Run:
    """All in seconds since its begin."""

    title: str
    scripted_c: Sequence[Point]
    told_c: Sequence[Point]
    scraped_c: Sequence[Point]
    limits_c: Sequence[tuple[str, float]]
    levels: Sequence[tuple[float, str]]
    clock_mhz: Sequence[Point]
    clock_limit_mhz: Sequence[Point]
    units_ms: Sequence[Point]
    p99_ms: Sequence[Point]
    spans: Sequence[Span]


def write_chart(path: Path, run: Run) -> None:
    """Draw *run*."""
    end_s = max(at_s for at_s, _ in run.told_c)
    time = Scale(0.0, end_s, _LEFT, _RIGHT)
    panels = [
        _panel(time, 60.0, 250.0, "hottest zone, °C: script (grey), tele/device (red), scraped by Prometheus (blue)",
               Scale(55.0, 103.0, 250.0, 60.0), run.spans, _heat(time, Scale(55.0, 103.0, 250.0, 60.0), run)),
        _levels(time, run),
        _panel(time, 430.0, 530.0, "GPU clock, MHz: as told (blue), the limit in force (orange)",
               Scale(0.0, 1500.0, 530.0, 430.0), run.spans, _clock(time, Scale(0.0, 1500.0, 530.0, 430.0), run)),
        _latency(time, run),
    ]  # fmt: skip
    body = [
        element("style", _STYLE),
        element("rect", width=_WIDTH, height=790, fill="#fff"),
        text(_LEFT, 24, run.title, "title"),
        *x_axis(time, 60.0, 730.0, "seconds since the begin", about=12),
        *(part for panel in panels for part in panel),
    ]
    markup = element("svg", body, xmlns="http://www.w3.org/2000/svg", width=_WIDTH, height=790)
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n{markup}\n', encoding="utf-8")


def _panel(
    time: Scale, top: float, bottom: float, title: str, scale: Scale, spans: Iterable[Span], content: Iterable[str]
) -> list[str]:
    shades = [
        element(
            "rect", element("title", escape(span.name)), x=time(span.begin_s), y=top,
            width=time(span.end_s) - time(span.begin_s), height=bottom - top, class_=span.class_,
        )
        for span in spans
    ]  # fmt: skip
    return [*shades, *y_axis(scale, _LEFT, _RIGHT, title), *content]


def _heat(time: Scale, scale: Scale, run: Run) -> list[str]:
    parts = [_line(time, scale, run.scripted_c, "s0")]
    for name, celsius in run.limits_c:
        parts += [line(_LEFT, scale(celsius), _RIGHT, scale(celsius), "limit")]
        parts += [text(_RIGHT, scale(celsius) - 3, name, "limit-name", "end")]
    parts += _dots(time, scale, run.scraped_c, "s2", 1.8)
    return [*parts, *_dots(time, scale, run.told_c, "s1", 2.2)]


def _levels(time: Scale, run: Run) -> list[str]:
    scale = Scale(0.0, 4.0, 390.0, 300.0)
    parts = [text(_LEFT, 288, "thermal level", "axis-title")]
    for number, name in enumerate(LEVELS):
        parts += [line(_LEFT, scale(number), _RIGHT, scale(number), "grid")]
        parts += [text(_LEFT - 8, scale(number) + 4, name, "tick", "end")]
    steps = [(at_s, float(LEVELS.index(level))) for at_s, level in run.levels]
    return [*parts, _line(time, scale, _stairs(steps), "s1")]


def _clock(time: Scale, scale: Scale, run: Run) -> list[str]:
    limit = _line(time, scale, _stairs(run.clock_limit_mhz), "s3")
    return [limit, _line(time, scale, _stairs(run.clock_mhz), "s2")]


def _latency(time: Scale, run: Run) -> list[str]:
    most_ms = max(ms for _, ms in run.units_ms) * 1.05
    scale = Scale(0.0, most_ms, 730.0, 570.0)
    title = "capture to verdict, ms: each unit (dots), p99 of a minute as tele/device tells it (red)"
    content = [*_dots(time, scale, run.units_ms, "s4", 1.6), _line(time, scale, _stairs(run.p99_ms), "s1")]
    return _panel(time, 570.0, 730.0, title, scale, run.spans, content)


def _stairs(points: Sequence[Point]) -> list[Point]:
    """What holds until the next one is told."""
    corners = []
    for (_, before), (at_s, value) in zip(points, points[1:]):
        corners += [(at_s, before), (at_s, value)]
    return [*points[:1], *corners]


def _line(time: Scale, scale: Scale, points: Iterable[Point], class_: str) -> str:
    return polyline([(time(at_s), scale(value)) for at_s, value in points], class_)


def _dots(time: Scale, scale: Scale, points: Iterable[Point], class_: str, radius: float) -> list[str]:
    return [element("circle", cx=time(at_s), cy=scale(value), r=radius, class_=class_) for at_s, value in points]
