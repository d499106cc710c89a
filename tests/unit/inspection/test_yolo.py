from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from defectd.inspection.letterbox import fit
from defectd.inspection.yolo import (
    Decoder,
    Floats,
    Head,
    HeadMismatch,
    MalformedOutput,
    NonFiniteOutput,
    Thresholds,
    corners,
    detections_of,
    resolve_head,
    select,
    suppress,
)

coordinates = st.integers(0, 24)


@st.composite
def ranked_boxes(draw: st.DrawFn) -> tuple[Floats, np.ndarray]:
    """Boxes (N, 4) xyxy on a small grid, so that many overlap and some have no area, and class ids (N,)."""
    rows = draw(st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), max_size=40))
    classes = draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    boxes = [[x, y, x + w, y + h] for x, y, w, h in rows]
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int32)


def naive_suppress(xyxy: Floats, class_ids: np.ndarray, iou: float, limit: int) -> list[int]:
    """The definition, box by box."""
    kept: list[int] = []
    for candidate, box in enumerate(xyxy):
        if all(class_ids[k] != class_ids[candidate] or not overlaps(xyxy[k], box, iou) for k in kept):
            kept.append(candidate)
    return kept[:limit]


def overlaps(a: Floats, b: Floats, iou: float) -> bool:
    """Intersection over union above *iou*, in float32 like the real one."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    common = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return bool(union > 0 and common / union > iou)


@settings(deadline=None)
@given(ranked_boxes(), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.integers(1, 50))
def test_suppression_is_the_naive_one(boxes: tuple[Floats, np.ndarray], iou: float, limit: int) -> None:
    xyxy, class_ids = boxes
    assert suppress(xyxy, class_ids, iou, limit).tolist() == naive_suppress(xyxy, class_ids, iou, limit)


def test_an_overlap_of_exactly_the_threshold_stays() -> None:
    xyxy = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    assert suppress(xyxy, np.zeros(2, np.int32), 0.5, 10).tolist() == [0, 1]
    assert suppress(xyxy, np.zeros(2, np.int32), 0.49, 10).tolist() == [0]


def test_another_class_suppresses_nothing() -> None:
    xyxy = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    assert suppress(xyxy, np.array([0, 1], np.int32), 0.5, 10).tolist() == [0, 1]


def test_selection_takes_the_best_class_of_each_anchor_above_the_threshold() -> None:
    head = np.zeros((6, 3), np.float32)
    head[:, 0] = [1, 2, 3, 4, 0.2, 0.9]
    head[:, 1] = [5, 6, 7, 8, 0.25, 0.1]  # exactly the threshold is not above it
    head[:, 2] = [9, 8, 7, 6, 0.6, 0.3]
    np.testing.assert_array_equal(
        select(head, 0.25).T, np.array([[1, 2, 3, 4, 0.9, 1], [9, 8, 7, 6, 0.6, 0]], np.float32)
    )


@settings(deadline=None)
@given(hnp.arrays(np.float32, (7, 60), elements=st.floats(0, 1, width=32)), st.integers(1, 20))
def test_selection_under_a_limit_keeps_the_best(head: Floats, limit: int) -> None:
    everything = np.sort(select(head, 0.25, limit=60)[4])[::-1]
    np.testing.assert_array_equal(np.sort(select(head, 0.25, limit)[4])[::-1], everything[:limit])


def test_detections_are_ranked_suppressed_and_limited() -> None:
    candidates = np.array(
        [[5, 5, 10, 10, 0.5, 1], [5, 5, 10, 9, 0.9, 1], [50, 50, 4, 4, 0.7, 0], [5, 5, 10, 10, 0.2, 0]], np.float32
    ).T
    found = detections_of(candidates, Head.DENSE, 2, Thresholds(0.25, 0.7))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.class_ids.tolist() == [1, 0]
    assert found.xyxy.tolist() == [[0, 0.5, 10, 9.5], [48, 48, 52, 52]]
    assert len(detections_of(candidates, Head.DENSE, 2, Thresholds(0.25, 0.7, max_detections=1))) == 1


def test_an_end_to_end_head_is_only_filtered() -> None:
    output = np.array([[[0, 0, 9, 9, 0.9, 1], [0, 0, 9, 9, 0.8, 1], [0, 0, 0, 0, 0, 0]]], np.float32)
    decoder = Decoder(Head.END_TO_END, 2, Thresholds(0.25))
    found = decoder.detections(decoder.candidates(output), fit((10, 10), (10, 10)))
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    assert found.xyxy.tolist() == [[0, 0, 9, 9], [0, 0, 9, 9]]


def test_nothing_found_is_no_detections() -> None:
    decoder = Decoder(Head.DENSE, 2, Thresholds(0.25))
    found = decoder.detections(decoder.candidates(np.zeros((1, 6, 100), np.float32)), fit((10, 10), (10, 10)))
    assert len(found) == 0
    assert found.xyxy.shape == (0, 4)
    assert (found.xyxy.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float32, np.float32, np.int32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0, 0), (0, 5, 99), (0, 4, 50)])
def test_one_non_finite_number_anywhere_is_noticed(value: float, where: tuple[int, int, int]) -> None:
    output = np.zeros((1, 6, 100), np.float32)
    output[where] = value
    with pytest.raises(NonFiniteOutput):
        Decoder(Head.DENSE, 2, Thresholds(0.25)).candidates(output)


def test_a_class_that_does_not_exist_is_malformed() -> None:
    candidates = np.array([[0, 0, 9, 9, 0.9, 7]], np.float32).T
    with pytest.raises(MalformedOutput, match=r"0\.\.1"):
        detections_of(candidates, Head.END_TO_END, 2, Thresholds(0.25))


def test_corners_of_a_box_given_by_its_centre() -> None:
    assert corners(np.array([[10, 20, 4, 6]], np.float32)).tolist() == [[8, 17, 12, 23]]


@pytest.mark.parametrize(
    ("shape", "end2end", "head"),
    [
        ((1, 10, 8400), False, Head.DENSE),
        ((1, 10, 8400), None, Head.DENSE),
        ((1, 300, 6), True, Head.END_TO_END),
        ((1, 300, 6), None, Head.END_TO_END),
    ],
)
def test_the_head_follows_from_metadata_and_shape(shape: tuple[int, ...], end2end: bool | None, head: Head) -> None:
    assert resolve_head(shape, 6, end2end) is head


@pytest.mark.parametrize(
    ("shape", "end2end"),
    [((1, 300, 6), False), ((1, 10, 8400), True), ((1, 84, 8400), None), ((2, 10, 8400), None), ((1, 10), False)],
)
def test_a_head_that_contradicts_the_metadata_is_refused_with_both_shapes(
    shape: tuple[int, ...], end2end: bool | None
) -> None:
    with pytest.raises(HeadMismatch) as caught:
        resolve_head(shape, 6, end2end)
    assert str(shape) in str(caught.value)
    assert ("(1, N, 6)" in str(caught.value)) is (end2end is not False)
