"""How fast the web moves is learned from the defects, also when it stops, and in spite of wrong pairs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from defectd.tracking.motion import WebMotion, slip_px
from support.web_frames import HZ, Web


def learned(web, start=(0.0, 0.0)):
    """By frame."""
    motion, speeds = WebMotion(start), {}
    for frame, _ in web.pass_by():
        motion.look(frame.captured_ns / 1e9, [defect.bbox_px for defect in frame.defects])
        speeds[frame.trigger] = motion.px_per_s
    return speeds


@pytest.mark.parametrize("step_px", [0.5, 4, 25, 120])
def test_a_speed_that_nobody_told_is_found(step_px):
    x, y = list(learned(Web(step_px, miss=0.15, drop=0.2)).values())[-1]
    assert x == pytest.approx(0, abs=12) and y == pytest.approx(step_px * HZ, rel=0.05, abs=12)


def test_a_speed_that_was_told_wrongly_is_corrected():
    assert learned(Web(25), start=(0.0, 600.0))[399][1] == pytest.approx(250, abs=15)


def test_a_web_that_stops_is_seen_to_stop():
    speeds = learned(Web(25, pace=lambda frame: 0.0 if 200 <= frame < 260 else 1.0))
    assert speeds[199][1] == pytest.approx(250, abs=15)
    assert speeds[206][1] == pytest.approx(0, abs=15), "within half a second"
    assert speeds[266][1] == pytest.approx(250, abs=15), "and to start again"


def test_one_pair_of_boxes_proves_nothing():
    motion = WebMotion((0.0, 100.0))
    assert not motion.look(1.0, [(10, 10, 20, 20)])
    assert not motion.look(1.1, [(400, 300, 20, 20)])
    assert motion.px_per_s == (0.0, 100.0)


def test_frames_without_a_finding_change_nothing():
    motion = WebMotion((0.0, 100.0))
    assert not any(motion.look(at_s / 10, []) for at_s in range(50))
    assert motion.px_per_s == (0.0, 100.0)


def test_a_frame_full_of_findings_is_judged_by_some_of_them_and_takes_little_memory():
    rng = np.random.default_rng(1)
    places = [(x, y, 5.0, 5.0) for x, y in rng.uniform(0, 4000, (300, 2))]
    boxes = [(x + 40.0, y, width, height) for x, y, width, height in places]
    tracemalloc.start()
    try:
        x, y = slip_px(places, boxes, (10_000.0, 0.0), 0.1)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert x == pytest.approx(40, abs=1) and y == pytest.approx(0, abs=1)
