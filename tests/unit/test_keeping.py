"""Where only some pictures of a unit can be kept, they are those that show something; the rest is counted."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone

import pytest

from defectd.camera.feed import CameraFeed, CameraPlan, SlotLease
from defectd.clock import NS_PER_S, monotonic_ns
from defectd.examples import EXAMPLES
from defectd.inspection.events import Image, InspectionEvent, ViewInfo
from defectd.inspection.frame import Frame, Trigger
from defectd.inspection.verdict import Judgement, refuse
from defectd.keeping import Keeping
from defectd.unit import Unit, View
from support.web_frames import defect

PICTURE = Image(role="raw", path="2026-11-20/x.jpg", bytes=1, sha256="0" * 64)
FOUND = Judgement("failed", defects=(defect((1.0, 2.0, 3.0, 4.0)),))
BLIND = refuse("frame_torn", "half of it")
PASSED = Judgement("passed")


class Keeper:
    """Takes *room* pictures, and remembers of which triggers they are: here, their numbers are their heights."""

    def __init__(self, room):
        self.room, self.jobs, self.numbers = room, [], []

    def keep(self, inspection_id, day, lease, defects):
        if len(self.jobs) == self.room:
            return False
        self.jobs.append(inspection_id)
        self.numbers.append(lease.frame.height_px)
        return True


@pytest.fixture
def feed():
    return CameraFeed(
        CameraPlan("top", "simulated", "triggered", "counter", True, False, 64, 5.0, 1, 1, {}, shots=5), 0, "INFO"
    )


def kept(feed, room, judgements):
    """The keeper, the counts, and the unit behind a verdict over as many shots as there are *judgements*."""
    keeper, counts = Keeper(room), Counter()
    unit = Unit(Trigger("top", 1, "u1", 0, datetime.now(timezone.utc)), "counter", 0)
    for number, judgement in enumerate(judgements, 1):
        lease = SlotLease(feed, Frame(feed.lend(), 0, 1, number, None))
        unit.views.append(View(unit, feed, number, number, lease, judgement=judgement))
    looks = [ViewInfo(camera=view.name, trigger=view.number, frame_id=None, width_px=1, height_px=1, verdict=None,
                      error=None, inference_ms=None) for view in unit.views]  # fmt: skip
    unit.event = EXAMPLES[InspectionEvent].model_copy(update={"views": looks, "images": []})
    unit.decided = True
    keeping = Keeping(keeper, counts, lambda: False)
    keeping.keep(unit, unit.event, monotonic_ns(), is_evidence=True)
    return keeper, counts, unit, keeping


def test_views_with_defects_or_errors_come_first(feed):
    keeper, counts, _, _ = kept(feed, 2, [PASSED, None, FOUND, PASSED, BLIND])
    assert keeper.numbers == [3, 5]
    assert counts == {"evidence_missed": 3}


def test_the_event_waits_for_those_that_are_kept_and_each_view_is_counted_once(feed):
    keeper, counts, unit, keeping = kept(feed, 4, [PASSED] * 5)
    assert unit.pictures_by_ns is not None
    for job in keeper.jobs[:3]:
        keeping.arrived(job, [PICTURE])
    assert unit.pictures_by_ns is not None
    keeping.give_up(monotonic_ns() + 2 * NS_PER_S)
    assert unit.pictures_by_ns is None and len(unit.event.images) == 3
    assert counts == {"evidence": 3, "evidence_missed": 2}


def test_an_event_of_which_no_picture_is_kept_waits_for_nothing(feed):
    _, counts, unit, _ = kept(feed, 0, [FOUND])
    assert unit.pictures_by_ns is None and counts == {"evidence_missed": 1}
