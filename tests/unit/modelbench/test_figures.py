"""Samples in, figures and their text out."""

from __future__ import annotations

import pytest

from defectd.modelbench.figures import Latency, column, quantity, times, units_per_s


def test_percentiles_are_samples_and_the_rate_is_of_calls_back_to_back() -> None:
    latency = Latency.of([float(n) for n in range(1, 101)])
    assert (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.longest_ms) == (51.0, 96.0, 100.0, 100.0)
    assert latency.units_per_s == pytest.approx(1000 / 50.5)


def test_a_batch_counts_every_unit_in_it() -> None:
    assert units_per_s(4, [10.0, 30.0]) == 200.0
    with pytest.raises(ValueError, match="no samples"):
        units_per_s(4, [])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.012"),
        (0.412, "0.412"),
        (8.314, "8.31"),
        (14.24, "14.2"),
        (220.4, "220"),
        (1028.2, "1,028"),
    ],
)
def test_three_digits_count(value: float, text: str) -> None:
    assert quantity(value) == text


def test_a_column_has_as_many_decimals_as_its_smallest_value_needs() -> None:
    assert column([41.7, 3.104, None]) == ["41.70", "3.10", "–"]
    assert column([612.4, 1822.0]) == ["612", "1,822"]
    assert column([None]) == ["–"]


def test_ratios_read_like_ratios() -> None:
    assert (times(1.844), times(12.4)) == ("1.84×", "12×")
