"""What a viewer reads from the wire."""

from __future__ import annotations

import json

import pytest

from defectd.watch.wire import FaultNews, Inspected, Lost, Malformed, StationBirth, StationStatus, read
from unit.watch.wire_events import PREFIX, STATION, birth, defect, fault, gap, inspection, status


def changed(message, **changes):
    return json.dumps({**json.loads(message.to_json()), **changes}).encode()


@pytest.mark.parametrize(
    ("topic", "message", "kind"),
    [
        ("evt/inspection", inspection(), Inspected),
        ("evt/fault", fault(), FaultNews),
        ("evt/gap", gap((3, 5)), Lost),
        ("status", status(), StationStatus),
        ("birth", birth(), StationBirth),
    ],
)
def test_every_message_that_a_station_sends_is_understood(topic, message, kind):
    station, heard = read(f"{PREFIX}/{topic}", message.to_json())
    assert station == STATION
    assert isinstance(heard, kind)


def test_a_unit_keeps_its_verdict_its_place_and_its_defects():
    event = inspection(seq=9, trigger=12, verdict="failed", defects=[defect(confidence=0.93)])
    _, unit = read(f"{PREFIX}/evt/inspection", event.to_json())
    assert (unit.seq, unit.trigger, unit.verdict, unit.latency_ms) == (9, 12, "failed", 27.0)
    (finding,) = unit.findings
    assert (finding.code, finding.confidence, finding.xywh_px) == ("PCB-SHORT", 0.93, (10.0, 20.0, 14.0, 15.0))


def test_fields_that_are_new_to_the_viewer_are_ignored():
    payload = changed(inspection(), shine=3, schema="defectd.inspection/1.7")
    assert read(f"{PREFIX}/evt/inspection", payload) is not None


@pytest.mark.parametrize("schema", ["defectd.inspection/2.0", "another/1.0"])
def test_a_schema_that_is_new_to_the_viewer_is_ignored(schema):
    assert read(f"{PREFIX}/evt/inspection", changed(inspection(), schema=schema)) is None


def test_topics_of_later_versions_are_ignored():
    assert read(f"{PREFIX}/tele/device", b"{}") is None


def test_a_cleared_retained_message_is_ignored():
    assert read(f"{PREFIX}/status", b"") is None


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"null",
        b"{}",
        changed(inspection(), frame=None),
        changed(inspection(), seq="many"),
        changed(inspection(), defects=[{"code": 1}]),
        changed(inspection(), timing_ms={"capture_to_verdict": None}),
    ],
)
def test_what_cannot_be_an_inspection_is_malformed(payload):
    with pytest.raises(Malformed):
        read(f"{PREFIX}/evt/inspection", payload)


def test_a_station_without_a_model_still_has_a_birth():
    _, heard = read(f"{PREFIX}/birth", changed(birth(), model=None))
    assert heard.model == ""
