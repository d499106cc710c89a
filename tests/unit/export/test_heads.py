from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="needs torch")
from defectd.export.heads import Answer, difference

Floats = NDArray[np.float32]


def rows(dense: Floats, anchors: list[int]) -> Floats:
    """(1, N, 6) from anchors, each with its best class."""
    chosen = dense[anchors]
    labels = chosen[:, 4:].argmax(axis=1)
    return np.hstack([chosen[:, :4], chosen[:, 4:].max(axis=1)[:, None], labels[:, None]])[None].astype(np.float32)


@pytest.fixture
def dense() -> Floats:
    random = np.random.default_rng(1)
    return np.hstack([random.random((50, 4)) * 640, random.random((50, 3)) * 1e-6 + 0.5]).astype(np.float32)


def test_a_dense_head_is_compared_number_by_number() -> None:
    expected = np.zeros((1, 6, 10), np.float32)
    output = expected.copy()
    output[0, 2, 3] = 6
    gap = difference(Answer(expected, None), output)
    assert gap.mse == pytest.approx(36 / 60)
    assert gap.largest == 6


def test_another_shape_or_a_nan_is_infinitely_far() -> None:
    expected = np.zeros((1, 6, 10), np.float32)
    assert difference(Answer(expected, None), expected[:, :, :9]).mse == float("inf")
    assert difference(Answer(expected, None), expected + np.float32("nan")).mse == float("inf")


def test_rows_of_the_same_score_may_change_places(dense: Floats) -> None:
    answer = Answer(rows(dense, [1, 2, 3]), dense)
    assert difference(answer, rows(dense, [3, 1, 2])).mse == pytest.approx(0, abs=1e-12)


def test_a_row_at_the_end_may_be_another_one_of_the_same_score(dense: Floats) -> None:
    answer = Answer(rows(dense, [1, 2, 3]), dense)
    assert difference(answer, rows(dense, [1, 2, 4])).mse < 1e-9


def test_a_box_from_nowhere_is_a_difference(dense: Floats) -> None:
    output = rows(dense, [1, 2, 3])
    output[0, 1, :4] += 900
    assert difference(Answer(rows(dense, [1, 2, 3]), dense), output).largest > 100


def test_lower_scores_are_a_difference(dense: Floats) -> None:
    output = rows(dense, [1, 2, 3])
    output[0, :, 4] -= 0.25
    assert difference(Answer(rows(dense, [1, 2, 3]), dense), output).largest == pytest.approx(0.25, abs=1e-3)


def test_a_class_that_does_not_exist_is_infinitely_far(dense: Floats) -> None:
    output = rows(dense, [1, 2, 3])
    output[0, 0, 5] = 3
    assert difference(Answer(rows(dense, [1, 2, 3]), dense), output).mse == float("inf")
