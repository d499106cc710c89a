"""What a viewer knows of a station."""

from __future__ import annotations

import pytest

from defectd.inspection.events import ActiveFault
from defectd.watch.tally import StationTally, quantile
from defectd.watch.wire import read
from unit.watch.wire_events import PREFIX, birth, defect, fault, gap, inspection, status

TOPICS = {"InspectionEvent": "evt/inspection", "FaultEvent": "evt/fault", "GapEvent": "evt/gap"}


def told(*messages):
    tally = StationTally("plant1/smt/line1/aoi1")
    for number, message in enumerate(messages):
        name = type(message).__name__
        _, heard = read(f"{PREFIX}/{TOPICS.get(name, name.lower())}", message.to_json())
        tally.take(heard, now_s=number * 0.25)
    return tally


def test_units_are_counted_by_verdict_and_defects_by_code():
    tally = told(
        inspection(1), inspection(2, verdict="failed", defects=[defect(), defect("PCB-OPEN", "open")]), inspection(3)
    )
    assert dict(tally.verdicts) == {"passed": 2, "failed": 1}
    assert dict(tally.codes) == {"PCB-SHORT": 1, "PCB-OPEN": 1}


def test_an_error_is_neither_good_nor_bad_for_the_pass_rate():
    tally = told(inspection(1), inspection(2, verdict="failed"), inspection(3, verdict="error", error="camera_lost"))
    assert tally.pass_rate == 0.5


def test_a_redelivered_event_counts_once():
    tally = told(inspection(1), inspection(1), inspection(2))
    assert (tally.units, tally.redelivered) == (2, 1)


def test_a_replayed_event_is_not_a_new_unit():
    tally = told(inspection(1), inspection(1, replayed=True))
    assert (tally.units, tally.replayed, tally.redelivered) == (1, 1, 0)


def test_a_missing_event_shows_in_events_and_triggers():
    assert told(inspection(1), inspection(3)).holes == ["seq 2"]


def test_a_missing_event_that_the_station_explains_is_no_hole():
    tally = told(inspection(1), gap((2, 4)), inspection(5))
    assert tally.holes == []
    assert tally.lost == 3


def test_a_gap_of_another_stream_explains_no_inspection():
    assert told(inspection(1), gap((2, 2), of_stream="fault"), inspection(3)).holes == ["seq 2"]


def test_a_lost_unit_shows_even_if_the_events_are_consecutive():
    assert told(inspection(1, trigger=1), inspection(2, trigger=3)).holes == ["camera top trigger 2"]


def test_a_new_epoch_begins_its_own_sequence():
    tally = told(inspection(80), inspection(1, trigger=81, epoch="another"))
    assert tally.units == 2
    assert tally.holes == []


def test_a_fault_holds_from_raised_to_cleared():
    assert len(told(fault("raised")).faults) == 1
    assert not told(fault("raised"), fault("cleared")).faults


def test_a_noted_fault_does_not_hold():
    tally = told(fault("noted"))
    assert not tally.faults
    assert len(tally.noted) == 1


def test_the_status_says_which_faults_hold():
    active = ActiveFault(component="engine", code="cpu_fallback", detail="no CUDA", since=status().ts)
    tally = told(fault("raised"), status("degraded", faults=[active]))
    assert list(tally.faults) == [("engine", "cpu_fallback")]


def test_the_rate_is_that_of_arrival():
    assert told(inspection(1), inspection(2), inspection(3)).rate_hz == pytest.approx(4.0)


def test_units_over_the_announced_deadline_are_late():
    assert told(birth(deadline_ms=30), inspection(1, latency_ms=31), inspection(2, latency_ms=29)).late_units == 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 51), (0.99, 100), (1.0, 100), (0.0, 1)])
def test_a_quantile_is_a_value_that_occurred(share, expected):
    assert quantile(range(1, 101), share) == expected


def test_nothing_has_no_quantile():
    assert quantile([], 0.5) is None
