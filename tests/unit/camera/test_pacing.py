from __future__ import annotations

from defectd.camera.pacing import Pace

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
