"""The shadow, with the test in the candidate's place: pairs are right, and every slot comes back whatever happens."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from defectd.camera.feed import RING_SLOTS, CameraFeed, CameraPlan, SlotLease
from defectd.inspection.detections import Detections, EngineTimings
from defectd.inspection.frame import Frame
from defectd.inspection.recipe import DefectRule, Recipe
from defectd.inspection.verdict import judge
from defectd.shadow import Shadow
from defectd.workers.process import Died
from defectd.workers.protocol import Inferred, Refused

RECIPE = Recipe("pcb", "1", (DefectRule("open", "OPEN", 0.5), DefectRule("short", "SHORT", 0.5)), ())
TIMINGS = EngineTimings(1.0, 9.0, 0.5, "monotonic")
FOUND = Detections(np.array([[1, 1, 9, 9]], np.float32), np.array([0.9], np.float32), np.array([0], np.int32))


class Candidate:
    """What Shadow sees of an EngineServer."""

    def __init__(self):
        self.names, self.asked, self.worker = ("open",), None, self
        self.gone = False

    @property
    def free(self):
        return self.asked is None

    def infer(self, ring, frame):
        self.asked = frame
        return True


class Bench:
    """What Shadow sees of Engines, and a camera whose slots are counted."""

    def __init__(self):
        plan = CameraPlan("top", "simulated", "triggered", "counter", True, False, 64 * 64 * 3, 5.0, 1, 1, {})
        self.feed, self.units, self.news = CameraFeed(plan, 0, "INFO"), [], []
        self.candidate, self.left = None, []
        self.under_test = Shadow(self, RECIPE, self.units.append)

    @property
    def shadow(self):
        return self.candidate

    def shadow_news(self):
        news, self.news = self.news, []
        return news

    def stage(self):
        if self.candidate is None:
            self.candidate = Candidate()

    def withdraw(self):
        if self.candidate is not None:
            self.left.append(self.candidate)
            self.candidate = None

    def see_off(self):
        for candidate in self.left:
            candidate.gone = True

    def judged(self, verdict="failed"):
        slot = self.feed.lend()
        if slot is not None:
            lease = SlotLease(self.feed, Frame(slot, 0, 64, 64, None))
            self.under_test.judged(self.feed, lease, judgement(verdict), 10.0)
            lease.release()

    def answer(self, record):
        if self.candidate is not None and self.candidate.asked is not None:
            if isinstance(record, Inferred):
                self.feed.ring.write_detections(self.candidate.asked.slot, FOUND)
            self.candidate.asked = None
            self.news.append((self.candidate, record))

    def die(self):
        if self.candidate is not None:
            self.news.append((self.candidate, Died("signal_9", "", "", 0.25)))
            self.withdraw()

    def free_slots(self):
        taken = []
        while (slot := self.feed.lend()) is not None:
            taken.append(slot)
        for slot in taken:
            self.feed.give_back(slot)
        return len(taken)


def judgement(verdict):
    return judge(FOUND if verdict == "failed" else Detections.none(), RECIPE, ("open", "short"), "top")


INFERRED, REFUSED = Inferred(1, 1, 0, TIMINGS), Refused(1, "engine_failed", "out of memory")
MOVES = {
    "stage": Bench.stage,
    "judged": Bench.judged,
    "feed": lambda bench: bench.under_test.feed(),
    "hear": lambda bench: bench.under_test.hear(),
    "inferred": lambda bench: bench.answer(INFERRED),
    "refused": lambda bench: bench.answer(REFUSED),
    "die": Bench.die,
    "withdraw": Bench.withdraw,
    "see_off": Bench.see_off,
}


def test_both_verdicts_of_a_unit_are_told_with_their_latencies():
    bench = Bench()
    bench.stage()
    for served, record in (("failed", INFERRED), ("passed", INFERRED), ("passed", REFUSED)):
        bench.judged(served)
        bench.under_test.feed()
        bench.answer(record)
        bench.under_test.hear()
    assert [(unit.served, unit.shadow, unit.shadow_inference_ms) for unit in bench.units] == [
        ("failed", "failed", 9.0), ("passed", "failed", 9.0), ("passed", "error", None),
    ]  # fmt: skip
    assert "out of memory" in bench.units[2].detail


def test_a_candidate_that_fails_a_unit_for_another_defect_is_told_apart():
    bench = Bench()
    bench.stage()
    bench.candidate.names = ("short", "open")
    for served in ("failed", "passed"):
        bench.judged(served)
        bench.under_test.feed()
        bench.answer(INFERRED)
        bench.under_test.hear()
    assert [(unit.shadow, unit.same_codes) for unit in bench.units] == [("failed", False), ("failed", True)]


def test_only_the_newest_unit_waits_for_the_shadow():
    bench = Bench()
    bench.stage()
    for _ in range(5):
        bench.judged()
    assert bench.free_slots() == RING_SLOTS - 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(sorted(MOVES)), max_size=60))
def test_no_slot_is_ever_lost(moves):
    bench = Bench()
    for move in moves:
        MOVES[move](bench)
        assert bench.free_slots() >= RING_SLOTS - 2, "the line needs them"
    for move in ("withdraw", "see_off", "hear", "feed"):
        MOVES[move](bench)
    assert bench.free_slots() == RING_SLOTS
