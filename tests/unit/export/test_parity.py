from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("cv2", reason="needs OpenCV")
from defectd.errors import ModelError
from defectd.export.parity import Verdict, above, drops, recorded, refuse
from defectd.export.precision import MeanPrecision, correct
from defectd.inspection.detections import Detections
from defectd.models.manifest import Parity

SQUARE = [0.0, 0, 10, 10]


def seen(*boxes: list[float], classes: list[int] | None = None) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.1, count, dtype=np.float32),
        np.array(classes or [0] * count, np.int32),
    )


def truth(*boxes: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int32)


def test_half_a_point_may_be_lost_and_not_more() -> None:
    before = MeanPrecision(0.878, 0.516)
    assert drops(before, MeanPrecision(0.8735, 0.5115)) == []
    assert drops(before, MeanPrecision(0.8725, 0.53)) == [
        "mAP50 falls from 87.80 to 87.25, at most 0.5 points are allowed"
    ]
    assert len(drops(before, MeanPrecision(0.1, 0.1))) == 2


def test_without_labels_nothing_drops() -> None:
    assert drops(None, None) == []


def test_a_gain_is_no_drop() -> None:
    assert drops(MeanPrecision(0.5, 0.4), MeanPrecision(0.9, 0.8)) == []


def test_a_threshold_is_exceeded_not_met() -> None:
    assert len(above(seen(SQUARE, SQUARE, SQUARE), 0.5)) == 1


def test_a_labelled_box_is_found_once() -> None:
    found = correct(seen(SQUARE, SQUARE), *truth(SQUARE))
    assert found[0].all()
    assert not found[1].any()


def test_a_looser_box_counts_at_lower_overlaps_only() -> None:
    found = correct(seen([0, 0, 10, 7.2]), *truth(SQUARE))
    assert found[0].tolist() == [True] * 5 + [False] * 5


def test_another_class_finds_nothing() -> None:
    assert not correct(seen(SQUARE, classes=[1]), *truth(SQUARE)).any()


def test_pictures_without_boxes_are_no_problem() -> None:
    assert correct(seen(), *truth(SQUARE)).shape == (0, 10)
    assert not correct(seen(SQUARE), *truth()).any()


def verdict(*, broken: tuple[str, ...] = (), worse: tuple[str, ...] = ()) -> Verdict:
    return Verdict(Parity(format="onnx", recall=0.9), broken, worse)


def test_a_format_that_is_worse_is_refused_unless_a_person_allows_it_and_then_it_is_recorded() -> None:
    verdicts = [verdict(), verdict(worse=("mAP50 falls",))]
    with pytest.raises(ModelError, match=r"onnx: mAP50 falls; nothing was written \(--allow-drop"):
        refuse(verdicts, allow_drop=False)
    assert refuse(verdicts, allow_drop=True) == ["allowed by --allow-drop, and recorded: onnx: mAP50 falls"]
    assert [one.allowed_drop for one in recorded(verdicts, allow_drop=True)] == [False, True]
    assert [one.allowed_drop for one in recorded(verdicts, allow_drop=False)] == [False, False]


def test_another_network_is_refused_whatever_a_person_allows() -> None:
    with pytest.raises(ModelError, match="the raw head differs"):
        refuse([verdict(broken=("the raw head differs",))], allow_drop=True)
