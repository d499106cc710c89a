"""Stretches follow each other without a hole, and count every frame, whatever happens; births carry their picture."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from defectd.examples import EXAMPLES
from defectd.inspection.events import Image, InspectionEvent, new_id
from defectd.inspection.web_wire import StretchEvent, TrackEvent
from defectd.tracking.tracks import Rules
from defectd.tracking.web import WebLine
from support.web_frames import NOON, PlainTracker, defect

SECOND_NS = 1_000_000_000
BOX = (100.0, 100.0, 30.0, 30.0)
STUMBLES_OVER = (7.0, 7.0, 7.0, 7.0)
PICTURE = Image(role="raw", path="2026-11-20/x.jpg", bytes=1, sha256="0" * 64)


class Stumbling(PlainTracker):
    def match(self, boxes):
        if STUMBLES_OVER in boxes:
            raise MemoryError("Unable to allocate 5 GiB")
        return super().match(boxes)


class Bench:
    """A web line; the test plays the loop and the outbox."""

    def __init__(self, told=0, next_trigger=1, report_every_s=1.0):
        self.web = WebLine("web", Rules(2, 2), report_every_s, Stumbling, told_trigger=told, next_trigger=next_trigger)
        self.number, self.now_ns, self.dropped = next_trigger - 1, 10 * SECOND_NS, 0
        self.told, self.positions, self.wanted = [], {}, []

    def frame(self, verdict="passed", *defects, error=None, images=()):
        self.number += 1
        self.now_ns += SECOND_NS // 10
        example = EXAMPLES[InspectionEvent]
        event = example.model_copy(
            update={
                "id": new_id(), "verdict": verdict, "error": error, "defects": list(defects), "needs_review": False,
                "started_at": NOON + timedelta(microseconds=self.now_ns // 1000), "images": list(images),
                "frame": example.frame.model_copy(
                    update={"camera": "web", "trigger": self.number, "dropped_before": self.dropped}
                ),
            }
        )  # fmt: skip
        self.dropped = 0
        self.wanted.append(self.web.see(event, self.now_ns))
        self.take(self.web.take(event, {"trigger/web": self.number}, self.now_ns))

    def drop(self):
        self.number += 1
        self.dropped += 1

    def wait(self):
        self.now_ns += 2 * SECOND_NS
        self.take(self.web.tend(self.now_ns))

    def close(self):
        if self.dropped:  # the newest of the dropped frames is told as skipped
            self.dropped -= 1
            self.number -= 1
            self.frame("skipped")
        self.take(self.web.close())

    def take(self, told):
        for event, positions in told:
            self.positions.update(positions)
            if event is not None:
                self.told.append(event)

    def of(self, kind):
        return [event for event in self.told if isinstance(event, kind)]


STEPS = {
    "pass": lambda bench: bench.frame(),
    "fail": lambda bench: bench.frame("failed", defect(BOX)),
    "error": lambda bench: bench.frame("error", error="frame_incomplete"),
    "stumble": lambda bench: bench.frame("failed", defect(STUMBLES_OVER)),
    "drop": Bench.drop,
    "wait": Bench.wait,
}


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=60), told=st.integers(0, 5), lost=st.integers(0, 5))
def test_every_frame_is_in_one_stretch(steps, told, lost):
    bench = Bench(told, told + lost + 1)
    for step in steps:
        STEPS[step](bench)
        assert bench.positions.get("trigger/web", told) <= bench.positions.get("seen/web", told) <= bench.number
    bench.close()
    stretches = bench.of(StretchEvent)
    if not stretches:
        assert bench.number == told + lost
        return
    assert stretches[0].from_trigger == told + 1 and stretches[-1].to_trigger == bench.number
    assert all(later.from_trigger == earlier.to_trigger + 1 for earlier, later in zip(stretches, stretches[1:]))
    for stretch in stretches:
        assert stretch.frames == stretch.inspected + stretch.dropped + stretch.lost
        assert stretch.inspected == sum(stretch.verdicts.values())
    assert sum(stretch.lost for stretch in stretches) == lost
    assert sum(stretch.errors.get("frame_incomplete", 0) for stretch in stretches) == steps.count("error")
    assert sum(stretch.dropped for stretch in stretches) == steps.count("drop")
    tracks = bench.of(TrackEvent)
    assert sum(stretch.tracks_born for stretch in stretches) == sum(track.state == "born" for track in tracks)
    ends = [track.track_id for track in tracks if track.state == "ended"]
    assert ends == [track.track_id for track in tracks if track.state == "born"], "each birth has its end, in order"
    assert bench.positions["trigger/web"] == bench.number


def test_a_birth_carries_the_picture_of_its_frame_and_only_that_one_is_kept():
    bench = Bench()
    for _ in range(4):
        bench.frame("failed", defect(BOX), images=[PICTURE])
    assert bench.wanted == [False, True, False, False]
    (born,) = bench.of(TrackEvent)
    assert born.images == [PICTURE] and (born.first_trigger, born.last_trigger) == (1, 2)


def test_a_stop_ends_what_is_open_and_says_so():
    bench = Bench()
    bench.frame("failed", defect(BOX)), bench.frame("failed", defect(BOX))
    bench.close()
    born, ended = bench.of(TrackEvent)
    assert (ended.state, ended.reason, ended.track_id, ended.images) == ("ended", "stopped", born.track_id, [])
    assert bench.of(StretchEvent)[-1].tracks_open == 0


def test_a_line_that_stands_still_tells_its_last_frames_all_the_same():
    bench = Bench()
    bench.frame()
    assert bench.of(StretchEvent) == []
    bench.wait()
    assert [stretch.frames for stretch in bench.of(StretchEvent)] == [1]


def test_the_numbers_that_were_given_go_to_disk_before_their_stretch_does():
    bench = Bench(report_every_s=3600)
    bench.frame("failed", defect(BOX)), bench.frame("failed", defect(BOX))
    assert bench.positions == {"seen/web": 2}, "a birth names them, so they must not be given again"


def test_a_tracker_that_stumbles_ends_its_tracks_and_is_a_trouble_for_a_minute_which_the_log_has_once(caplog):
    bench = Bench()
    bench.frame("failed", defect(BOX)), bench.frame("failed", defect(BOX))
    for _ in range(3):
        bench.frame("failed", defect(STUMBLES_OVER))
    assert [track.reason for track in bench.of(TrackEvent)] == [None, "tracker_failed"]
    assert len(caplog.records) == 1 and bench.web.trouble == "MemoryError: Unable to allocate 5 GiB"
    bench.frame("failed", defect(BOX)), bench.frame("failed", defect(BOX))
    assert bench.wanted[-1] and bench.web.trouble is not None
    bench.now_ns += 60 * SECOND_NS
    bench.frame()
    assert bench.web.trouble is None


def test_what_was_too_much_to_follow_is_counted_in_its_stretch():
    bench = Bench()
    bench.frame("failed", *[defect((20.0 * index, 100.0, 10.0, 10.0)) for index in range(60)])
    bench.close()
    assert [stretch.left_out for stretch in bench.of(StretchEvent)] == [10]
