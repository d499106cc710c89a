"""SVG as text: elements, and the parts that all figures have. Colours come from the page's CSS."""

from __future__ import annotations

from html import escape
from typing import Iterable, Sequence

from defectd.modelbench.figures import quantity
from defectd.modelbench.page.scales import Scale

SERIES = 6
"""Colours that the page's CSS has (s0, s1, …); every series has its own marker and dash, too."""
_DASHES = ("none", "7 3", "2 3", "9 3 2 3", "5 2 1 2 1 2", "12 4")
_CHARACTER_PX = 6.9
"""Of the small text, generously: fonts differ from machine to machine."""


def text_px(text: str) -> float:
    """About the width of *text*, never less than it is."""
    return _CHARACTER_PX * len(text)


def element(name: str, content: str | Iterable[str] = (), **attributes: object) -> str:
    """One element; `class_` is class, `font_size` is font-size; *content* is markup already."""
    inside = content if isinstance(content, str) else "".join(content)
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{inside}</{name}>" if inside else f"<{name}{given}/>"


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def tip(words: str) -> str:
    """What a pointer that rests on the element around it is told."""
    return element("title", escape(words))


def text(x: float, y: float, words: str, class_: str = "label", anchor: str = "start") -> str:
    """*words* with their baseline at *y*."""
    return element("text", escape(words), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str, dashes: str | None = None) -> str:
    """From one point to the other."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, stroke_dasharray=dashes)


def polyline(points: Sequence[tuple[float, float]], class_: str, dashes: str | None = None) -> str:
    """Through all *points*."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=path, class_=class_, stroke_dasharray=dashes)


def figure(width: float, height: float, title: str, body: Iterable[str]) -> str:
    """A drawing that scales with its column; *title* is for those who cannot see it."""
    return element(
        "svg", body, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title, class_="chart",
        preserveAspectRatio="xMinYMin meet",
    )  # fmt: skip


def x_axis(scale: Scale, top: float, bottom: float, title: str, about: int = 8, whole: bool = False) -> list[str]:
    """Ticks with light lines from *bottom* up to *top*, and the title with its unit under their middle; *whole* is an
    axis of numbers that count something, from 1."""
    ticks = [tick for tick in scale.ticks(about) if not whole or (tick == int(tick) and tick > 0)]
    parts = [line(scale.start, bottom, scale.end, bottom, "axis")]
    for tick in ticks:
        x = scale(tick)
        parts += [line(x, top, x, bottom, "grid"), text(x, bottom + 18, tick_text(tick, ticks), "tick", "middle")]
    return [*parts, text((scale.start + scale.end) / 2, bottom + 38, title, "axis-title", "middle")]


def y_axis(scale: Scale, left: float, right: float, title: str, about: int = 5) -> list[str]:
    """Ticks with light lines from *left* to *right*; the title with its unit lies above the axis, to be read."""
    ticks = scale.ticks(about)
    parts = [text(left, min(scale.start, scale.end) - 12, title, "axis-title")]
    for tick in ticks:
        y = scale(tick)
        parts += [line(left, y, right, y, "grid"), text(left - 8, y + 4, tick_text(tick, ticks), "tick", "end")]
    return parts


def tick_text(tick: float, ticks: Sequence[float]) -> str:
    """The same decimals on a whole linear axis; on a wide one, as many as each needs."""
    if max(ticks) >= 50 * (min((one for one in ticks if one > 0), default=1)):
        return quantity(tick) if tick < 1 else f"{tick:,.10g}"
    decimals = max((len(f"{one:.6f}".rstrip("0").partition(".")[2]) for one in ticks), default=0)
    return f"{tick:,.{decimals}f}"


def dash(series: int) -> str:
    """The line style of a series."""
    return _DASHES[series % len(_DASHES)]


def marker(x: float, y: float, series: int, size: float = 4.5, told: str = "") -> str:
    """The shape of a series: filled, in its colour; a pointer is *told* something."""
    s = size
    shapes = (
        f"M{-s},0a{s},{s} 0 1,0 {2 * s},0a{s},{s} 0 1,0 {-2 * s},0",
        f"M{-s * 0.9},{-s * 0.9}h{s * 1.8}v{s * 1.8}h{-s * 1.8}z",
        f"M0,{-s * 1.15}L{s * 1.1},{s * 0.85}H{-s * 1.1}z",
        f"M0,{-s * 1.3}L{s * 1.3},0L0,{s * 1.3}L{-s * 1.3},0z",
        f"M0,{s * 1.15}L{s * 1.1},{-s * 0.85}H{-s * 1.1}z",
        f"M{-s},{-s}L{s},{s}M{s},{-s}L{-s},{s}",
    )
    return element(
        "path",
        tip(told) if told else "",
        d=shapes[series % len(shapes)],
        transform=f"translate({x:.1f} {y:.1f})",
        class_="marker",
    )
