from __future__ import annotations

from defectd.evidence.retention import Disk
from defectd.recording.bounds import Bounds, Taken, full, no_room

ROOMY = Disk(total_bytes=10_000, free_bytes=9_000)
SOME = Taken(pictures=3, bytes=300, pending_bytes=200, seconds=2.0)


def test_without_bounds_of_their_own_pictures_and_seconds_never_end_it():
    assert full(Bounds(1000), SOME) == ""


def test_it_ends_with_the_last_picture_or_second_that_was_asked_for():
    assert full(Bounds(1000, pictures=3), SOME) == "3 pictures were asked for"
    assert full(Bounds(1000, pictures=4, seconds=2.0), SOME) == "2 s were asked for"


def test_what_is_still_being_written_counts_for_the_size():
    assert no_room(Bounds(1000), SOME, ROOMY, 500) == ""
    assert "would exceed 0.001 MB" in no_room(Bounds(1000), SOME, ROOMY, 501)


def test_the_disk_keeps_its_reserve():
    assert no_room(Bounds(10**9), SOME, Disk(total_bytes=10_000, free_bytes=1_200), 500) == ""
    assert "of the disk free" in no_room(Bounds(10**9), SOME, Disk(total_bytes=10_000, free_bytes=1_199), 500)
