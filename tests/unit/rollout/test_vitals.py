from __future__ import annotations

from defectd.rollout.vitals import Vitals, vitals_of
from defectd.telemetry.sample import DeviceSample


def test_vitals_are_of_the_latest_look_at_the_machine():
    assert vitals_of(DeviceSample(at_ns=1, mem_available_mb=2048.7, hottest_c=51.3), 2) == Vitals(2048, 51.3)


def test_a_machine_that_tells_nothing_has_no_vitals():
    assert vitals_of(None, 1) == vitals_of(DeviceSample(at_ns=1), 1) == Vitals()


def test_the_worse_of_two_looks_counts():
    assert Vitals(100, None).or_worse(Vitals(200, 60.0)) == Vitals(100, 60.0)
    assert Vitals().or_worse(Vitals()) == Vitals()


def test_only_what_is_known_can_be_too_little_or_too_hot():
    assert Vitals().lacks_memory(256) is None and Vitals().is_too_hot(95) is None
    assert "100 MB" in (Vitals(100, 60.0).lacks_memory(256) or "")
    assert "96.0 °C" in (Vitals(300, 96.0).is_too_hot(95) or "")


def test_what_was_seen_long_ago_says_nothing_of_now():
    assert vitals_of(DeviceSample(at_ns=0, mem_available_mb=2048.0), 31 * 10**9) == Vitals()
