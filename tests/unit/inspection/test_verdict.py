from __future__ import annotations

import numpy as np
import pytest

from defectd.inspection.detections import Detections
from defectd.inspection.recipe import DefectRule, Recipe, Region
from defectd.inspection.verdict import judge

NAMES = ("open", "short", "spur")


def boxes(*rows):
    """Rows of (class, confidence, x1, y1, x2, y2)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, 2:], table[:, 1], table[:, 0].astype(np.int32))


def recipe(*rules, regions=()):
    return Recipe("pcb", "1", rules, tuple(regions))


SHORT = DefectRule("short", "PCB-SHORT", min_confidence=0.5)


def test_a_unit_without_detections_passes():
    judgement = judge(Detections.none(), recipe(SHORT), NAMES, "top")
    assert (judgement.verdict, judgement.defects, judgement.needs_review) == ("passed", (), False)


def test_a_confident_detection_of_a_class_that_matters_fails_the_unit():
    judgement = judge(boxes((1, 0.5, 10, 20, 30, 50)), recipe(SHORT), NAMES, "top")
    assert judgement.verdict == "failed"
    (defect,) = judgement.defects
    assert (defect.code, defect.class_name, defect.confidence) == ("PCB-SHORT", "short", 0.5)
    assert defect.bbox_px == (10, 20, 20, 30)


def test_a_class_that_the_recipe_does_not_name_is_no_defect():
    assert judge(boxes((2, 0.99, 0, 0, 9, 9)), recipe(SHORT), NAMES, "top").verdict == "passed"


def test_a_detection_below_the_threshold_is_no_defect():
    assert judge(boxes((1, 0.499, 0, 0, 9, 9)), recipe(SHORT), NAMES, "top").verdict == "passed"


@pytest.mark.parametrize(("confidence", "review"), [(0.29, False), (0.3, True), (0.49, True), (0.5, False)])
def test_the_band_below_the_threshold_asks_for_a_person(confidence, review):
    rule = DefectRule("short", "S", min_confidence=0.5, review_from=0.3)
    assert judge(boxes((1, confidence, 0, 0, 9, 9)), recipe(rule), NAMES, "top").needs_review is review


@pytest.mark.parametrize(("count", "verdict"), [(2, "passed"), (3, "failed")])
def test_so_many_are_tolerated_and_one_more_is_not(count, verdict):
    rule = DefectRule("spur", "SPUR", min_confidence=0.5, allowed_count=2)
    judgement = judge(boxes(*[(2, 0.9, 0, 0, 9, 9)] * count), recipe(rule), NAMES, "top")
    assert judgement.verdict == verdict
    assert len(judgement.defects) == (count if verdict == "failed" else 0)


def test_a_box_smaller_than_the_minimum_area_does_not_count():
    rule = DefectRule("short", "S", min_confidence=0.5, min_area_px=100)
    assert judge(boxes((1, 0.9, 0, 0, 9.9, 10)), recipe(rule), NAMES, "top").verdict == "passed"
    assert judge(boxes((1, 0.9, 0, 0, 10, 10)), recipe(rule), NAMES, "top").verdict == "failed"


LEFT_HALF = ((0, 0), (50, 0), (50, 100), (0, 100))


def test_an_excluded_region_swallows_boxes_by_their_centre():
    regions = [Region(False, LEFT_HALF)]
    assert judge(boxes((1, 0.9, 30, 30, 60, 60)), recipe(SHORT, regions=regions), NAMES, "top").verdict == "passed"
    assert judge(boxes((1, 0.9, 45, 30, 65, 60)), recipe(SHORT, regions=regions), NAMES, "top").verdict == "failed"


def test_with_included_regions_only_boxes_inside_one_of_them_count():
    regions = [Region(True, LEFT_HALF), Region(True, ((80, 80), (99, 80), (99, 99), (80, 99)))]
    assert judge(boxes((1, 0.9, 60, 10, 70, 20)), recipe(SHORT, regions=regions), NAMES, "top").verdict == "passed"
    assert judge(boxes((1, 0.9, 82, 82, 96, 96)), recipe(SHORT, regions=regions), NAMES, "top").verdict == "failed"


def test_a_region_of_another_camera_does_not_matter():
    regions = [Region(False, LEFT_HALF, camera="bottom")]
    assert judge(boxes((1, 0.9, 10, 10, 20, 20)), recipe(SHORT, regions=regions), NAMES, "top").verdict == "failed"


def test_defects_come_by_priority_then_confidence():
    rules = (DefectRule("open", "O", 0.1, priority=2), DefectRule("short", "S", 0.1, priority=1))
    found = boxes((0, 0.99, 0, 0, 9, 9), (1, 0.4, 0, 0, 9, 9), (1, 0.8, 0, 0, 9, 9))
    defects = judge(found, recipe(*rules), NAMES, "top").defects
    assert [(d.code, d.confidence) for d in defects] == [("S", 0.8), ("S", 0.4), ("O", 0.99)]


def test_the_engine_need_not_report_what_no_rule_wants():
    rules = (DefectRule("open", "O", 0.6, review_from=0.2), DefectRule("short", "S", 0.3))
    assert recipe(*rules).lowest_confidence == 0.2


def test_a_polygon_with_a_notch_holds_what_is_inside_and_not_what_is_in_the_notch():
    notch = Region(True, ((0, 0), (10, 0), (10, 10), (5, 3), (0, 10)))
    inside = notch.holds(np.array([[5, 1], [5, 8], [1, 5], [11, 5]], np.float32))
    assert inside.tolist() == [True, False, True, False]
