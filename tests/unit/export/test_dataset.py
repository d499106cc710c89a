from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defectd.errors import ModelError

pytest.importorskip("yaml", reason="needs PyYAML")
pytest.importorskip("cv2", reason="needs OpenCV")
from defectd.export.dataset import labelled_pictures, spread

CLASSES = ("open", "short")


def dataset(
    folder: Path, text: str = "val: images\nnames: [open, short]\n", labels: str = "0 0.5 0.5 0.2 0.4\n"
) -> Path:
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    (folder / "images" / "b.jpg").write_bytes(b"")
    (folder / "images" / "a.png").write_bytes(b"")
    (folder / "labels" / "a.txt").write_text(labels)
    data = folder / "data.yaml"
    data.write_text(text)
    return data


def test_pictures_come_sorted_with_their_labels(tmp_path: Path) -> None:
    pictures = labelled_pictures(dataset(tmp_path), CLASSES)
    assert [one.path.name for one in pictures] == ["a.png", "b.jpg"]
    assert pictures[0].labels == tmp_path / "labels" / "a.txt"


def test_relative_paths_count_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    data = dataset(tmp_path, "path: .\nval: images\nnames: {0: open, 1: short}\n")
    assert len(labelled_pictures(data, CLASSES)) == 2


def test_a_text_file_may_list_the_pictures(tmp_path: Path) -> None:
    data = dataset(tmp_path, "val: val.txt\nnames: [open, short]\n")
    (tmp_path / "val.txt").write_text("./images/a.png\n")
    assert [one.path.name for one in labelled_pictures(data, CLASSES)] == ["a.png"]


def test_labels_become_corners_in_pixels(tmp_path: Path) -> None:
    boxes, classes = labelled_pictures(dataset(tmp_path), CLASSES)[0].boxes(2, (100, 200))
    assert np.allclose(boxes, [[80, 30, 120, 70]])
    assert classes.tolist() == [0]


def test_a_polygon_counts_by_its_bounding_box(tmp_path: Path) -> None:
    data = dataset(tmp_path, labels="1 0.1 0.2 0.5 0.1 0.3 0.9\n")
    boxes, classes = labelled_pictures(data, CLASSES)[0].boxes(2, (100, 100))
    assert np.allclose(boxes, [[10, 10, 50, 90]])
    assert classes.tolist() == [1]


def test_a_picture_without_a_label_file_shows_no_defect(tmp_path: Path) -> None:
    boxes, classes = labelled_pictures(dataset(tmp_path), CLASSES)[1].boxes(2, (100, 100))
    assert boxes.shape == (0, 4)
    assert len(classes) == 0


def test_another_number_of_classes_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"data.yaml: names: 2 classes, but the model has 3 \(open, short, spur\)"):
        labelled_pictures(dataset(tmp_path), ("open", "short", "spur"))


def test_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="class 0 is 'open', but the model calls it 'short'"):
        labelled_pictures(dataset(tmp_path), ("short", "open"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("names: [open, short]\n", "val: missing"),
        ("val: nowhere\nnames: [open, short]\n", "nowhere does not exist"),
        ("val: labels\nnames: [open, short]\n", "no pictures"),
        ("[", "is not YAML"),
        ("just words", "expected the keys names and val"),
        ("val: images\n", "names: None classes"),
    ],
)
def test_a_wrong_data_yaml_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        labelled_pictures(dataset(tmp_path, text), CLASSES)


def test_pictures_of_which_none_has_labels_are_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    (tmp_path / "labels" / "a.txt").unlink()
    with pytest.raises(ModelError, match=r"no labels; expected for example .*labels/a.txt"):
        labelled_pictures(data, CLASSES)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2 0.5 0.5 0.1 0.1", r"a.txt:1: class 2; the model has 0..1"),
        ("0 0.5 0.5 0.1", "expected class x y width height"),
        ("0 0.5 0.5 0.1 nan", "expected class x y width height"),
        ("0 a b c d", "expected numbers"),
    ],
)
def test_a_wrong_label_is_refused_with_its_line(tmp_path: Path, line: str, expected: str) -> None:
    picture = labelled_pictures(dataset(tmp_path, labels=line), CLASSES)[0]
    with pytest.raises(ModelError, match=expected):
        picture.boxes(2, (10, 10))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone.yaml: No such file"):
        labelled_pictures(tmp_path / "gone.yaml", CLASSES)


@pytest.mark.parametrize(("count", "most", "expected"), [(0, 16, []), (3, 16, [0, 1, 2]), (101, 3, [0, 50, 100])])
def test_a_spread_reaches_from_the_first_to_the_last(count: int, most: int, expected: list[int]) -> None:
    assert spread(count, most) == expected
