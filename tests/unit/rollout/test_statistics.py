"""What a count proves: against enumeration, and against the equations that define it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.rollout.statistics import (
    Latencies,
    Pairs,
    chance_difference,
    mcnemar_mid_p,
    permille,
    wilson,
)

SHARES = st.tuples(st.integers(0, 2000), st.integers(1, 2000)).map(lambda pair: (min(pair), max(pair)))


def enumerated_mid_p(one, other):
    """By all outcomes of so many fair coins: the rarer ones on both sides, and half of those as rare as this one."""
    trials, distance = one + other, abs(one - other)
    total = Fraction(0)
    for heads in range(trials + 1):
        ways = Fraction(math.factorial(trials), math.factorial(heads) * math.factorial(trials - heads) * 2**trials)
        if abs(2 * heads - trials) > distance:
            total += ways
        elif abs(2 * heads - trials) == distance:
            total += ways / 2
    return total if distance else Fraction(1)


# -- Wilson's interval -----------------------------------------------------------------------------------------------


@given(SHARES, st.floats(0.5, 5))
def test_the_bounds_are_where_the_observed_share_is_so_many_sigma_away(counts, z):
    hits, trials = counts
    for bound in wilson(hits, trials, z):
        sigma = math.sqrt(bound * (1 - bound) / trials)
        assert abs(hits / trials - bound) == pytest.approx(z * sigma, abs=1e-9)


@given(SHARES)
def test_the_interval_holds_the_share_and_stays_within_0_and_1(counts):
    hits, trials = counts
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1


@given(SHARES)
def test_hits_and_misses_mirror_each_other(counts):
    hits, trials = counts
    low, high = wilson(hits, trials)
    assert wilson(trials - hits, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_the_interval_is_that_of_newcombes_paper():
    """Newcombe 1998, table I, method 3."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_without_trials_everything_is_possible():
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(("hits", "trials"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_a_mistake_of_the_caller(hits, trials):
    with pytest.raises(ValueError, match="expected 0 <= hits <= trials"):
        wilson(hits, trials)


# -- McNemar's test --------------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_p_is_that_of_enumeration(one, other):
    assert mcnemar_mid_p(one, other) == pytest.approx(float(enumerated_mid_p(one, other)), rel=1e-9)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_p_is_a_probability_and_does_not_care_for_the_order(one, other):
    assert 0 <= mcnemar_mid_p(one, other) <= 1
    assert mcnemar_mid_p(one, other) == mcnemar_mid_p(other, one)


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_wider_gap_is_less_likely(few, gap):
    assert mcnemar_mid_p(few, few + gap + 1) <= mcnemar_mid_p(few, few + gap) + 1e-12


def test_a_million_pairs_are_as_close_to_the_normal_distribution_as_they_should_be():
    one, other = 500_000, 502_000
    normal = math.erfc(abs(one - other) / math.sqrt(one + other) / math.sqrt(2))
    assert mcnemar_mid_p(one, other) == pytest.approx(normal, rel=1e-3)
    assert mcnemar_mid_p(0, 1_000_000) == 0
    assert mcnemar_mid_p(500_000, 500_000) == pytest.approx(1)


def test_a_negative_count_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="expected counts"):
        mcnemar_mid_p(-1, 3)


# -- two shares ------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.integers(1, 10_000), st.floats(0, 1), st.integers(1, 10_000))
def test_the_chance_difference_does_not_care_which_share_came_first(first, first_trials, second, second_trials):
    assert chance_difference(first, first_trials, second, second_trials, 3) == pytest.approx(
        chance_difference(second, second_trials, first, first_trials, 3)
    )


def test_the_chance_difference_is_three_standard_errors_and_a_step():
    sigma = math.sqrt(0.02 * 0.98 * (1 / 1000 + 1 / 4000))
    assert chance_difference(0.02, 1000, 0.02, 4000, 3) == pytest.approx(3 * sigma + 0.000625)


def test_one_hit_in_a_hundred_after_none_in_a_thousand_may_be_chance():
    assert chance_difference(0.0, 1000, 0.01, 100, 3) > 0.01


def test_ten_hits_in_a_hundred_after_none_in_a_thousand_are_no_chance():
    assert chance_difference(0.0, 1000, 0.1, 100, 3) < 0.1


def test_shares_of_nothing_cannot_be_compared():
    with pytest.raises(ValueError, match="expected trials"):
        chance_difference(0.0, 0, 0.1, 100, 3)


# -- tables and samples ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200))
def test_the_four_fields_add_up(verdicts):
    pairs = Pairs()
    for served_fails, candidate_fails in verdicts:
        pairs.add(served_fails, candidate_fails)
    numbers = pairs.numbers()
    fields = ("both_passed", "both_failed", "only_candidate_failed", "only_served_failed")
    assert sum(numbers[field] for field in fields) == numbers["units"] == len(verdicts)
    assert numbers["only_candidate_failed"] == verdicts.count((False, True)) == pairs.stricter
    assert numbers["only_served_failed"] == verdicts.count((True, False)) == pairs.milder


def test_a_disagreement_is_proven_from_thirty_pairs_on():
    pairs = Pairs()
    for _ in range(29):
        pairs.add(served_fails=False, candidate_fails=True)
    assert not pairs.prove_disagreement_above(0.02)
    pairs.add(served_fails=False, candidate_fails=True)
    assert pairs.prove_disagreement_above(0.02)


def test_the_last_five_thousand_samples_are_kept():
    latencies = Latencies([100.0] * 5000)
    assert latencies.p99_ms == 100
    for _ in range(4999):
        latencies.add(10.0)
    assert (len(latencies), latencies.p99_ms, latencies.above(50)) == (5000, 10, 1)


def test_of_a_few_samples_the_median_is_telling():
    assert Latencies([10.0] * 98 + [500.0]).telling_ms == 10
    assert Latencies([10.0] * 98 + [500.0] * 2).telling_ms == 500


def test_without_samples_there_is_no_percentile():
    empty = Latencies()
    assert math.isnan(empty.p99_ms)
    assert math.isnan(empty.telling_ms)
    assert empty.rounded_p99_ms() is None
    assert not empty.prove_p99_above(0)


@pytest.mark.parametrize(
    ("slow", "samples", "proven"),
    [(50, 99, False), (2, 100, False), (3, 100, True), (8, 500, False), (11, 500, True),
     (9, 1000, False), (10, 1000, True)],
)  # fmt: skip
def test_a_p99_is_proven_too_high_by_more_slow_samples_than_chance_allows(slow, samples, proven):
    latencies = Latencies([10.0] * (samples - slow) + [30.0] * slow)
    assert latencies.prove_p99_above(20) is proven


def test_permille_of_nothing_is_unknown():
    assert permille(0, 0) is None
    assert permille(33, 300) == 110
