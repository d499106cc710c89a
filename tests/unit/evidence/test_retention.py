from __future__ import annotations

import os
from pathlib import Path

from defectd.evidence.retention import Disk, Retention, Stored, expired

DAY_S = 86_400


NOW_S = 1_800_000_000


def pictures(*ages_and_sizes):
    return [Stored(Path(f"{index}.jpg"), size, NOW_S - age) for index, (age, size) in enumerate(ages_and_sizes)]


def test_within_both_bounds_nothing_goes():
    assert expired(pictures((1, 10), (2, 10)), 20, 5, now_s=NOW_S) == []


def test_over_the_size_the_oldest_go_first_and_no_more_than_needed():
    gone = expired(pictures((3, 10), (1, 10), (2, 10)), 15, 100, now_s=NOW_S)
    assert [picture.path.name for picture in gone] == ["0.jpg", "2.jpg"]


def test_what_is_too_old_goes_even_if_there_is_room():
    assert [p.path.name for p in expired(pictures((9, 1), (1, 1)), 100, 5, now_s=NOW_S)] == ["0.jpg"]


def test_a_picture_from_the_future_is_not_old():
    assert expired(pictures((-100, 1)), 100, 5, now_s=NOW_S) == []


def test_a_picture_from_1970_has_no_age_but_counts_for_the_size():
    assert expired(pictures((NOW_S - 60, 1)), 100, 5, now_s=NOW_S) == []
    assert len(expired(pictures((NOW_S - 60, 101)), 100, 5, now_s=NOW_S)) == 1


def test_a_sweep_deletes_files_and_empty_days_and_leaves_the_rest(tmp_path):
    for day, age_days in (("2026-01-01", 40), ("2026-02-08", 1)):
        (tmp_path / day).mkdir()
        picture = tmp_path / day / "a.jpg"
        picture.write_bytes(b"x" * 10)
        os.utime(picture, (NOW_S - age_days * DAY_S,) * 2)
    Retention(tmp_path, max_bytes=1000, max_age_s=30 * DAY_S).sweep(NOW_S)
    assert [path.name for path in tmp_path.iterdir()] == ["2026-02-08"]


def test_what_is_written_about_a_picture_counts_and_goes_with_it(tmp_path):
    for name, age_s in (("old", 20), ("new", 10)):
        picture = tmp_path / f"{name}.png"
        picture.write_bytes(b"x" * 50)
        picture.with_suffix(".json").write_bytes(b"y" * 10)
        os.utime(picture, (NOW_S - age_s,) * 2)
    Retention(tmp_path, max_bytes=119, max_age_s=float("inf")).sweep(NOW_S)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.json", "new.png"]


def test_between_sweeps_it_counts_what_was_added(tmp_path):
    retention = Retention(tmp_path, max_bytes=100, max_age_s=DAY_S)
    retention.sweep(0)
    retention.added(100)
    assert not retention.over_bound
    retention.added(1)
    assert retention.over_bound


class SmallDisk:
    """100 bytes, of which others hold some and the pictures the rest."""

    def __init__(self, others):
        self.others = others

    def __call__(self, directory):
        pictures = sum(path.stat().st_size for path in directory.rglob("*.jpg"))
        return Disk(total_bytes=100, free_bytes=100 - self.others - pictures)


def fill(directory, count):
    (directory / "day").mkdir()
    for index in range(count):
        picture = directory / "day" / f"{index}.jpg"
        picture.write_bytes(b"x" * 10)
        os.utime(picture, (NOW_S - 100 + index,) * 2)


def left(directory):
    return sorted(path.name for path in directory.rglob("*.jpg"))


def test_when_others_need_the_disk_old_pictures_give_way(tmp_path):
    fill(tmp_path, 5)
    retention = Retention(tmp_path, max_bytes=1000, max_age_s=DAY_S, disk=SmallDisk(others=48))
    retention.sweep(NOW_S)
    assert retention.has_room(NOW_S)
    assert left(tmp_path) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"], "at least 5 of 100 bytes are free again"


def test_a_disk_that_others_have_filled_has_no_room_for_pictures(tmp_path):
    fill(tmp_path, 1)
    retention = Retention(tmp_path, max_bytes=1000, max_age_s=DAY_S, disk=SmallDisk(others=96))
    retention.sweep(NOW_S)
    assert not retention.has_room(NOW_S) and left(tmp_path) == []


def test_with_the_reserve_untouched_nothing_is_swept(tmp_path):
    fill(tmp_path, 4)
    retention = Retention(tmp_path, max_bytes=1000, max_age_s=DAY_S, disk=SmallDisk(others=50))
    assert retention.has_room(NOW_S) and len(left(tmp_path)) == 4
