"""Frame numbers that wrap, restart and have holes; times of cameras whose clock is not ours."""

from __future__ import annotations

import pytest

from defectd.camera.frame_count import MOST_MISSING, CaptureClock, FrameCount, spread
from defectd.clock import NS_PER_MS, NS_PER_S

WALL_NS = 1_790_000_000 * NS_PER_S


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ([7, 8, 9], [0, 0, 0]),
        ([7, 9, 13], [0, 1, 3]),
        ([65_534, 65_535, 1, 2], [0, 0, 0, 0]),
        ([65_534, 2], [0, 2]),
        ([65_535, 0, 1], [0, 0, 0]),
        ([0, 0, 0], [0, 0, 0]),
        ([500, 1, 2], [0, 0, 0]),
        ([100_000, 3], [0, 0]),
        ([1, 60_000], [0, MOST_MISSING]),
    ],
)
def test_holes_in_the_numbers_are_missing_frames(numbers, missing):
    count = FrameCount()
    assert [count.missing_before(number) for number in numbers] == missing


def test_what_comes_after_a_pause_on_purpose_misses_nothing():
    count = FrameCount()
    count.missing_before(5)
    count.forget()
    assert count.missing_before(50) == 0


def test_captured_times_have_the_rhythm_of_the_camera_and_not_of_the_network():
    clock, found = CaptureClock(), []
    for index, delay_ms in enumerate((2, 9, 30, 2, 15)):
        taken_ms = 100 * index
        now_ns = (taken_ms + delay_ms + 1) * NS_PER_MS
        wall_now_ns = WALL_NS + now_ns
        arrived_wall_ns = wall_now_ns - 1 * NS_PER_MS
        found.append(clock.captured_ns(55 * NS_PER_S + taken_ms * NS_PER_MS, arrived_wall_ns, wall_now_ns, now_ns))
    assert [later - earlier for earlier, later in zip(found, found[1:])] == [100 * NS_PER_MS] * 4
    assert found[0] == 2 * NS_PER_MS


def test_a_frame_that_waited_in_a_buffer_is_as_old_as_it_is():
    now_ns = 500 * NS_PER_S
    captured_ns = CaptureClock().captured_ns(0, WALL_NS - 900 * NS_PER_MS, WALL_NS, now_ns)
    assert captured_ns == now_ns - 900 * NS_PER_MS


@pytest.mark.parametrize("wall_ns", [0, WALL_NS - 3600 * NS_PER_S, WALL_NS + NS_PER_S])
def test_a_wall_clock_that_was_set_meanwhile_is_not_believed(wall_ns):
    assert CaptureClock().captured_ns(1, wall_ns, WALL_NS, 77) == 77


def test_a_camera_whose_clock_was_set_is_believed_anew():
    clock = CaptureClock()
    clock.captured_ns(10 * NS_PER_S, WALL_NS, WALL_NS, 10 * NS_PER_S)
    assert clock.captured_ns(1, WALL_NS, WALL_NS, 11 * NS_PER_S) == 11 * NS_PER_S


def test_the_clocks_may_drift():
    clock = CaptureClock()
    for second in range(3600):
        now_ns = (1000 + second) * NS_PER_S
        camera_ns = second * (NS_PER_S - 100_000)  # 100 ppm slow
        captured_ns = clock.captured_ns(camera_ns, WALL_NS, WALL_NS, now_ns)
        assert abs(captured_ns - now_ns) <= 7 * NS_PER_MS


def test_missing_frames_lie_between_those_that_came():
    assert spread(100, 400, 2) == [200, 300]
    assert spread(None, 5 * NS_PER_MS, 2) == [4 * NS_PER_MS] * 2
