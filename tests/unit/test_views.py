"""Several looks at one unit: whatever the cameras do, and in whatever order, each unit has one verdict of all views."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectd.camera.feed import CameraFeed, CameraPlan
from defectd.clock import NS_PER_MS, monotonic_ns
from defectd.inspection.detections import MONOTONIC, EngineTimings
from defectd.inspection.events import Defect, Model, Recipe
from defectd.inspection.frame import Frame
from defectd.inspection.record import EngineAnswer, StationIdentity
from defectd.inspection.verdict import Judgement, combine, refuse
from defectd.line import Line, LinePlan, Tally
from defectd.workers.protocol import Framed, Missed, Named, Triggered

IDENTITY = StationIdentity("aoi1", "boot", "0" * 64, Recipe(name="pcb", revision="1"))
OPEN = Defect(
    code="PCB-OPEN", category="", class_name="open", description="", confidence=0.9, priority=1, bbox_px=(1, 2, 3, 4)
)


class Bench:
    """A line of two cameras without processes; the test plays them and the engine."""

    def __init__(self, commanded=False, bottom_shots=1, pair_within_ms=100.0):
        self.top, self.bottom = (
            CameraFeed(
                CameraPlan(
                    name, "simulated", "triggered", "counter", True, False, 64 * 64 * 3, 5.0, 1, 1, {},
                    unit="board", shots=shots, commanded=commanded,
                ),
                index,
                "INFO",
            )
            for index, (name, shots) in enumerate([("top", 1), ("bottom", bottom_shots)])
        )  # fmt: skip
        self.tally, self.stored, self.positions = Tally(), [], {}
        plan = LinePlan("board", 1, 250, pair_within_ms)
        self.line = Line(plan, [self.top, self.bottom], IDENTITY, None, lambda: None, self.store, self.tally)
        self.numbers = {self.top: 0, self.bottom: 0}

    def store(self, event, positions):
        self.stored.append(event)
        self.positions.update(positions)

    def trigger(self, feed, at_ns):
        self.numbers[feed] += 1
        self.line.triggered(feed, Triggered(self.numbers[feed], at_ns, datetime.now(timezone.utc), "by the camera"))
        return self.numbers[feed]

    def frame(self, feed, number):
        slot = feed.lend()
        self.line.framed(feed, Framed(number, Frame(slot, 0, 64, 64, None)))

    def judge(self, judgement=None):
        view = self.line.take_waiting()
        self.line.release_from_engine(view)
        if not view.unit.decided:
            self.line.settle(view, judgement or Judgement("passed"))
        return view

    def see(self, feed, at_ns, judgement=None):
        self.frame(feed, self.trigger(feed, at_ns))
        self.judge(judgement)

    def late(self):
        self.line.refuse_late(monotonic_ns() + 10**10, engine_ready=True)

    def end(self):
        self.line.store_finished()
        assert self.line.empty and self.line._views == {}
        assert all(feed._leases.free == feed.ring.layout.slots for feed in (self.top, self.bottom)), (
            "every slot has come back"
        )
        for feed in (self.top, self.bottom):
            feed.ring.close()
        return self.stored


def test_the_verdict_waits_for_all_views_and_tells_which_one_shows_the_defect():
    bench, now_ns = Bench(), monotonic_ns()
    bench.see(bench.top, now_ns)
    bench.line.store_finished()
    assert bench.stored == [], "half of a unit is no unit"
    bench.see(bench.bottom, now_ns + 3 * NS_PER_MS, Judgement("failed", defects=(OPEN,)))
    [event] = bench.end()
    assert (event.verdict, [defect.camera for defect in event.defects]) == ("failed", ["bottom"])
    assert [(view.camera, view.verdict) for view in event.views] == [("top", "passed"), ("bottom", "failed")]
    assert (event.frame.camera, event.frame.trigger, event.unit_id) == ("board", 1, "board-00000001")
    assert bench.positions == {"trigger/board": 1, "trigger/top": 1, "trigger/bottom": 1}


def test_a_missing_view_is_an_error_that_names_it_and_the_defects_that_were_seen_are_told():
    bench = Bench()
    bench.see(bench.top, monotonic_ns(), Judgement("failed", defects=(OPEN,)))
    bench.late()
    [event] = bench.end()
    assert (event.verdict, event.error, event.error_detail) == (
        "error",
        "view_missing",
        "bottom: no picture of this unit",
    )
    assert [defect.camera for defect in event.defects] == ["top"]


def test_a_view_that_missed_a_unit_does_not_shift_the_units_after_it():
    bench, now_ns = Bench(), monotonic_ns()
    for unit in range(4):
        at_ns = now_ns + unit * 250 * NS_PER_MS
        bench.see(bench.top, at_ns)
        if unit != 1:
            bench.see(bench.bottom, at_ns + 5 * NS_PER_MS)
    bench.late()
    assert [event.verdict for event in bench.end()] == ["passed", "error", "passed", "passed"]


def test_the_camera_that_is_first_may_be_the_other_one_each_time():
    bench, now_ns = Bench(), monotonic_ns()
    bench.see(bench.bottom, now_ns), bench.see(bench.top, now_ns + NS_PER_MS)
    bench.see(bench.top, now_ns + 250 * NS_PER_MS), bench.see(bench.bottom, now_ns + 251 * NS_PER_MS)
    assert [event.verdict for event in bench.end()] == ["passed", "passed"]


def test_several_shots_of_one_camera_are_views_of_their_own():
    bench, now_ns = Bench(bottom_shots=2), monotonic_ns()
    bench.see(bench.top, now_ns)
    bench.see(bench.bottom, now_ns + NS_PER_MS)
    bench.see(bench.bottom, now_ns + 20 * NS_PER_MS, Judgement("failed", defects=(OPEN,)))
    [event] = bench.end()
    assert [view.camera for view in event.views] == ["top", "bottom#1", "bottom#2"]
    assert event.defects[0].camera == "bottom#2" and bench.positions["trigger/bottom"] == 2


def test_the_death_of_one_camera_settles_its_view_and_waits_for_the_other():
    bench, now_ns = Bench(), monotonic_ns()
    bench.trigger(bench.bottom, now_ns)
    number = bench.trigger(bench.top, now_ns)
    bench.line.refuse_without_frame(bench.bottom, refuse("camera_lost", "killed by SIGKILL"))
    assert list(bench.line.undecided()), "the other view can still tell something"
    bench.frame(bench.top, number)
    bench.judge()
    [event] = bench.end()
    assert (event.error, event.error_detail) == ("camera_lost", "bottom: killed by SIGKILL")


def test_units_that_are_born_by_the_daemon_of_cameras_that_are_not_open_are_errors_at_once():
    bench = Bench(commanded=True)
    bench.line.bear("PCB-4711", "fixture 2", monotonic_ns())
    [event] = bench.end()
    assert (event.unit_id, event.unit_id_source, event.position) == ("PCB-4711", "message", "fixture 2")
    assert (event.verdict, event.error) == ("error", "camera_lost")
    assert bench.positions == {"trigger/board": 1, "trigger/top": 1, "trigger/bottom": 1}


def test_a_code_in_the_picture_names_the_unit_unless_a_message_has():
    bench, now_ns = Bench(), monotonic_ns()
    number = bench.trigger(bench.top, now_ns)
    bench.line.named(bench.top, Named(number, "SN-1"))
    bench.line.announced.add("SN-2", None, now_ns, 10)
    number = bench.trigger(bench.top, now_ns + 300 * NS_PER_MS)
    bench.line.named(bench.top, Named(number, "SN-3"))
    bench.late()
    named = [(event.unit_id, event.unit_id_source) for event in bench.end()]
    assert named == [("SN-1", "code"), ("SN-2", "message")]


STEPS = ["top", "bottom", "frame top", "frame bottom", "miss top", "miss bottom", "judge", "die bottom", "late"]


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=50))
def test_every_unit_is_accounted_for_whatever_the_cameras_do(steps):
    bench, at_ns = Bench(), monotonic_ns()
    feeds, owed = {"top": bench.top, "bottom": bench.bottom}, {"top": [], "bottom": []}
    for step in steps:
        at_ns += 40 * NS_PER_MS
        what, _, name = step.rpartition(" ")
        if what == "" and name in feeds:
            owed[name].append(bench.trigger(feeds[name], at_ns))
        elif what == "frame" and owed[name] and feeds[name]._leases.free:
            bench.frame(feeds[name], owed[name].pop(0))
        elif what == "miss" and owed[name]:
            bench.line.missed(feeds[name], Missed(owed[name].pop(0), -1, "frame_undecodable", "why"))
        elif step == "judge" and bench.line.oldest_waiting is not None:
            bench.judge()
        elif what == "die":
            bench.line.refuse_without_frame(feeds[name], refuse("camera_lost", "it died"))
        elif step == "late":
            bench.late()
        bench.line.store_finished()
    bench.line.abort(Judgement("aborted"))
    events = bench.end()
    assert [event.frame.trigger for event in events] == list(range(1, len(events) + 1)), "each once, in order"
    assert len(events) == bench.tally.counts["triggers"]
    seen = [(view.camera, view.trigger) for event in events for view in event.views]
    assert len(seen) == len(set(seen)), "no picture belongs to two units"


@pytest.mark.parametrize(
    "verdicts", [["passed", "passed"], ["failed", "passed"], ["passed", "error"], ["failed", "error"]]
)
def test_one_blind_view_makes_an_error_and_one_bad_view_a_failure(verdicts):
    seen = {
        "passed": Judgement("passed"),
        "failed": Judgement("failed", defects=(OPEN,)),
        "error": refuse("camera_lost", ""),
    }
    together = combine([(f"view{index}", seen[verdict]) for index, verdict in enumerate(verdicts)])
    assert together.verdict == ("error" if "error" in verdicts else "failed" if "failed" in verdicts else "passed")
    assert len(together.defects) == verdicts.count("failed")


def test_a_stop_in_the_middle_passes_no_unit_that_was_not_wholly_seen():
    bench = Bench()
    bench.see(bench.top, monotonic_ns())
    bench.trigger(bench.bottom, monotonic_ns())
    bench.line.refuse_without_frame(bench.bottom, Judgement("aborted", error_detail="the daemon was stopped"))
    [event] = bench.end()
    assert (event.verdict, event.error, event.error_detail) == ("aborted", None, "bottom: the daemon was stopped")


def test_a_view_that_comes_after_the_verdict_begins_no_second_unit():
    bench, now_ns = Bench(), monotonic_ns()
    bench.see(bench.top, now_ns)
    bench.late()
    bench.line.store_finished()
    number = bench.trigger(bench.bottom, now_ns + 20 * NS_PER_MS)
    bench.frame(bench.bottom, number)
    [event] = bench.end()
    assert event.error == "view_missing" and bench.tally.counts["triggers"] == 1


def test_a_view_belongs_to_the_nearest_unit():
    bench, now_ns = Bench(), monotonic_ns()
    bench.trigger(bench.top, now_ns), bench.trigger(bench.top, now_ns + 90 * NS_PER_MS)
    bench.trigger(bench.bottom, now_ns + 80 * NS_PER_MS)
    bench.late()
    assert [len(event.views) for event in bench.end()] == [1, 2]


def test_the_event_names_the_model_that_judged_though_another_one_serves_by_then():
    bench = Bench()
    judged_by = Model(name="boards", version="7", sha256="0" * 64, runtime="torchscript-fp32-cpu")
    answer = EngineAnswer(1.0, EngineTimings(0.1, 2.0, 0.1, MONOTONIC), model=judged_by)
    bench.frame(bench.top, bench.trigger(bench.top, monotonic_ns()))
    view = bench.line.take_waiting()
    bench.line.release_from_engine(view)
    assert not bench.line.half_judged
    bench.line.settle(view, Judgement("passed"), answer)
    assert bench.line.half_judged, "no swap now"
    bench.late()
    assert bench.end()[0].model == judged_by


def test_an_announced_unit_of_another_recipe_is_refused_when_it_comes_and_keeps_its_number():
    bench = one_camera()
    bench.line.announced.add("SN-1", None, monotonic_ns(), 10, refuse("wrong_recipe", "another"))
    bench.line.announced.add("SN-2", None, monotonic_ns(), 10)
    for number in (1, 2):
        bench.trigger(bench.top, monotonic_ns())
        bench.frame(bench.top, number)
    bench.judge()
    told = [(event.unit_id, event.verdict, event.frame.trigger) for event in bench.end()]
    assert told == [("SN-1", "error", 1), ("SN-2", "passed", 2)]


def one_camera():
    bench = Bench()
    bench.line = Line(LinePlan("top", 1, 250), [bench.top], IDENTITY, None, lambda: None, bench.store, bench.tally)
    return bench
