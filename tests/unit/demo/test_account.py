"""Whether every unit of the demo is accounted for."""

from __future__ import annotations

from collections import Counter

from defectd.demo.account import problems, summary
from defectd.demo.truth import Score
from defectd.watch.tally import StationTally
from unit.watch.test_tally import told
from unit.watch.wire_events import birth, gap, inspection


def test_all_units_once_and_in_order_are_accounted_for():
    assert problems(told(*map(inspection, range(1, 41))), 40) == []


def test_a_unit_with_an_error_is_accounted_for():
    assert problems(told(inspection(1, verdict="error", error="deadline_exceeded")), 1) == []


def test_an_event_that_was_delivered_twice_is_accounted_for_once():
    assert problems(told(inspection(1), inspection(1), inspection(2)), 2) == []


def test_a_missing_unit_is_a_problem():
    assert "1 of 2 units arrived" in problems(told(inspection(1)), 2)


def test_a_missing_first_unit_is_a_problem_even_without_a_number_of_units():
    assert problems(told(inspection(2)), None)


def test_a_hole_is_a_problem_with_its_place():
    assert "missing: seq 2 to 3" in problems(told(inspection(1), inspection(4)), None)


def test_units_that_the_station_gave_up_are_a_problem():
    assert "1 events were given up" in problems(told(inspection(1), gap((2, 2)), inspection(3)), None)


def test_two_verdicts_for_one_unit_are_a_problem():
    found = problems(told(inspection(1), inspection(2, trigger=1)), 2)
    assert found == ["camera top: 1 triggers have more than one verdict"]


def test_nothing_at_all_is_a_problem_when_units_were_asked_for():
    assert problems(StationTally("a/b/c/d"), 40) == ["0 of 40 units arrived"]


def test_the_summary_gives_every_figure():
    heard = told(birth(), inspection(1), inspection(2, verdict="failed"), inspection(3, verdict="error"))
    text = "\n".join(summary(heard, Score(100, 100, 98), Counter({"deadline_exceeded": 1}), []))
    for words in (
        "3 units: 1 passed, 1 failed, 1 error", "deadline exceeded 1", "recall 0.98 precision 0.98",
        "p50 27.0 ms, p99 27.0 ms, limit 250 ms", "triggers 1-3, 3 verdicts, events 1-3 without a gap",
    ):  # fmt: skip
        assert words in text


def test_the_summary_names_what_is_missing():
    text = "\n".join(summary(told(inspection(1)), Score(), Counter(), ["1 of 2 units arrived"]))
    assert "NOT every unit is accounted for:\n  1 of 2 units arrived" in text


def test_a_demo_that_was_stopped_before_the_first_unit_claims_nothing():
    assert summary(StationTally("a/b/c/d"), Score(), Counter(), []) == ["no unit was inspected"]
