"""Samples in, figures out."""

from __future__ import annotations

import pytest

from defectd.bench.figures import Latency, Timing, at_least, at_most, median, percentile, rate_hz


def test_a_percentile_is_one_of_the_samples() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0


def test_the_highest_percentile_is_the_largest_sample_and_the_lowest_the_smallest() -> None:
    assert percentile([3.0, 1.0, 2.0], 1.0) == 3.0
    assert percentile([3.0, 1.0, 2.0], 0.0) == 1.0


@pytest.mark.parametrize("figure", [median, lambda samples: percentile(samples, 0.5)])
def test_nothing_measured_is_an_error_and_not_a_zero(figure: object) -> None:
    with pytest.raises(ValueError, match="no samples"):
        figure([])  # type: ignore[operator]


def test_one_slow_round_moves_the_p99_but_not_the_p50() -> None:
    latency = Latency.of([[10.0] * 40, [10.0] * 40, [90.0] * 40])
    assert (latency.p50_ms, latency.p99_ms, latency.samples) == (10.0, 90.0, 120)


def test_a_rate_is_counted_between_moments_and_leaves_out_the_beginning() -> None:
    assert rate_hz([10.0, 10.5, 11.0]) == 2.0
    assert rate_hz([0.0, 10.0, 10.5, 11.0], skip=1) == 2.0
    with pytest.raises(ValueError, match="two moments"):
        rate_hz([1.0])


def test_what_no_stage_accounts_for_is_the_rest_of_the_whole() -> None:
    timing = Timing(queue_ms=0.5, preprocess_ms=1.0, inference_ms=11.0, postprocess_ms=0.5, capture_to_verdict_ms=14.0)
    assert timing.elsewhere_ms == 1.0


def test_a_target_is_judged_by_the_median_of_its_rounds() -> None:
    assert at_most("latency", [1.1, 1.2, 9.9], 1.2).met
    assert not at_most("latency", [1.1, 1.21, 1.3], 1.2).met
    assert at_least("rate", [0.1, 0.8, 0.9], 0.8).met
    assert not at_least("rate", [0.1, 0.79, 0.9], 0.8).met
