"""How late a picture is, told by its own timestamp."""

from __future__ import annotations

from defectd.camera.lateness import MAX_LATE_NS, Lateness
from defectd.clock import NS_PER_MS

FRAME_MS = 40


def ms(lateness, stamp_ms, arrival_ms):
    return lateness.of(None if stamp_ms is None else int(stamp_ms * NS_PER_MS), int(arrival_ms * NS_PER_MS)) / NS_PER_MS


def running(frames=100, begin_ms=1_000_000, delay_ms=lambda number: 30):
    """A stream of 25 pictures a second that has been punctual for a while, and when its next picture is due."""
    lateness = Lateness()
    for number in range(frames):
        ms(lateness, number * FRAME_MS, begin_ms + number * FRAME_MS + delay_ms(number))
    return lateness, frames * FRAME_MS, begin_ms + frames * FRAME_MS + 30


def test_a_punctual_stream_is_never_late_whatever_its_clock_says():
    lateness, stamp_ms, due_ms = running()
    assert ms(lateness, stamp_ms, due_ms) == 0 and lateness.settled


def test_jitter_is_lateness_and_is_over_with_the_next_punctual_picture():
    lateness, stamp_ms, due_ms = running()
    assert ms(lateness, stamp_ms, due_ms + 17) == 17
    assert ms(lateness, stamp_ms + FRAME_MS, due_ms + FRAME_MS) == 0


def test_what_was_saved_up_is_late_by_as_much_as_it_waited():
    lateness, stamp_ms, due_ms = running()
    burst = [ms(lateness, stamp_ms + index * FRAME_MS, due_ms + 2000) for index in range(51)]
    assert burst == [2000 - index * FRAME_MS for index in range(51)]
    assert lateness.late_since_ns is None, "the last ones were punctual again"


def test_a_pause_longer_than_the_memory_does_not_make_the_first_picture_punctual():
    lateness, stamp_ms, due_ms = running()
    assert ms(lateness, stamp_ms, due_ms + 60_000) == 60_000
    assert ms(lateness, stamp_ms + FRAME_MS, due_ms + 60_001) == 60_001 - FRAME_MS


def test_a_stream_that_stays_late_is_known_to_since_its_first_late_picture():
    lateness, stamp_ms, due_ms = running()
    for index in range(75):
        ms(lateness, stamp_ms + index * FRAME_MS, due_ms + 1000 + index * FRAME_MS)
    assert lateness.late_since_ns == (due_ms + 1000) * NS_PER_MS


def test_a_camera_whose_timestamps_run_too_slowly_is_not_late():
    lateness = Lateness()
    late_ms = [ms(lateness, number * FRAME_MS * 0.995, number * FRAME_MS) for number in range(25 * 600)]
    assert max(late_ms) * NS_PER_MS < MAX_LATE_NS / 4


def test_a_stream_that_begins_with_saved_up_pictures_is_not_settled_before_it_has_caught_up():
    lateness, settled_at_ms = Lateness(), []
    arrivals_ms = [(stamp, max(stamp, 3000 + stamp / 4)) for stamp in range(0, 8000, FRAME_MS)]
    for stamp_ms, arrival_ms in arrivals_ms:
        ms(lateness, stamp_ms, arrival_ms)
        if lateness.settled:
            settled_at_ms.append(arrival_ms)
    assert 4000 <= settled_at_ms[0] <= 4600


def test_a_punctual_stream_is_settled_after_half_a_second():
    lateness = Lateness()
    seen = []
    for number in range(20):
        ms(lateness, number * FRAME_MS, number * FRAME_MS)
        seen.append(lateness.settled)
    assert seen.index(True) * FRAME_MS == 520 and all(seen[13:])


def test_a_picture_without_a_time_of_its_own_is_never_late():
    lateness = Lateness()
    assert [ms(lateness, None, arrival_ms) for arrival_ms in (0, 10, 5000)] == [0, 0, 0]
    assert lateness.late_since_ns is None
