"""Reports held against what is really wrong with a board."""

from __future__ import annotations

import pytest

from defectd.camera.boards import TrueDefect
from defectd.demo.truth import Score, count_hits, iou
from defectd.watch.wire import Finding

SHORT = TrueDefect(1, "short", (100.0, 100.0, 20.0, 20.0))


def finding(x_px=100.0, class_name="short", confidence=0.9):
    return Finding("PCB-SHORT", class_name, confidence, (x_px, 100.0, 20.0, 20.0))


def test_a_finding_at_the_place_of_a_defect_is_a_hit():
    assert count_hits([finding()], [SHORT]) == 1


def test_a_finding_of_another_class_is_none():
    assert count_hits([finding(class_name="open")], [SHORT]) == 0


def test_a_finding_that_overlaps_too_little_is_none():
    assert iou(finding(107).xywh_px, SHORT.xywh_px) < 0.5
    assert count_hits([finding(107)], [SHORT]) == 0


def test_two_findings_of_one_defect_are_one_hit_and_cost_precision():
    score = Score()
    score.add([finding(), finding(101, confidence=0.8)], [SHORT])
    assert (score.recall, score.precision) == (1.0, 0.5)


def test_the_surest_finding_takes_its_best_defect_and_leaves_the_other():
    other = TrueDefect(1, "short", (106.0, 100.0, 20.0, 20.0))
    assert count_hits([finding(101, confidence=0.8), finding(105, confidence=0.9)], [SHORT, other]) == 2


def test_a_defect_that_nobody_reports_costs_recall():
    score = Score()
    score.add([], [SHORT])
    score.add([finding()], [SHORT])
    assert (score.recall, score.precision) == (0.5, 1.0)


def test_without_defects_and_findings_there_is_no_figure():
    assert str(Score()) == "recall - precision -"


@pytest.mark.parametrize(("hits", "expected"), [(996, "0.99"), (950, "0.95"), (1000, "1.00"), (290, "0.29")])
def test_figures_are_cut_and_never_flatter(hits, expected):
    assert str(Score(1000, 1000, hits)) == f"recall {expected} precision {expected}"


@pytest.mark.parametrize(
    ("other", "expected"), [((0, 0, 10, 10), 1.0), ((5, 0, 10, 10), 1 / 3), ((20, 0, 10, 10), 0.0), ((0, 0, 0, 0), 0.0)]
)
def test_intersection_over_union_is_what_the_name_says(other, expected):
    assert iou((0, 0, 10, 10), other) == pytest.approx(expected)
