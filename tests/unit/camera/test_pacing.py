from __future__ import annotations

from defectd.camera.pacing import Pace, RecordedPace

SECOND = 1_000_000_000


def test_units_are_due_in_the_rhythm_of_the_line():
    pace = Pace(origin_ns=5 * SECOND, first=10, rate_hz=4)
    assert [pace.due_ns(number) for number in (10, 11, 14)] == [5 * SECOND, 5.25 * SECOND, 6 * SECOND]


def test_a_unit_has_passed_when_the_next_one_is_due():
    pace = Pace(origin_ns=0, first=1, rate_hz=4)
    assert not pace.passed(1, SECOND // 4)
    assert pace.passed(1, SECOND // 4 + 1)


def test_a_shifted_schedule_goes_on_in_the_same_rhythm():
    pace = Pace(origin_ns=0, first=1, rate_hz=4)
    pace.shift(3, 100 * SECOND)
    assert pace.due_ns(3) == 100 * SECOND
    assert pace.due_ns(4) == 100.25 * SECOND


def test_recorded_units_come_at_their_intervals_wherever_one_begins():
    pace = RecordedPace(1000, first=11, number=12, offsets_ms=[5.0, 7.0, 15.0])
    assert [pace.due_ns(number) - 1000 for number in (11, 12, 13)] == [-2_000_000, 0, 8_000_000]


def test_a_recorded_loop_begins_again_after_an_average_interval():
    pace = RecordedPace(0, first=1, number=1, offsets_ms=[0.0, 2.0, 10.0])
    assert [pace.due_ns(number) for number in (3, 4, 5)] == [10_000_000, 15_000_000, 17_000_000]


def test_a_recorded_rhythm_that_was_held_up_goes_on_from_now():
    pace = RecordedPace(0, first=1, number=1, offsets_ms=[0.0, 2.0, 10.0])
    assert pace.passed(1, 3_000_000)
    pace.shift(2, 9_000_000)
    assert pace.due_ns(3) == 17_000_000


def test_a_recording_of_one_unit_has_a_rhythm_too():
    assert RecordedPace(0, first=1, number=1, offsets_ms=[3.0]).due_ns(2) > 0
