"""When throttling begins and ends, from scripted samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.clock import NS_PER_S
from defectd.telemetry.sample import DeviceSample, Frequency, ThrottleSigns
from defectd.telemetry.throttle import CAUSES, Throttling

SIGNS = st.builds(
    ThrottleSigns,
    alerts=st.sampled_from([(), ("gpu",), ("gpu", "cpu")]),
    oc_events=st.dictionaries(st.sampled_from(["oc1", "oc3"]), st.integers(0, 50)),
    capped=st.sampled_from([(), ("cpu",)]),
    crit_alarms=st.sampled_from([(), ("VDD_IN",)]),
)


def at(second, **signs):
    return DeviceSample(at_ns=round(second * NS_PER_S), throttle=ThrottleSigns(**signs))


def changes(samples):
    throttling = Throttling()
    return [change for sample in samples for change in throttling.update(sample)]


def outline(samples):
    return [(change.kind, change.cause, change.domains, change.lasted_s) for change in changes(samples)]


def test_a_quiet_machine_says_nothing():
    throttling = Throttling()
    assert [throttling.update(at(second, oc_events={"oc1": 7})) for second in range(20)] == [[]] * 20
    assert not throttling.active


@pytest.mark.parametrize(
    ("cause", "signs", "domains"),
    [
        ("thermal_alert", {"alerts": ("gpu", "cpu")}, ("gpu", "cpu")),
        ("capped", {"capped": ("gpu",)}, ("gpu",)),
        ("crit_alarm", {"crit_alarms": ("VDD_IN",)}, ("VDD_IN",)),
    ],
)
def test_a_sign_of_twelve_seconds_is_one_episode_of_twelve_seconds(cause, signs, domains):
    samples = [at(0), *(at(second, **signs) for second in range(1, 13)), *(at(second) for second in range(13, 30))]
    assert outline(samples) == [("begin", cause, domains, None), ("end", cause, domains, 12.0)]


def test_the_end_is_said_when_the_sign_is_gone_for_five_seconds_and_not_before():
    throttling = Throttling()
    throttling.update(at(0, alerts=("gpu",)))
    assert throttling.update(at(1)) == []
    assert throttling.update(at(5.9)) == []
    assert throttling.active
    (end,) = throttling.update(at(6))
    assert (end.kind, end.lasted_s) == ("end", 1.0)
    assert not throttling.active


def test_a_sign_that_flickers_is_one_episode():
    flicker = [at(second, alerts=("gpu",) if second % 4 == 0 else ()) for second in range(41)]
    assert outline([*flicker, *(at(second) for second in range(41, 50))]) == [
        ("begin", "thermal_alert", ("gpu",), None),
        ("end", "thermal_alert", ("gpu",), 41.0),
    ]


def test_the_end_names_every_domain_that_joined_in():
    *_, end = outline([at(0, alerts=("gpu",)), at(1, alerts=("cpu",)), at(2), at(7)])
    assert end == ("end", "thermal_alert", ("gpu", "cpu"), 2.0)


def test_a_counter_counts_only_by_what_it_gained():
    samples = [at(0, oc_events={"oc3": 27_390}), at(1, oc_events={"oc3": 27_390}), at(2, oc_events={"oc3": 27_400})]
    (begin,) = changes(samples)
    assert (begin.cause, begin.domains) == ("over_current", ("oc3",))
    assert "10 x instantaneous over-current (oc3)" in begin.detail


def test_the_end_of_an_over_current_says_how_often_it_happened():
    counts = [0, 2, 5, *[5] * 8]
    *_, end = changes(at(second, oc_events={"oc1": count}) for second, count in enumerate(counts))
    assert (end.kind, end.lasted_s) == ("end", 2.0)
    assert end.detail == "no more over-current after 2.0 s: 5 x under-voltage (oc1)"


def test_a_counter_that_fell_begins_anew():
    assert outline([at(0, oc_events={"oc1": 90}), at(1, oc_events={"oc1": 0}), at(2, oc_events={"oc1": 0})]) == []
    assert outline([at(0, oc_events={"oc1": 90}), at(1, oc_events={"oc1": 0}), at(2, oc_events={"oc1": 1})]) == [
        ("begin", "over_current", ("oc1",), None)
    ]


def test_a_counter_that_cannot_be_read_for_a_while_loses_nothing():
    assert outline([at(0, oc_events={"oc1": 4}), at(1), at(2, oc_events={"oc1": 4})]) == []
    assert len(outline([at(0, oc_events={"oc1": 4}), at(1), at(2, oc_events={"oc1": 5})])) == 1


def test_two_causes_are_two_episodes_and_the_best_evidence_is_told_first():
    throttling = Throttling()
    begun = throttling.update(at(0, capped=("cpu",), alerts=("gpu",)))
    assert [change.cause for change in begun] == ["thermal_alert", "capped"]
    assert throttling.causes == ("thermal_alert", "capped")
    throttling.update(at(1, capped=("cpu",)))
    (end,) = throttling.update(at(6, capped=("cpu",)))
    assert (end.cause, throttling.causes, throttling.active) == ("thermal_alert", ("capped",), True)


def test_the_words_have_the_numbers_and_what_to_do():
    sample = DeviceSample(
        at_ns=0, hottest_c=99.14, gpu=Frequency(current_mhz=306, max_mhz=612, hardware_max_mhz=1300.5),
        power_mode="MAXN", throttle=ThrottleSigns(alerts=("gpu",), capped=("gpu",)),
    )  # fmt: skip
    alert, capped = (change.detail for change in changes([sample]))
    assert alert.startswith("the heat slows gpu down; the hottest zone has 99.1 °C; GPU at 306 of 1300 MHz; look at")
    assert capped.startswith("the limit of gpu is below what the power mode MAXN allows; GPU at 306 of 1300 MHz; ")


@given(st.lists(st.tuples(st.floats(0.1, 20), SIGNS), max_size=60))
def test_begins_and_ends_alternate_for_each_cause_and_never_overlap_an_episode(script):
    throttling, now_s, begun = Throttling(), 0.0, {}
    for step_s, signs in script:
        now_s += step_s
        for change in throttling.update(DeviceSample(at_ns=round(now_s * NS_PER_S), throttle=signs)):
            assert (change.kind == "begin") == (change.cause not in begun)
            assert change.domains
            if change.kind == "begin":
                assert change.lasted_s is None
                begun[change.cause] = now_s
            else:
                assert 0 < change.lasted_s <= now_s - begun.pop(change.cause) - 5 + 0.001
        assert throttling.causes == tuple(cause for cause in CAUSES if cause in begun)
        assert throttling.active == bool(begun)
