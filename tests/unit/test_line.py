"""Whatever a camera, an engine and the pictures do, and in whatever order: every unit has one event, in order."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectd.camera.feed import RING_SLOTS, CameraFeed, CameraPlan
from defectd.clock import monotonic_ns
from defectd.inspection.events import Recipe
from defectd.inspection.frame import Frame
from defectd.inspection.record import StationIdentity
from defectd.inspection.verdict import Judgement, refuse
from defectd.line import Line, LinePlan, Tally
from defectd.workers.protocol import Framed, Missed, Triggered

IDENTITY = StationIdentity("aoi1", "boot", "0" * 64, Recipe(name="pcb", revision="1"))
SECOND_NS = 1_000_000_000


class Keeper:
    """Takes pictures of every unit, and says so when asked to."""

    def __init__(self):
        self.jobs = {}

    def keep(self, inspection_id, day, lease, defects):
        lease.hold()
        self.jobs[inspection_id] = lease
        return True


class Bench:
    """A line without processes: the test plays camera, engine and evidence worker."""

    def __init__(self, mode="triggered"):
        plan = CameraPlan("top", "simulated", mode, "counter", True, False, 64 * 64 * 3, 5.0, 1, 1, {})
        self.feed, self.keeper, self.tally = CameraFeed(plan, 0, "INFO"), Keeper(), Tally()
        self.stored, self.positions = [], {}
        plan = LinePlan("top", 1, 250)
        self.line = Line(plan, [self.feed], IDENTITY, self.keeper, lambda: None, self.store, self.tally)
        self.number, self.unframed, self.inferring = 0, [], None

    def store(self, event, positions):
        self.stored.append(event)
        self.positions.update(positions)

    def trigger(self):
        self.number += 1
        self.unframed.append(self.number)
        news = Triggered(self.number, monotonic_ns(), datetime.now(timezone.utc), f"u{self.number}")
        self.line.triggered(self.feed, news)

    def frame(self):
        if self.unframed and (slot := self.feed.lend()) is not None:
            self.line.framed(self.feed, Framed(self.unframed.pop(0), Frame(slot, 0, 64, 64, None)))

    def miss(self, reason="frame_undecodable"):
        if self.unframed:
            self.line.missed(self.feed, Missed(self.unframed.pop(0), -1, reason, "why"))

    def begin(self):
        if self.inferring is None and self.line.oldest_waiting is not None:
            self.inferring = self.line.take_waiting()

    def end(self, verdict="passed"):
        if self.inferring is not None:
            view, self.inferring = self.inferring, None
            self.line.release_from_engine(view)
            if not view.unit.decided:
                self.line.settle(view, Judgement(verdict))

    def late(self):
        for unit in list(self.line.undecided())[:1]:
            self.line.decide(unit, refuse("deadline_exceeded", "late"))

    def pictures(self):
        for inspection_id in list(self.keeper.jobs)[-1:]:
            self.keeper.jobs.pop(inspection_id).release()
            self.line.keeping.arrived(inspection_id, ())

    def no_pictures(self):
        self.line.keeping.give_up(monotonic_ns() + 10 * SECOND_NS)

    def camera_dies(self):
        self.unframed.clear()
        self.line.refuse_without_frame(self.feed, refuse("camera_lost", "it died"))

    def source_ends(self):
        self.line.tell_drops()

    def finish(self):
        """The daemon stops, and what was begun ends."""
        self.line.abort(Judgement("aborted"))
        self.end()
        while self.keeper.jobs:
            self.pictures()


STEPS = ["trigger", "trigger", "frame", "frame", "miss", "begin", "end", "late", "pictures", "no_pictures"]
STEPS += ["camera_dies", "source_ends"]


@pytest.mark.parametrize("mode", ["triggered", "free_run"])
@settings(max_examples=300, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=60))
def test_every_unit_is_accounted_for_whatever_happens(mode, steps):
    bench = Bench(mode)
    for step in steps:
        getattr(bench, step)()
        bench.line.store_finished()
        assert bench.positions.get("trigger/top", 0) <= bench.number
    bench.finish()
    counts, stored = bench.tally.counts, bench.stored
    triggers = [event.frame.trigger for event in stored]
    assert triggers == sorted(set(triggers)), "each once, in order"
    assert len(stored) + counts["dropped"] == counts["triggers"] == bench.number
    assert sum(counts[verdict] for verdict in ("passed", "failed", "error", "aborted", "skipped")) == len(stored)
    assert triggers[-1:] == [bench.number][: len(triggers)], "the last one is told, too"
    holes = [later - earlier - 1 for earlier, later in zip([0, *triggers], triggers)]
    assert holes == [event.frame.dropped_before for event in stored]
    assert bench.line.empty and bench.feed._leases.free == RING_SLOTS, "every slot has come back"
    if mode == "triggered":
        assert counts["dropped"] == 0
    bench.feed.ring.close()


def test_a_unit_that_is_finished_waits_for_its_elder_so_that_a_position_means_all_before_it():
    bench = Bench()
    bench.trigger(), bench.trigger()
    bench.frame()
    bench.miss()
    bench.line.store_finished()
    assert bench.stored == [] and bench.positions == {}
    bench.begin(), bench.end()
    bench.line.store_finished()
    assert [event.frame.trigger for event in bench.stored] == [1, 2]
    bench.feed.ring.close()


def test_a_frame_that_comes_after_its_verdict_gives_its_slot_back():
    bench = Bench()
    bench.trigger()
    bench.late()
    bench.line.store_finished()
    bench.frame()
    assert bench.feed._leases.free == RING_SLOTS and len(bench.stored) == 1
    bench.feed.ring.close()
