"""What is dropped first, and how it is told."""

from __future__ import annotations

import random

from defectd.examples import EXAMPLES
from defectd.inspection.events import FaultEvent, GapEvent, InspectionEvent
from defectd.messaging.gaps import (
    EXPENDABLE,
    FAULT,
    MAX_RUNS,
    NEVER,
    PRECIOUS,
    Hole,
    Run,
    coalesced,
    rank,
    spread,
    victims,
)

FAILED = EXAMPLES[InspectionEvent]
PASSED = FAILED.model_copy(update={"verdict": "passed"})
TO_REVIEW = FAILED.model_copy(update={"verdict": "passed", "needs_review": True})


def single(*seqs: int, verdict: str | None = "passed") -> list[Run]:
    return [Run(seq, seq, verdict) for seq in seqs]


def hole(*runs: Run) -> Hole:
    return Hole("inspection", "outbox_full", tuple(runs))


def test_passed_units_go_first_then_faults_then_the_other_verdicts_and_gaps_never():
    events = [EXAMPLES[GapEvent], FAILED, EXAMPLES[FaultEvent], TO_REVIEW, PASSED]
    assert sorted(events, key=rank) == [PASSED, EXAMPLES[FaultEvent], FAILED, TO_REVIEW, EXAMPLES[GapEvent]]


def test_neighbours_of_the_same_verdict_become_one_run_whatever_the_order_they_came_in():
    assert coalesced(single(3, 1, 2, 7)) == [Run(1, 3, "passed"), Run(7, 7, "passed")]


def test_runs_of_different_verdicts_stay_apart_but_are_one_range():
    mixed = hole(Run(1, 3, "passed"), Run(4, 4, "failed"), Run(6, 6, "passed"))
    assert coalesced(mixed.runs) == list(mixed.runs)
    assert mixed.ranges == [(1, 4), (6, 6)]
    assert (mixed.lost, mixed.lost_by_verdict) == (5, {"passed": 4, "failed": 1})


def test_victims_are_chosen_by_rank_and_then_by_age_until_the_excess_is_gone():
    entries = [(PRECIOUS, 10), (EXPENDABLE, 10), (NEVER, 10), (FAULT, 10), (EXPENDABLE, 10), (PRECIOUS, 10)]
    assert victims(entries, 1, 0) == {1}
    assert victims(entries, 2, 0) == {1, 4}
    assert victims(entries, 0, 25) == {1, 4, 3}
    assert victims(entries, 4, 0) == {1, 4, 3, 0}


def test_what_must_never_go_stays_even_if_the_excess_remains():
    assert victims([(NEVER, 10), (PRECIOUS, 10)], 5, 1000) == {1}


def test_a_loss_is_told_by_the_newest_hole_while_it_has_room():
    grown, new = spread(single(9), [hole(*single(1)), hole(*single(5))])
    assert [h.ranges for h in grown] == [[(1, 1)], [(5, 5), (9, 9)]]
    assert new == []


def test_a_loss_inside_an_older_hole_fills_it_up():
    grown, new = spread(single(2), [hole(*single(1, 3)), hole(*single(8))])
    assert [h.ranges for h in grown] == [[(1, 3)], [(8, 8)]]
    assert new == []


def test_one_gap_event_has_a_bounded_number_of_runs():
    grown, new = spread(single(*range(0, 6 * MAX_RUNS, 2)), [])
    assert grown == []
    assert [len(part) for part in new] == [MAX_RUNS] * 3


def test_when_all_is_lost_in_any_order_little_remains_to_be_told_and_every_event_is_counted_once():
    count = 20_000
    seqs = list(range(1, count + 1))
    random.Random(1).shuffle(seqs)
    seqs.sort(key=lambda seq: seq % 3 == 0)  # passed ones first, then the rest, as the outbox does
    known: list[Hole] = []
    for start in range(0, count, 1000):
        batch = sorted(seqs[start : start + 1000])
        runs = [Run(seq, seq, None) for seq in batch]
        grown, new = spread(runs, known)
        known = grown + [hole(*part) for part in new]
    assert sum(h.lost for h in known) == count
    assert sum(len(h.runs) for h in known) < 60
