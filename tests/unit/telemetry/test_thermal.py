"""The levels over scripted and random heat, and in a loop with a machine that gets cooler when it does less."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectd.clock import NS_PER_S
from defectd.errors import SettingsError
from defectd.telemetry.thermal import Level, ThermalLimits, ThermalPolicy, sustainable_rate_hz

ENTER_C = {Level.WARN: 85.0, Level.SHED: 90.0, Level.SLOW: 94.0, Level.ALARM: 98.0}
HEAT = st.lists(st.tuples(st.floats(0.2, 30), st.floats(20, 110), st.booleans()), max_size=80)


def levels(heat_c, throttled=lambda second: False):
    """One sample per second."""
    policy = ThermalPolicy()
    return [policy.update(one_c, throttled(second), second * NS_PER_S) for second, one_c in enumerate(heat_c)]


def count_changes(seen):
    return sum(after != before for before, after in zip(seen, seen[1:]))


# -- up ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heat_c", "level"),
    [(84.9, "normal"), (85, "warn"), (89.9, "warn"), (90, "shed"), (94, "slow"), (97.9, "slow"), (98, "alarm")],
)
def test_a_level_begins_at_its_limit_and_at_once(heat_c, level):
    assert levels([heat_c])[0].word == level


def test_a_slow_heat_up_goes_through_every_level():
    seen = levels([60 + second / 2 for second in range(90)])
    assert [level.word for level in dict.fromkeys(seen)] == ["normal", "warn", "shed", "slow", "alarm"]


# -- down -------------------------------------------------------------------------------------------------------------


def test_a_level_is_left_three_degrees_below_its_limit_after_ten_seconds():
    assert set(levels([86.0, *[82.1] * 100])) == {Level.WARN}
    cooled = levels([86.0, *[82.0] * 12])
    assert [int(level) for level in cooled] == [1] * 11 + [0] * 2


def test_the_ten_seconds_begin_anew_when_it_is_warmer_in_between():
    assert set(levels([86.0, *[80.0] * 9, 83.0, *[80.0] * 9])) == {Level.WARN}


def test_from_the_alarm_it_goes_down_one_level_per_sample():
    assert [int(level) for level in levels([99.0, *[50.0] * 15])][10:] == [4, 3, 2, 1, 0, 0]


def test_a_relapse_doubles_the_time_that_it_must_be_cooler():
    heat_c = [86.0, *[80.0] * 12, 86.0, *[80.0] * 30]
    seen = [int(level) for level in levels(heat_c)]
    assert seen[11:13] == [0, 0]
    assert seen[13:34] == [1] * 21
    assert seen[34] == 0


def test_after_ten_minutes_without_a_relapse_ten_seconds_are_enough_again():
    heat_c = [86.0, *[80.0] * 12, 86.0, *[80.0] * 630, 86.0, *[80.0] * 12]
    seen = [int(level) for level in levels(heat_c)]
    assert seen[-13:] == [1] * 11 + [0] * 2


# -- throttling, and no temperature -----------------------------------------------------------------------------------


def test_thirty_seconds_of_throttling_are_as_good_as_heat():
    seen = levels([70.0] * 60, throttled=lambda second: 5 <= second < 40)
    assert seen.index(Level.SLOW) == 35
    assert [int(level) for level in seen[35:]] == [3] * 15 + [2, 1, 0, *[0] * 7]


def test_throttling_of_less_than_thirty_seconds_changes_nothing():
    assert set(levels([70.0] * 60, throttled=lambda second: second % 30 != 0)) == {Level.NORMAL}


def test_throttling_does_not_hide_an_alarm():
    assert levels([99.0] * 60, throttled=lambda second: True)[-1] == Level.ALARM


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_a_machine_that_no_longer_tells_its_heat_is_not_called_cool(unknown):
    assert set(levels([91.0, *[unknown] * 600])) == {Level.SHED}


def test_a_machine_that_never_told_its_heat_is_normal_and_may_still_throttle():
    assert set(levels([None] * 60)) == {Level.NORMAL}
    seen = levels([None] * 90, throttled=lambda second: second < 40)
    assert (seen[30], seen[-1]) == (Level.SLOW, Level.NORMAL)


# -- always -----------------------------------------------------------------------------------------------------------


@given(HEAT)
def test_it_is_never_below_what_the_heat_demands_and_goes_down_one_level_at_a_time(script):
    policy, now_s, before = ThermalPolicy(), 0.0, Level.NORMAL
    for step_s, heat_c, throttled in script:
        now_s += step_s
        level = policy.update(heat_c, throttled, round(now_s * NS_PER_S))
        assert level >= max((one for one, enter_c in ENTER_C.items() if heat_c >= enter_c), default=Level.NORMAL)
        assert level >= before - 1
        before = level


@given(HEAT)
def test_a_level_is_left_only_after_ten_seconds_below_its_limit(script):
    policy, now_s, before, warm_s = ThermalPolicy(), 0.0, Level.NORMAL, dict.fromkeys(ENTER_C, -math.inf)
    for step_s, heat_c, _ in script:
        now_s += step_s
        warm_s.update((one, now_s) for one, enter_c in ENTER_C.items() if heat_c > enter_c - 3)
        level = policy.update(heat_c, False, round(now_s * NS_PER_S))
        if level < before:
            assert now_s - warm_s[before] >= 10 - 1e-6
        before = level


@given(st.floats(60, 105), st.lists(st.floats(-1.49, 1.49), min_size=300, max_size=300))
def test_noise_of_less_than_three_degrees_never_makes_it_go_down(centre_c, noise_c):
    seen = levels([centre_c + one_c for one_c in noise_c])
    assert seen == sorted(seen)


@given(st.floats(3, 120), st.floats(4, 25))
def test_heat_that_swings_for_an_hour_makes_a_level_change_seldom(period_s, amplitude_c):
    heat_c = [90 + amplitude_c * math.sin(2 * math.pi * second / period_s) for second in range(3600)]
    assert (
        count_changes(levels(heat_c)) <= 4 * 7
    )  # each level is left after 10, 20 and 40 s of a half swing, and never again


@settings(max_examples=30)
@given(
    ambient_c=st.floats(20, 60), rise_c=st.floats(10, 70), shed_saves=st.floats(0.05, 0.5),
    slow_saves=st.floats(0.05, 0.5), inertia_s=st.floats(3, 300),
)  # fmt: skip
def test_it_does_not_oscillate_with_a_machine_that_cools_when_it_does_less(
    ambient_c, rise_c, shed_saves, slow_saves, inertia_s
):
    policy, heat_c, seen = ThermalPolicy(), ambient_c, []
    for second in range(2 * 3600):
        level = policy.update(heat_c, heat_c >= 99, second * NS_PER_S)
        seen.append(level)
        load = (1 - shed_saves * (level >= Level.SHED)) * (1 - slow_saves * (level >= Level.SLOW))
        heat_c += (ambient_c + rise_c * load - heat_c) / inertia_s
    assert count_changes(seen[3600:]) <= 4 * 2 * 6  # in the second hour, each level up and down once in ten minutes


# -- limits -----------------------------------------------------------------------------------------------------------


def test_limits_that_contradict_each_other_are_all_named():
    with pytest.raises(SettingsError) as caught:
        ThermalLimits(warn_c=90, shed_c=90, leave_after_s=0)
    assert caught.value.problems == [
        "thermal.leave_after_s: expected more than 0, got 0",
        "thermal: warn_c, shed_c, slow_c and alarm_c must rise in this order, got 90, 90, 94, 98",
    ]


def test_other_limits_are_kept():
    policy = ThermalPolicy(ThermalLimits(warn_c=60, shed_c=61, slow_c=62, alarm_c=63))
    assert policy.update(62.5, False, 0) == Level.SLOW


# -- the rate ---------------------------------------------------------------------------------------------------------


def test_an_engine_that_is_too_slow_for_the_line_asks_for_what_it_can_do():
    assert sustainable_rate_hz(p99_ms=400, current_rate_hz=4) == pytest.approx(2.0)
    assert sustainable_rate_hz(p99_ms=400, current_rate_hz=4, lanes=2) == pytest.approx(3.0)


def test_an_engine_with_time_to_spare_still_asks_for_less_heat():
    assert sustainable_rate_hz(p99_ms=20, current_rate_hz=4) == pytest.approx(3.0)


def test_a_line_that_stands_still_is_told_what_the_engine_can_do():
    assert sustainable_rate_hz(p99_ms=100, current_rate_hz=0) == pytest.approx(8.0)


def test_of_nothing_no_rate_is_made_up():
    assert sustainable_rate_hz(None, None) is None
    assert sustainable_rate_hz(0, 0) is None


@given(st.floats(0.1, 1e5), st.floats(0.01, 100))
def test_the_rate_is_above_zero_and_clearly_below_the_present_one(p99_ms, current_rate_hz):
    rate_hz = sustainable_rate_hz(p99_ms, current_rate_hz)
    assert 0 < rate_hz <= 0.75 * current_rate_hz
    assert rate_hz * p99_ms <= 800 * (1 + 1e-9)
