"""The first calls of each runtime, and what batches bring."""

from __future__ import annotations

import re
from typing import Sequence

from defectd.engine.warmup import COLD_CALLS
from defectd.modelbench.figures import quantity
from defectd.modelbench.page.scales import Scale, linear, logarithmic
from defectd.modelbench.page.series import Series
from defectd.modelbench.page.svg import dash, element, figure, line, marker, polyline, text, tip, x_axis, y_axis

_WIDTH, _HEIGHT = 548, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 536, 40, 282
_DIRECTORIES = re.compile(r"(?:/[^\s/:]+)+/(?=[^\s/])")
_MANY_CALLS = 60
_MARKED_CALLS = 40


def warmups(series: Sequence[Series]) -> str:
    """Call number against ms, logarithmic. Needs at least one call of one runtime."""
    curves = [(one, one.measured.curve_ms) for one in series if one.measured.curve_ms]
    calls = max(len(curve) for _, curve in curves)
    y = logarithmic([value for _, curve in curves for value in curve], _BOTTOM, _TOP)
    x = Scale(0.9, calls * 1.03, _LEFT, _RIGHT, logarithmic=True)
    if calls <= _MANY_CALLS:
        x = Scale(0.0, calls + 0.5, _LEFT, _RIGHT)
    cold_px = x(COLD_CALLS + 0.5)
    body = [
        element("rect", x=_LEFT, y=_TOP - 4, width=cold_px - _LEFT, height=_BOTTOM - _TOP + 4, class_="cold"),
        *y_axis(y, _LEFT, _RIGHT, "ms per call (logarithmic)", about=7),
        *x_axis(x, _TOP, _BOTTOM, "call number", about=8, whole=True),
    ]
    for one, curve in curves:
        points = [(x(number), y(value)) for number, value in enumerate(curve, 1)]
        shapes = [polyline(points, "curve", dashes=dash(one.number))]
        for number, (place, value) in enumerate(zip(points, curve), 1):
            if number <= COLD_CALLS or len(curve) <= _MARKED_CALLS or number == len(curve):
                told = f"{one.entry.name}, call {number}: {quantity(value)} ms"
                shapes.append(marker(*place, one.number, 4.2 if number <= COLD_CALLS else 2.8, told))
        body.append(element("g", shapes, class_=one.class_))
    body.append(text(_LEFT + 6, _BOTTOM - 8, "cold calls" if cold_px - _LEFT > 70 else "cold", "note"))
    return figure(_WIDTH, _HEIGHT, "Warm-up: milliseconds of each of the first calls", body)


def warmup_words(one: Series) -> str:
    """For the legend."""
    warmup = one.measured.warmup
    ending = f"steady after {warmup.iterations}" if warmup.steady else f"not steady after {warmup.iterations}"
    return f"first {quantity(warmup.cold_first_call_ms)} ms; {ending} calls, {quantity(warmup.steady_p50_ms)} ms"


def throughputs(series: Sequence[Series]) -> str:
    """Batch against units per second. Needs at least one batch that ran."""
    batches = sorted({run.batch for one in series for run in one.measured.batches})
    rates = [run.units_per_s for one in series for run in one.measured.batches]
    y = linear([0.0, *(rate for rate in rates if rate is not None)], _BOTTOM, _TOP, from_zero=True)
    step = (_RIGHT - _LEFT) / len(batches)
    places = {batch: _LEFT + step * (index + 0.5) for index, batch in enumerate(batches)}
    body = [*y_axis(y, _LEFT, _RIGHT, "units per second"), line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")]
    body += [text(x, _BOTTOM + 18, str(batch), "tick", "middle") for batch, x in places.items()]
    body.append(text((_LEFT + _RIGHT) / 2, _BOTTOM + 38, "batch, units per call", "axis-title", "middle"))
    for one in series:
        ran = [(run, run.units_per_s) for run in one.measured.batches]
        points = [(places[run.batch], y(rate), run, rate) for run, rate in ran if rate is not None]
        shapes = [polyline([(px, py) for px, py, _, _ in points], "curve", dashes=dash(one.number))]
        for run in (run for run, rate in ran if rate is None):
            x = places[run.batch] + 11 * (one.number - (len(series) - 1) / 2)
            shapes.append(_stop(x, _BOTTOM - 12, f"{one.entry.name}, batch {run.batch}: {run.error}"))
        for px, py, run, rate in points:
            shapes.append(
                marker(px, py, one.number, 5, f"{one.entry.name}, batch {run.batch}: {quantity(rate)} units/s")
            )
        body.append(element("g", shapes, class_=one.class_))
    return figure(_WIDTH, _HEIGHT, "Throughput in units per second for each batch", body)


def _stop(x: float, y: float, words: str) -> str:
    """Here it ended."""
    return element("path", tip(words), d=f"M{x - 4:g},{y - 4:g}l8,8m0,-8l-8,8", class_="stop")


def throughput_words(one: Series) -> str:
    """For the legend: the best, and where it ended."""
    best = one.measured.best_batch
    ended = next((run for run in one.measured.batches if run.error), None)
    words = "no batch ran" if best is None else f"best {quantity(best.units_per_s or 0)}/s with batch {best.batch}"
    if ended is None or ended.error is None:
        return words
    return f"{words}; × batch {ended.batch}: {_DIRECTORIES.sub('', ended.error)}"
