"""What callers hand over, before the outbox thread takes it."""

from __future__ import annotations

from collections import Counter

from defectd.clock import monotonic_ns
from defectd.examples import EXAMPLES
from defectd.inspection.events import InspectionEvent
from defectd.messaging import intake
from defectd.messaging.intake import Intake

EVENT = EXAMPLES[InspectionEvent]


def test_all_is_taken_at_once_in_order():
    box = Intake()
    for number in range(3):
        box.put(EVENT.model_copy(update={"unit_id": str(number)}), {"top": number})
    box.set_positions({"clean": 1})
    box.settle([7, 8], [(9, "rejected_by_broker")])
    taken = box.take()
    assert [event.unit_id for event in taken.events] == ["0", "1", "2"]
    assert taken.positions == {"top": 2, "clean": 1}
    assert (taken.acked, taken.dead) == ([7, 8], [(9, "rejected_by_broker")])
    assert not box.take()


def test_what_comes_when_all_is_full_is_counted_and_its_positions_are_kept(monkeypatch):
    monkeypatch.setattr(intake, "MAX_WAITING_EVENTS", 2)
    box = Intake()
    for number in range(5):
        box.put(EVENT, {"top": number})
    taken = box.take()
    assert len(taken.events) == 2
    assert taken.surplus == {"inspection": Counter({"failed": 3})}
    assert taken.positions == {"top": 4}


def test_rows_are_settling_until_that_is_on_disk():
    box = Intake()
    box.settle([1, 2])
    box.take()
    assert box.settling() == {1, 2}
    box.written([1])
    assert box.settling() == {2}


def test_a_lone_event_does_not_wait_and_one_right_after_a_commit_waits_for_company():
    box = Intake()
    box.put(EVENT, None)
    started_ns = monotonic_ns()
    box.wait(last_commit_ns=0, retry_at_ns=0, longest_s=1.0)
    lone_ns = monotonic_ns() - started_ns
    started_ns = monotonic_ns()
    box.wait(last_commit_ns=started_ns, retry_at_ns=0, longest_s=1.0)
    assert lone_ns < intake.GATHER_NS <= monotonic_ns() - started_ns
