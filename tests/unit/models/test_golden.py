from __future__ import annotations

import numpy as np
import pytest

from defectd.inspection.detections import Detections
from defectd.models.golden import GoldenReport, compare, expected_detections, iou, match
from defectd.models.manifest import AcceptanceLimits, Box, GoldenPicture

CLASSES = ("open", "short")
OPEN: Box = (10, 10, 50, 50, 0.9, 0)
SHORT: Box = (100, 100, 140, 140, 0.8, 1)
FAINT: Box = (200, 200, 240, 240, 0.27, 0)  # a hair above the threshold of 0.25


def detections(*boxes: Box) -> Detections:
    return expected_detections(GoldenPicture(image="golden-0001.png", boxes=list(boxes)))


def report(wanted: list[Box], seen: list[Box], **limits: object) -> GoldenReport:
    acceptance = AcceptanceLimits.model_validate(limits)
    return compare([detections(*wanted)], [detections(*seen)], CLASSES, 0.25, acceptance)


def moved(box: Box, pixels: float) -> Box:
    left, top, right, bottom, score, class_id = box
    return (left + pixels, top, right + pixels, bottom, score, class_id)


def scored(box: Box, score: float) -> Box:
    return (*box[:4], score, box[5])


def test_the_same_answers_pass() -> None:
    same = report([OPEN, SHORT], [SHORT, OPEN])
    assert same.passed
    assert (same.recall, same.precision, same.confidence_drift, same.lowest_iou) == (1, 1, 0, 1)
    assert (same.pictures, same.expected, same.found, same.matched) == (1, 2, 2, 2)


def test_expected_boxes_are_ordered_best_first() -> None:
    ordered = detections(SHORT, OPEN)
    assert ordered.scores.tolist() == pytest.approx([0.9, 0.8])
    assert ordered.class_ids.tolist() == [0, 1]


def test_nothing_where_nothing_is_expected_passes() -> None:
    nothing = report([], [])
    assert nothing.passed and (nothing.recall, nothing.precision, nothing.lowest_iou) == (1, 1, 1)
    assert detections().xyxy.shape == (0, 4)


def test_a_missed_box_fails() -> None:
    missed = report([OPEN, SHORT], [OPEN])
    assert missed.reasons == ("recall 0.5000, at least 0.98 is required",)


def test_an_invented_box_fails() -> None:
    assert report([OPEN], [OPEN, SHORT]).reasons == ("precision 0.5000, at least 0.98 is required",)


def test_a_box_of_another_class_is_missed_and_invented() -> None:
    wrong = report([OPEN], [(*OPEN[:5], 1)])
    assert (wrong.recall, wrong.precision, wrong.matched) == (0, 0, 0)


def test_a_box_that_moved_a_little_is_the_same_and_one_that_moved_far_is_not() -> None:
    near, far = report([OPEN], [moved(OPEN, 2)]), report([OPEN], [moved(OPEN, 10)])
    assert near.passed and near.lowest_iou == pytest.approx(38 / 42)
    assert not far.passed


def test_a_box_found_twice_counts_once() -> None:
    twice = report([OPEN], [OPEN, moved(OPEN, 1)])
    assert (twice.recall, twice.precision) == (1.0, 0.5)


def test_drifting_confidence_fails() -> None:
    drifted = report([OPEN, SHORT], [scored(OPEN, 0.75), SHORT])
    assert drifted.confidence_drift == pytest.approx(0.075)
    assert drifted.reasons == ("confidence drifts by 0.0750, at most 0.05",)


def test_boxes_at_the_threshold_may_come_and_go() -> None:
    assert report([OPEN, FAINT], [OPEN]).passed
    assert report([OPEN], [OPEN, FAINT]).passed
    assert not report([OPEN, FAINT], [OPEN], ignore_below=0.0).passed


def test_a_sure_box_that_became_faint_is_found() -> None:
    assert report([scored(FAINT, 0.31)], [FAINT]).recall == 1


def test_no_box_of_a_critical_class_may_be_missed() -> None:
    many = [moved(OPEN, 60 * index) for index in range(99)]
    lenient = {"recall": 0.9}
    assert report([*many, SHORT], many, **lenient).passed
    strict = report([*many, SHORT], many, critical_classes=["short"], **lenient)
    assert strict.missed_critical == 1
    assert strict.reasons == ("1 boxes of critical classes are missed",)


def test_pictures_are_compared_each_with_its_own() -> None:
    crossed = compare(
        [detections(OPEN), detections(SHORT)], [detections(SHORT), detections(OPEN)], CLASSES, 0.25, AcceptanceLimits()
    )
    assert (crossed.pictures, crossed.matched) == (2, 0)


def test_the_best_overlap_wins() -> None:
    assert match(detections(OPEN), detections(moved(OPEN, 4), scored(OPEN, 0.3)), 0.5) == [(0, 1, 1.0)]


def test_overlap_is_that_of_areas() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [7, 7, 7, 7]], np.float32)
    assert iou(boxes[:1], boxes)[0].tolist() == pytest.approx([1, 1 / 3, 0, 0])
