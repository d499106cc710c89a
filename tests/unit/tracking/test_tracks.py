"""A defect of the web is born once and ends once, whatever its frames look like."""

from __future__ import annotations

import pytest

from defectd.tracking.tracker import TrackerFailed
from defectd.tracking.tracks import Rules, Tracks
from support.web_frames import PlainTracker, Web, defect, seen

BOX = (100.0, 100.0, 30.0, 30.0)


def tracks(confirm_frames=2, lost_frames=3, motion=(0.0, 0.0)):
    return Tracks(Rules(confirm_frames, lost_frames, motion), PlainTracker)


def test_it_is_born_when_it_was_seen_often_enough_and_told_from_its_first_frame():
    web = tracks(confirm_frames=3)
    assert [len(web.see(seen(number, defect(BOX))).born) for number in (1, 2)] == [0, 0]
    (born,) = web.see(seen(3, defect(BOX))).born
    assert (born.first.frame.trigger, born.last.frame.trigger, born.frames) == (1, 3, 3)
    assert web.see(seen(4, defect(BOX))).born == ()


def test_it_ends_once_when_it_was_not_seen_for_long_enough():
    web = tracks(lost_frames=3)
    web.see(seen(1, defect(BOX))), web.see(seen(2, defect(BOX)))
    ended = [web.see(seen(number)).ended for number in range(3, 9)]
    assert [len(each) for each in ended] == [0, 0, 1, 0, 0, 0]
    assert ended[2][0].last.frame.trigger == 2


def test_what_was_seen_too_seldom_is_a_flicker_and_counted():
    web = tracks(lost_frames=2)
    web.see(seen(1, defect(BOX)))
    assert [web.see(seen(number)).flickers for number in (2, 3, 4)] == [0, 1, 0]


def test_it_is_called_what_it_was_called_most_often():
    web = tracks()
    for number, (code, confidence) in enumerate([("HOLE", 0.6), ("STAIN", 0.95), ("HOLE", 0.8)], 1):
        web.see(seen(number, defect(BOX, code, confidence)))
    (track,) = web.born
    assert (track.named_by.code, track.named_by.confidence) == ("HOLE", 0.8)
    assert track.best.defect.confidence == 0.95 and track.codes == {"HOLE": 2, "STAIN": 1}


def test_frames_that_were_dropped_do_not_tear_it_apart_when_the_speed_is_known():
    web = tracks(motion=(0.0, 400.0))
    born = []
    for number in (1, 2, 5, 6, 9):  # 40 px a frame: no two boxes overlap in the picture
        born += web.see(seen(number, defect((100.0, 40.0 * number, 30.0, 30.0)))).born
    assert len(born) == 1 and web.born[0].frames == 5


@pytest.mark.parametrize("motion", [(0.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("step_px", [4, 25, 60])
def test_the_births_are_the_physical_defects(step_px, motion):
    web, passing = tracks(lost_frames=5, motion=(0.0, motion[1] * step_px * 10)), Web(step_px, miss=0.1, drop=0.1)
    shown, born = set(), 0
    for frame, truths in passing.pass_by():
        shown.update(truths)
        born += len(web.see(frame).born)
    assert abs(born - len(shown)) <= 2


def test_hours_at_full_speed_do_not_blur_the_place():
    """Coordinates on the web would grow beyond what 32 bits hold exactly."""
    web = tracks(motion=(0.0, 40_000.0))
    born = 0
    for number in range(200):
        row = (number % 4) * 4000.0
        born += len(web.see(seen(number, defect((100.0, row, 30.0, 30.0)))).born)
        assert max(map(abs, web._offset_px)) <= 50_000
    assert born == 50


def test_after_a_failure_of_the_tracker_it_begins_with_nothing():
    class Failing(PlainTracker):
        def match(self, boxes):
            if len(boxes) > 1:
                raise TrackerFailed("panic")
            return super().match(boxes)

    web = Tracks(Rules(), Failing)
    web.see(seen(1, defect(BOX))), web.see(seen(2, defect(BOX)))
    with pytest.raises(TrackerFailed):
        web.see(seen(3, defect(BOX), defect((300.0, 300.0, 20.0, 20.0))))
    assert len(web.forget().ended) == 1 and web.born == []
    web.see(seen(4, defect(BOX)))
    assert len(web.see(seen(5, defect(BOX))).born) == 1


def test_of_a_frame_full_of_findings_the_most_confident_ones_are_followed_and_the_rest_is_counted():
    web, places = tracks(), [(40.0 * column, 40.0 * row, 20.0, 20.0) for row in range(10) for column in range(12)]
    for number in (1, 2):
        found = [defect(place, confidence=0.5 + index / 1000) for index, place in enumerate(places)]
        change = web.see(seen(number, *found))
    assert change.left_out == 70
    assert sorted(track.last.defect.bbox_px for track in change.born) == sorted(places[70:])
    assert web.see(seen(3, defect(places[0]))).left_out == 0
