from __future__ import annotations

from defectd.faults import Faults


def test_a_fault_is_told_when_it_begins_and_when_it_ends_and_not_in_between():
    told = []
    faults = Faults(lambda component, code, state, detail, data: told.append((component, code, state)))
    faults.begin("camera/top", "camera_lost", "no frame")
    faults.begin("camera/top", "camera_lost", "still no frame")
    assert [fault.code for fault in faults.active()] == ["camera_lost"]
    faults.end("camera/top", "camera_lost")
    faults.end("camera/top", "camera_lost")
    assert told == [("camera/top", "camera_lost", "raised"), ("camera/top", "camera_lost", "cleared")]
    assert faults.active() == []


def test_a_note_is_told_every_time_and_never_active():
    told = []
    faults = Faults(lambda *fault: told.append(fault[2]))
    faults.note("engine", "replaced", "hung")
    faults.note("engine", "replaced", "hung")
    assert told == ["noted", "noted"] and faults.active() == []
