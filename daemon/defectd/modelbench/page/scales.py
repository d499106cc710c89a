"""From values to places on paper: scales, their ticks, and labels that leave each other room. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence


@dataclass(frozen=True)
class Scale:
    """Values *low*..*high* on *start*..*end* (px); logarithmic if asked to, then both are positive."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of *value*; outside the scale, its nearer end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 6) -> list[float]:
        """Round values on the scale, *about* as many as wanted."""
        ticks = log_ticks(self.low, self.high, about) if self.logarithmic else []
        return ticks if len(ticks) >= 2 else linear_ticks(self.low, self.high, about)


def linear(values: Sequence[float], start: float, end: float, from_zero: bool = False) -> Scale:
    """A scale with a little air around *values*; one value alone gets some, too."""
    low, high = min(values), max(values)
    air = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return Scale(0.0 if from_zero else max(0.0, low - air), high + air, start, end)


def logarithmic(values: Sequence[float], start: float, end: float) -> Scale:
    """Like `linear`, for positive *values*; others are left out."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    air = max((high / low) ** 0.05, 1.08)
    return Scale(low / air, high * air, start, end, logarithmic=True)


def linear_ticks(low: float, high: float, about: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten."""
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float, about: int) -> list[float]:
    """1, 2, 5, 10, … or, where those are too many, powers of ten."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) <= about:
            break
    return ticks


def spread(centres: Sequence[float], sizes: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Centres for labels of *sizes* near their wanted *centres* (ascending), in order, *gap* apart, in low..high.

    Groups that touch are centred on what they want (pool adjacent violators), so nothing is pushed further than
    needed. If all together do not fit, they begin at *low*.
    """
    groups: list[tuple[list[int], float, float]] = []  # members, total size, centre
    for index, (centre, size) in enumerate(zip(centres, sizes)):
        groups.append(([index], size, _within(centre, size, low, high)))
        while len(groups) > 1 and groups[-2][2] + groups[-2][1] / 2 + gap > groups[-1][2] - groups[-1][1] / 2:
            members = groups[-2][0] + groups[-1][0]
            total = groups[-2][1] + gap + groups[-1][1]
            wanted, offset = [], -total / 2
            for member in members:
                wanted.append(centres[member] - (offset + sizes[member] / 2))
                offset += sizes[member] + gap
            groups[-2:] = [(members, total, _within(sum(wanted) / len(wanted), total, low, high))]
    places = [0.0] * len(centres)
    for members, total, centre in groups:
        edge = centre - total / 2
        for member in members:
            places[member] = edge + sizes[member] / 2
            edge += sizes[member] + gap
    return places


def _within(centre: float, size: float, low: float, high: float) -> float:
    return max(low + size / 2, min(centre, high - size / 2))


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many *values* lie in each bin between consecutive *edges*; outside ones in none."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        if edges[0] <= value <= edges[-1]:
            low, high = 0, len(counts) - 1
            while low < high:
                middle = (low + high) // 2
                low, high = (middle + 1, high) if value >= edges[middle + 1] else (low, middle)
            counts[low] += 1
    return counts


def bin_edges(scale: Scale, width_px: float) -> list[float]:
    """Edges of bins that are about *width_px* wide on paper."""
    bins = max(1, round(abs(scale.end - scale.start) / width_px))
    if scale.logarithmic:
        return [scale.low * (scale.high / scale.low) ** (index / bins) for index in range(bins + 1)]
    return [scale.low + (scale.high - scale.low) * index / bins for index in range(bins + 1)]
