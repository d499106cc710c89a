"""The real tracker on webs with known defects: as many births as defects, from a speed that it has to find out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("similari", reason="needs the tracker: pip install similari-trackers-rs (no wheel for Python 3.13)")

from defectd.tracking.tracker import SimilariTracker, TrackerFailed
from defectd.tracking.tracks import Rules, Tracks
from support.station import environment
from support.web_frames import Web

LOST_FRAMES = 5
STOPPING = {"pace": lambda frame: 0.0 if 150 <= frame < 220 else 1.0}
CHANGING = {"pace": lambda frame: 1.0 if frame < 200 else 0.6}


def births(web, motion=(0.0, 0.0)):
    """How many, how many defects were shown in two frames at least, and how often one got another identity."""
    tracks = Tracks(Rules(2, LOST_FRAMES, motion), lambda: SimilariTracker(0.2, LOST_FRAMES))
    born, shown, last, switches = 0, {}, {}, 0
    for frame, truths in web.pass_by():
        born += len(tracks.see(frame).born)
        for truth, defect in zip(truths, frame.defects):
            shown[truth] = shown.get(truth, 0) + 1
            track = next(each for each in tracks._open.values() if each.last.defect is defect)
            switches += last.get(truth, track.id) != track.id
            last[truth] = track.id
    return born, sum(count >= 2 for count in shown.values()), switches


@pytest.mark.parametrize("step_px", [1, 8, 25, 60, 110])
def test_at_a_known_speed_each_defect_is_born_once(step_px):
    born, shown, switches = births(Web(step_px), motion=(0.0, step_px * 10.0))
    assert born == shown and switches == 0


@pytest.mark.parametrize("step_px", [8, 25, 60])
def test_at_a_known_speed_missed_and_dropped_frames_change_next_to_nothing(step_px):
    born, shown, switches = births(Web(step_px, miss=0.15, drop=0.2), motion=(0.0, step_px * 10.0))
    assert abs(born - shown) <= 1 and switches <= 3


@pytest.mark.parametrize("step_px", [1, 8, 25, 60, 110])
def test_an_unknown_speed_costs_two_births_at_most(step_px):
    born, shown, switches = births(Web(step_px, miss=0.1, drop=0.1))
    assert abs(born - shown) <= 2 and switches <= 6


@pytest.mark.parametrize("step_px", [8, 25, 60])
def test_times_that_jitter_by_a_third_of_a_frame_cost_two_births_at_most(step_px):
    """Those of cameras that have no clock of their own are times of arrival."""
    born, shown, _ = births(Web(step_px, miss=0.1, late_s=0.03))
    assert abs(born - shown) <= 2


@pytest.mark.parametrize("changes", [STOPPING, CHANGING], ids=["stops", "slows down"])
def test_a_web_that_changes_its_speed_costs_a_few(changes):
    born, shown, _ = births(Web(25, miss=0.1, **changes), motion=(0.0, 250.0))
    assert abs(born - shown) <= 3


@pytest.mark.parametrize("gap, same", [(LOST_FRAMES, True), (LOST_FRAMES + 1, False)])
def test_it_forgets_when_the_rules_do(gap, same):
    tracker = SimilariTracker(0.2, LOST_FRAMES)
    (first,) = tracker.match([(100, 100, 30, 30)])
    for _ in range(gap - 1):
        tracker.match([])
    assert (tracker.match([(100, 100, 30, 30)]) == [first]) is same


@pytest.mark.parametrize("min_iou", [0.0, 1.0])
def test_the_ends_of_the_scale_are_no_panic(min_iou):
    assert len(SimilariTracker(min_iou, 5).match([(1, 1, 0, 0), (50, 50, 10, 10)])) == 2


def test_many_trackers_leave_no_thread_and_a_long_run_no_memory():
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(50):
        SimilariTracker(0.2, 5).match([(1, 1, 5, 5)])
    assert len(os.listdir("/proc/self/task")) <= threads + 4 and threading.active_count() < 10
    tracker = SimilariTracker(0.2, 5)

    def after(frames):
        for number in range(frames):
            tracker.match([((number * 50 + index * 70) % 5000, 100, 30, 30) for index in range(4)])
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    assert after(2000) * 1.02 + 2e6 > after(8000)


def test_what_has_expired_is_not_compared_with_new_boxes():
    """It took seconds: with 100 frames of 50 boxes, 5,000 were compared with each."""
    tracker = SimilariTracker(0.2, LOST_FRAMES)
    for frame in range(30):
        tracker.match([(index * 40.0, frame * 1000.0, 20.0, 20.0) for index in range(50)])
        assert sum(tracker._sort.shard_stats()) <= 50 * (LOST_FRAMES + 1)


PANIC = """
from defectd.tracking.tracker import SimilariTracker, TrackerFailed
tracker = SimilariTracker(0.2, 5)
tracker.match([(1, 1, 5, 5)])
try:
    tracker.match([(float("nan"), 1, 5, 5), (1, 1, 5, float("nan"))])
    tracker.match([(1, 1, 5, 5)])
except TrackerFailed as error:
    print("failed:", error)
del tracker
print("another one:", SimilariTracker(0.2, 5).match([(1, 1, 5, 5)]))
"""


def test_a_panic_is_an_error_and_another_tracker_works():
    """In a process of its own: Rust writes its panics to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PANIC], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "failed:" in done.stdout and "another one: [1]" in done.stdout
    assert issubclass(TrackerFailed, Exception)


PANICS = """
import os
from defectd.tracking.tracker import SimilariTracker, TrackerFailed
for _ in range(30):
    tracker = SimilariTracker(0.2, 5)
    try:
        tracker.match([(float("nan"), 1, 5, 5), (1, 1, 5, float("nan"))])
        tracker.match([(1, 1, 5, 5)])
    except TrackerFailed:
        pass
    else:
        raise AssertionError
print(len(os.listdir("/proc/self/task")), "threads, and another one:", SimilariTracker(0.2, 5).match([(1, 1, 5, 5)]))
"""


def test_one_that_panics_again_and_again_does_not_pile_up_threads():
    done = subprocess.run(
        [sys.executable, "-c", PANICS], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) <= 20 and "another one: [1]" in done.stdout
