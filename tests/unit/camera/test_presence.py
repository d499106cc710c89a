"""When something before the camera is a unit."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest

from defectd.camera.base import Arrival, Undecodable
from defectd.camera.presence import PresenceLimits, PresenceRule, PresenceSource, Seen, presence_rule, small_view
from defectd.clock import NS_PER_S
from defectd.errors import CameraError

HEIGHT, WIDTH = 60, 120
UNIT = 40  # wide


def belt(unit_x=None, light=0.0, frame=0):
    """A frame: an empty belt with sensor noise, or one with a unit whose left edge is at *unit_x*."""
    picture = np.full((HEIGHT, WIDTH, 3), 70.0 + light)
    if unit_x is not None:
        picture[10:50, max(0, unit_x) : max(0, unit_x + UNIT)] = 170.0 + light
    noise = np.random.default_rng(frame).normal(0, 3, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def passing(stop_frames=4, step_px=20, frame=0):
    """A unit slides in, stops in the middle, and slides out."""
    xs = [*range(-UNIT, 40, step_px), *[40] * stop_frames, *range(40 + step_px, WIDTH + 1, step_px)]
    return [belt(x, frame=frame + index) for index, x in enumerate(xs)]


def empty(frames, start=0):
    return [belt(frame=start + index) for index in range(frames)]


def watch(rule, frames):
    return [rule.see(small_view(frame, rule.limits.region)) for frame in frames]


@pytest.fixture
def rule():
    rule = PresenceRule(PresenceLimits())
    watch(rule, empty(6))
    return rule


def test_an_empty_belt_gives_no_unit(rule):
    assert set(watch(rule, empty(50))) == {Seen.NOTHING}


def test_a_unit_that_stops_is_born_once_where_it_stands_still(rule):
    frames = passing(stop_frames=6)
    seen = watch(rule, [*frames, *empty(5)])
    assert seen.count(Seen.BORN) == 1 and Seen.PASSED not in seen
    assert np.array_equal(frames[seen.index(Seen.BORN)], belt(40, frame=seen.index(Seen.BORN)))


def test_each_unit_is_born(rule):
    seen = [each for unit in range(7) for each in watch(rule, [*passing(frame=100 * unit), *empty(4)])]
    assert seen.count(Seen.BORN) == 7


def test_a_unit_that_never_stood_still_has_passed_and_is_told(rule):
    seen = watch(rule, [*passing(stop_frames=1), *empty(5)])
    assert seen.count(Seen.PASSED) == 1 and Seen.BORN not in seen


def test_on_a_line_that_never_stops_a_unit_is_born_as_it_comes_in():
    rule = PresenceRule(PresenceLimits(settle_frames=0, min_share=0.2))
    seen = watch(rule, [*empty(6), *passing(stop_frames=0, step_px=10), *empty(5)])
    assert seen.count(Seen.BORN) == 1 and Seen.PASSED not in seen


def test_a_flicker_in_between_gives_no_second_unit(rule):
    standing = [belt(40, frame=index) for index in range(12)]
    standing[6] = belt(frame=6)
    assert watch(rule, standing).count(Seen.BORN) == 1


def test_two_units_without_enough_absence_are_one():
    rule = PresenceRule(PresenceLimits(absent_frames=5))
    seen = watch(rule, [*empty(6), *passing(), *empty(2), *passing(), *empty(6)])
    assert seen.count(Seen.BORN) == 1


def test_something_smaller_than_the_share_is_no_unit():
    rule = PresenceRule(PresenceLimits(min_share=0.5))
    assert set(watch(rule, [*empty(6), *passing()])) == {Seen.NOTHING}


def test_the_background_follows_the_light_of_a_day(rule):
    dawn = [belt(light=60 * step / 4000, frame=step) for step in range(4000)]
    assert set(watch(rule, dawn)) == {Seen.NOTHING}
    assert watch(rule, [belt(40, light=60, frame=step) for step in range(4)]).count(Seen.BORN) == 1


def test_a_unit_that_stands_for_an_hour_does_not_become_background(rule):
    seen = watch(rule, [*passing(stop_frames=2000), *empty(5), *passing(), *empty(5)])
    assert seen.count(Seen.BORN) == 2


def test_after_the_camera_was_away_who_is_there_is_a_unit_again(rule):
    standing = [belt(40, frame=index) for index in range(5)]
    assert watch(rule, standing).count(Seen.BORN) == 1
    rule.reopened()
    assert watch(rule, standing).count(Seen.BORN) == 1


def test_only_the_region_counts():
    rule = PresenceRule(PresenceLimits(region=[0, 0, 60, 60]))
    right = [belt(70, frame=index) for index in range(5)]
    left = [belt(5, frame=index) for index in range(5)]
    assert set(watch(rule, [*empty(6), *right])) == {Seen.NOTHING}
    assert Seen.BORN in watch(rule, left)


def test_a_picture_of_another_size_is_another_background(rule):
    seen = watch(rule, [np.repeat(belt(frame=index), 2, axis=0) for index in range(20)])
    assert set(seen) == {Seen.NOTHING}


@pytest.mark.parametrize("shape", [(1, 1), (2, 500), (480, 640), (1080, 1920), (3000, 4000)])
def test_a_view_is_small_and_keeps_the_mean(shape):
    view = small_view(np.full((*shape, 3), 77, np.uint8), None)
    assert max(view.shape) <= 320 and min(view.shape) >= 1 and np.allclose(view, 77)


def test_a_region_outside_the_picture_is_the_configurations_mistake():
    with pytest.raises(CameraError, match=r"region = \[0, 0, 121, 60\] lies outside: the picture has 120x60 pixels"):
        small_view(belt(), [0, 0, 121, 60])


class Frames:
    """A free-running camera that gives these frames, 10 a second of its own time; an exception is one, too."""

    patient = False

    def __init__(self, frames):
        self._frames, self.asked = frames, []

    def wait(self, number, timeout_s):
        self.asked.append(number)
        if not self._frames:
            return None
        self._frame = self._frames.pop(0)
        captured_ns = NS_PER_S * len(self.asked) // 10 + 1
        lost = self._frame if isinstance(self._frame, str) else None
        return Arrival("frame", captured_ns, datetime.now(timezone.utc), len(self.asked), lost)

    def shoot(self):
        pass

    def idle(self):
        pass

    def fetch(self, allocate):
        if isinstance(self._frame, Exception):
            raise self._frame
        np.copyto(allocate(*self._frame.shape[:2]), self._frame)

    def close(self):
        pass


class Watched:
    """A source with a presence rule, the units that it gave, and what it said."""

    def __init__(self, frames, rule=None, first=1, **limits):
        self.said, self.shown = [], 0
        self.camera = Frames(frames)
        rule = rule or presence_rule(limits)
        self.source = PresenceSource(self.camera, "top", first, rule, self._say, self._show)
        self.units, self.pictures = [], []
        number = first
        while (arrival := self.source.wait(number, 5.0)) is not None:
            self.units.append(arrival)
            number += 1
            if arrival.lost is None:
                self.source.fetch(self._allocate)

    def _allocate(self, height_px, width_px):
        self.pictures.append(np.zeros((height_px, width_px, 3), np.uint8))
        return self.pictures[-1]

    def _show(self, pixels):
        self.shown += 1

    def _say(self, code, state, detail):
        self.said.append((code, state, detail))


def test_units_are_numbered_named_and_have_the_picture_that_was_judged():
    frames = [*empty(6), *passing(frame=20), *empty(4), *passing(frame=50), *empty(4)]
    count = len(frames)
    seen = Watched(frames, first=41)
    assert [unit.unit_id for unit in seen.units] == ["top-00000041", "top-00000042"]
    assert all(picture[30, 60].mean() > 150 for picture in seen.pictures) and len(seen.pictures) == 2
    assert seen.units[0].frame_id is not None and seen.units[0].frame_id < seen.units[1].frame_id
    assert seen.camera.asked[:count] == list(range(41, 41 + count))
    assert seen.shown == count


def test_a_unit_that_passed_too_fast_is_owed_a_verdict():
    seen = Watched([*empty(6), *passing(stop_frames=1), *empty(4)])
    assert [unit.lost for unit in seen.units] == ["frame_missing"]


@pytest.mark.parametrize("kind", ["frame_missing", "frame_incomplete", Undecodable("no JPEG")], ids=str)
def test_lost_frames_are_no_units_and_a_fault_if_that_goes_on(kind):
    seen = Watched([*empty(6), *[kind] * 9, *empty(1), *[kind] * 20, *passing(), *empty(4)])
    assert len(seen.units) == 1
    said = [(code, state) for code, state, _ in seen.said]
    assert said == [("frames_unreadable", "begin"), ("frames_unreadable", "end")]


def test_presence_without_an_end_is_a_fault_that_says_what_to_do():
    seen = Watched([*empty(6), *[belt(40, frame=index) for index in range(40)], *empty(3)], stuck_s=3.0)
    assert [(code, state) for code, state, _ in seen.said] == [("presence_stuck", "begin"), ("presence_stuck", "end")]
    assert "restart while nothing is before the camera" in seen.said[0][2]
    assert len(seen.units) == 1


@pytest.mark.parametrize("frames", [[belt(40)] * 40, ["frame_incomplete"] * 20], ids=["stuck", "unreadable"])
def test_a_camera_that_is_closed_leaves_no_fault_behind(frames):
    seen = Watched([*empty(6), *frames], stuck_s=3.0)
    seen.source.close()
    seen.source.close()
    assert [state for _, state, _ in seen.said] == ["begin", "end"]


def test_a_worker_that_starts_while_a_unit_is_there_has_the_background_of_its_predecessor(tmp_path):
    file = str(tmp_path / "presence-top.npy")
    Watched(empty(8), background=file)
    seen = Watched([*[belt(40, frame=index) for index in range(8)], *empty(4), *passing(), *empty(4)], background=file)
    assert len(seen.units) == 2 and all(picture[30, 60].mean() > 150 for picture in seen.pictures)


def test_a_background_of_another_region_is_learned_anew(tmp_path):
    file = str(tmp_path / "presence-top.npy")
    Watched(empty(8), background=file, region=[0, 0, 100, 60])
    frames = [belt(light=50, frame=index) for index in range(12)]  # before the view that was kept, this is a unit
    assert len(Watched(list(frames), background=file, region=[0, 0, 100, 60]).units) == 1
    assert Watched(list(frames), background=file, region=[20, 0, 100, 60]).units == []


DAMAGED_HEADER = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (20, 30, }" + b" " * 60


@pytest.mark.parametrize("content", [b"", b"no numpy", b"\x93NUMPY\x01\x00", b"PK\x03\x04", DAMAGED_HEADER])
def test_a_spoilt_file_is_no_background_and_is_written_anew(tmp_path, content):
    file = tmp_path / "presence-top.npy"
    file.write_bytes(content)
    Watched(empty(8), background=str(file))
    assert np.load(file).shape == small_view(belt(), None).shape


def test_a_background_that_cannot_be_kept_costs_nothing(tmp_path):
    seen = Watched([*empty(6), *passing(), *empty(4)], background=str(tmp_path / "none" / "presence.npy"))
    assert len(seen.units) == 1
