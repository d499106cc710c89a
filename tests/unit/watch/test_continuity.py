"""Which numbers of a consecutive sequence were seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from defectd.watch.continuity import Continuity


def seen(*numbers: int) -> Continuity:
    continuity = Continuity()
    for number in numbers:
        continuity.see(number)
    return continuity


def test_consecutive_numbers_leave_no_hole():
    assert seen(7, 8, 9).holes == []


def test_a_viewer_that_comes_late_misses_nothing_that_was_before():
    assert seen(4711).holes == []


def test_a_jump_leaves_a_hole():
    assert seen(1, 2, 6).holes == [(3, 5)]


def test_a_late_number_closes_its_part_of_the_hole():
    assert seen(1, 6, 4).holes == [(2, 3), (5, 5)]


def test_a_number_that_was_seen_is_a_duplicate_and_counts_once():
    continuity = seen(1, 2, 2, 1)
    assert (continuity.count, continuity.duplicates) == (2, 2)


def test_a_number_before_the_first_extends_the_sequence_backwards():
    continuity = seen(5, 2)
    assert (continuity.first, continuity.holes) == (2, [(3, 4)])


def test_an_explained_hole_is_none_whether_the_explanation_comes_before_or_after():
    before, after = Continuity(), seen(1, 5)
    before.excuse([(2, 4)])
    for number in (1, 5):
        before.see(number)
    after.excuse([(2, 4)])
    assert before.holes == after.holes == []


def test_an_explanation_of_a_part_leaves_the_rest_missing():
    continuity = seen(1, 10)
    continuity.excuse([(3, 4), (9, 20)])
    assert continuity.holes == [(2, 2), (5, 8)]
    assert continuity.missing == 5


@given(st.permutations(range(1, 30)), st.sets(st.integers(1, 29)))
def test_in_any_order_the_holes_are_what_was_never_seen(order, absent):
    continuity = seen(*(number for number in order if number not in absent))
    present = sorted(set(range(1, 30)) - absent)
    inside = set(range(present[0], present[-1])) - set(present) if present else set()
    holes = {number for low, high in continuity.holes for number in range(low, high + 1)}
    assert holes == inside
    assert continuity.duplicates == 0
