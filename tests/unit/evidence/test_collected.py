from __future__ import annotations

from datetime import date, datetime, timezone

import numpy as np
import pytest

from defectd.errors import StateError
from defectd.evidence.collected import CollectedPicture, describe, is_wanted, read_collected
from defectd.evidence.dataset import class_names, data_yaml, export, label_lines, split_of
from defectd.inspection.detections import Detections, EngineTimings
from defectd.inspection.events import Recipe
from defectd.inspection.frame import Frame, Trigger
from defectd.inspection.record import EngineAnswer, StationIdentity, record
from defectd.inspection.verdict import Judgement

NAMES = ("open", "short")


def collected(unit_id="u1", boxes=((0, 0.9, 10, 20, 30, 40),), names=NAMES, **changes):
    known = {
        "inspection_id": f"id-{unit_id}",
        "camera": "top",
        "trigger": 1,
        "captured_at": datetime(2026, 5, 4, tzinfo=timezone.utc),
        "verdict": "passed",
        "needs_review": True,
        "recipe": Recipe(name="pcb", revision="1"),
        "model": None,
        "width_px": 100,
        "height_px": 200,
    }
    return CollectedPicture(unit_id=unit_id, boxes=boxes, names=list(names), **{**known, **changes})


def keep(state, picture, day="2026-05-04"):
    (state / day).mkdir(parents=True, exist_ok=True)
    file = state / day / f"{picture.inspection_id}.jpg"
    file.write_bytes(b"a picture")
    file.with_suffix(".json").write_text(picture.model_dump_json())
    return file


@pytest.mark.parametrize(
    ("policy", "verdict", "needs_review", "wanted"),
    [
        ("none", "failed", True, False),
        ("needs_review", "passed", True, True),
        ("needs_review", "failed", False, False),
        ("failed_and_review", "failed", False, True),
        ("failed_and_review", "passed", True, True),
        ("failed_and_review", "passed", False, False),
        ("failed_and_review", "error", False, False),
    ],
)
def test_the_policy_says_which_pictures_are_worth_keeping(policy, verdict, needs_review, wanted):
    assert is_wanted(policy, verdict, needs_review) is wanted


def test_a_description_has_all_that_the_model_saw_not_only_what_the_recipe_counts():
    trigger = Trigger("top", 4, "u4", 0, datetime(2026, 5, 4, tzinfo=timezone.utc))
    seen = Detections(np.array([[1, 2, 11, 22.5]], np.float32), np.array([0.3], np.float32), np.array([1], np.int32))
    answer = EngineAnswer(0.0, EngineTimings(0, 0, 0, "monotonic"), seen, NAMES)
    station = StationIdentity("aoi1", "boot", "0" * 64, Recipe(name="pcb", revision="1"))
    judgement = Judgement("passed", needs_review=True)
    event = record(
        station, trigger, [], judgement, None,
        is_single=True, verdict_ns=0, unit_id_source="counter", simulated=True,
    )  # fmt: skip
    described = describe(event, "top", 4, Frame(0, 2, 100, 200, None), judgement, answer)
    assert described.boxes == [(1, 0.3, 1.0, 2.0, 10.0, 20.5)]
    assert (described.unit_id, described.names, described.needs_review) == ("u4", ["open", "short"], True)


def test_a_label_is_centre_and_size_as_shares_of_the_picture():
    assert label_lines(collected(), 0.25) == ["0 0.250000 0.200000 0.300000 0.200000"]


def test_a_box_that_hangs_over_the_edge_is_cut_and_one_outside_is_no_label():
    hanging = collected(boxes=[(1, 0.9, -10, 190, 20, 40), (1, 0.9, 100, 10, 5, 5)])
    assert label_lines(hanging, 0.25) == ["1 0.050000 0.975000 0.100000 0.050000"]


def test_a_box_below_the_confidence_is_no_label():
    assert label_lines(collected(boxes=[(0, 0.24, 1, 1, 5, 5), (0, 0.25, 1, 1, 5, 5)]), 0.25) == [
        "0 0.035000 0.017500 0.050000 0.025000"
    ]


def test_a_newer_model_may_have_more_classes_but_not_other_numbers():
    more = collected("u2", names=(*NAMES, "spur"))
    assert class_names([collected(), more, collected("u3")]) == ["open", "short", "spur"]
    with pytest.raises(
        StateError, match="id-u2: its model numbers the classes short, open, an earlier one open, short"
    ):
        class_names([collected(), collected("u2", names=("short", "open"))])


def test_the_same_unit_is_always_on_the_same_side_and_the_shares_are_as_asked():
    sides = [split_of(f"u{number}", 0.2) for number in range(2000)]
    assert sides == [split_of(f"u{number}", 0.2) for number in range(2000)]
    assert 0.17 < sides.count("val") / 2000 < 0.23
    assert {split_of(f"u{number}", 0.0) for number in range(50)} == {"train"}


def test_a_class_whose_name_means_something_in_yaml_stays_a_name():
    assert data_yaml(["no", "a: b"], ["train", "val"]).splitlines() == [
        "train: images/train", "val: images/val", "names:", '  0: "no"', '  1: "a: b"',
    ]  # fmt: skip


def test_a_side_without_pictures_is_the_other_one():
    assert data_yaml(["open"], ["train"]).startswith("train: images/train\nval: images/train\n")


def test_only_the_days_that_are_asked_for_are_read_oldest_first(tmp_path):
    for day, unit_id in (("2026-05-06", "c"), ("2026-05-04", "a"), ("2026-05-05", "b")):
        keep(tmp_path, collected(unit_id), day)
    assert [picture.unit_id for _, picture in read_collected(tmp_path)] == ["a", "b", "c"]
    chosen = read_collected(tmp_path, date(2026, 5, 5), date(2026, 5, 5))
    assert [picture.unit_id for _, picture in chosen] == ["b"]


def test_a_description_without_its_picture_is_left_out_and_a_broken_one_is_named(tmp_path):
    keep(tmp_path, collected("gone")).unlink()
    assert read_collected(tmp_path) == []
    keep(tmp_path, collected("torn")).with_suffix(".json").write_text("{")
    with pytest.raises(StateError, match=r"id-torn\.json: .*delete it"):
        read_collected(tmp_path)


def test_the_export_has_pictures_labels_and_a_table_that_marks_the_doubtful_ones(tmp_path):
    keep(tmp_path / "state", collected("u1"))
    keep(tmp_path / "state", collected("u2", verdict="failed", needs_review=False, boxes=[]))
    exported = export(read_collected(tmp_path / "state"), tmp_path / "set", 0.25, 0.0)
    assert (dict(exported.pictures), exported.needs_review, dict(exported.labels)) == ({"train": 2}, 1, {"open": 1})
    assert sorted(path.name for path in (tmp_path / "set/images/train").iterdir()) == ["id-u1.jpg", "id-u2.jpg"]
    assert (tmp_path / "set/labels/train/id-u2.txt").read_text() == "", "nothing to see, which is worth knowing, too"
    header, doubtful, sure = (tmp_path / "set/units.csv").read_text().splitlines()
    assert header.startswith("file,split,needs_review") and doubtful.startswith("id-u1.jpg,train,yes")
    assert sure.startswith("id-u2.jpg,train,no,failed,u2")


def test_an_export_does_not_touch_what_is_there_and_leaves_no_half_dataset(tmp_path):
    pictures = [(keep(tmp_path / "state", collected()), collected())]
    (tmp_path / "set").mkdir()
    with pytest.raises(StateError, match="set: exists"):
        export(pictures, tmp_path / "set", 0.25, 0.2)
    clash = [*pictures, (pictures[0][0], collected("u2", names=("short", "open")))]
    with pytest.raises(StateError, match="numbers the classes"):
        export(clash, tmp_path / "other", 0.25, 0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "state"]
