"""What stumbles behind a verdict is a fault, and no unit is lost over it."""

from __future__ import annotations

from defectd.decided import Decided
from defectd.examples import EXAMPLES
from defectd.faults import Faults
from defectd.inspection.events import InspectionEvent
from defectd.tracking.tracks import Rules
from defectd.tracking.web import WebLine
from support.web_frames import PlainTracker, defect

SECOND_NS = 1_000_000_000


class Stumbling(PlainTracker):
    def match(self, boxes):
        if boxes:
            raise ValueError("no tracker can do that")
        return []


def test_a_tracker_that_stumbles_is_one_fault_of_its_camera_until_it_has_gone_on_for_a_minute():
    told = []
    faults = Faults(lambda component, code, state, *_: told.append((component, code, state)))
    web = WebLine("web", Rules(), 1.0, Stumbling, told_trigger=0, next_trigger=1)
    decided = Decided(None, {"web": web}, [], faults)
    example = EXAMPLES[InspectionEvent]
    frame = example.frame.model_copy(update={"camera": "web"})
    failed = example.model_copy(update={"frame": frame, "verdict": "failed", "defects": [defect((1.0, 1.0, 9.0, 9.0))]})
    passed = failed.model_copy(update={"verdict": "passed", "defects": []})
    for at_s, event in enumerate([failed, passed, failed, failed, *[passed] * 59]):
        assert not decided.keeps(event, at_s * SECOND_NS)
    assert told == [("camera/web", "tracker_failed", "raised")]
    decided.keeps(passed, 70 * SECOND_NS)
    assert told[1:] == [("camera/web", "tracker_failed", "cleared")]
