"""Units that a message or a clock begins: each message ends in a verdict, or in a fault that names the unit."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from defectd.births import ANNOUNCED_FOR_S, Births
from defectd.clock import NS_PER_MS, NS_PER_S, monotonic_ns, utc_now
from defectd.faults import Faults
from defectd.inspection.recipe import Recipe
from defectd.line import LinePlan


class FakeLine:
    """Takes note of what is born."""

    def __init__(self, name="board", commanded=True, interval_ms=None, announced_ids=False):
        from defectd.announced import Announced

        self.plan = LinePlan(name, 1, 250, interval_ms=interval_ms, announced_ids=announced_ids)
        self.name, self.commanded, self.ended = name, commanded, False
        self.announced, self.born, self.refused = Announced(), [], []

    def bear(self, unit_id, position, asked_ns):
        self.born.append((unit_id, asked_ns))

    def refuse_birth(self, unit_id, position, judgement):
        self.refused.append((unit_id, judgement.error))


@pytest.fixture
def told():
    return []


@pytest.fixture
def births(told):
    def births(*lines):
        sink = lambda component, code, state, detail, data: told.append((code, state, detail))  # noqa: E731
        return Births(lines, Recipe("pcb", "1", ()), Faults(sink, changed=lambda: None), wake=lambda: None)

    return births


def message(**fields):
    return json.dumps({"schema": "defectd.unit/1.0", "id": "m1", "unit_id": "SN-1", **fields}).encode()


def test_a_message_begins_a_unit_and_the_same_one_again_does_not(births):
    line = FakeLine()
    station = births(line)
    station.announce(message()), station.announce(message()), station.announce(message(id="m2"))
    station.attend(5, open_for_units=True)
    assert line.born == [("SN-1", 5), ("SN-1", 5)]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"recipe": "other"}, "wrong_recipe"),
        ({"sent_at": (utc_now() - timedelta(seconds=30)).isoformat()}, "deadline_exceeded"),
    ],
)
def test_a_unit_that_must_not_be_judged_has_a_verdict_all_the_same(births, fields, error):
    line = FakeLine()
    station = births(line)
    station.announce(message(**fields))
    station.attend(5, open_for_units=True)
    assert line.refused == [("SN-1", error)] and not line.born


def test_before_the_cameras_are_open_a_messages_unit_is_refused(births):
    line = FakeLine()
    station = births(line)
    station.announce(message())
    station.attend(5, open_for_units=False)
    assert line.refused == [("SN-1", "camera_lost")]


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"SN-4711", "Invalid JSON"),
        (message(unit_ID="x"), "unit_ID"),
        (message(unit="left"), "got 'left', expected one of board"),
        (message(sent_at="2026-11-20T09:18:04"), "with its zone"),
        (b"{" + b" " * 5000, "expected at most 4096"),
    ],
)
def test_a_bad_message_is_a_fault_that_says_what_was_expected_until_a_good_one_comes(births, told, payload, words):
    line = FakeLine()
    station = births(line)
    station.announce(payload)
    station.attend(5, open_for_units=True)
    assert [(code, state) for code, state, _ in told] == [("bad_message", "raised")] and words in told[0][2]
    station.announce(message())
    station.attend(6, open_for_units=True)
    assert told[-1][:2] == ("bad_message", "cleared") and len(line.born) == 1


def test_a_station_with_several_lines_wants_to_know_which(births, told):
    station = births(FakeLine("left"), FakeLine("right"), FakeLine("web", commanded=False))
    station.announce(message())
    station.attend(5, open_for_units=True)
    assert "those that listen are left, right" in told[0][2]


def test_an_announced_unit_that_does_not_come_is_told_once(births, told):
    line, now_ns = FakeLine(commanded=False, announced_ids=True), monotonic_ns()
    station = births(line)
    station.announce(message())
    station.attend(now_ns, open_for_units=True)
    later_ns = now_ns + int((ANNOUNCED_FOR_S + 1) * NS_PER_S)
    station.attend(later_ns, open_for_units=True), station.attend(later_ns, open_for_units=True)
    assert [code for code, _, _ in told] == ["unit_did_not_come"] and "SN-1" in told[0][2]


def test_after_a_lost_camera_no_name_is_given_to_the_wrong_unit(births, told):
    line, now_ns = FakeLine(commanded=False, announced_ids=True), monotonic_ns()
    station = births(line)
    station.announce(message()), station.announce(message(id="m2", unit_id="SN-2"))
    station.attend(now_ns, open_for_units=True)
    station.triggers_were_lost(line, "unplugged")
    assert line.announced.take(now_ns) is None
    assert [code for code, _, _ in told] == ["unit_did_not_come"] * 2 and "unplugged" in told[0][2]


def test_an_old_announcement_names_nobody(births, told):
    line = FakeLine(commanded=False, announced_ids=True)
    station = births(line)
    station.announce(message(sent_at=(utc_now() - timedelta(seconds=30)).isoformat()))
    station.attend(5, open_for_units=True)
    assert line.announced.take(5) is None and told[0][0] == "announced_too_late"


def test_an_interval_keeps_its_rhythm_after_a_stall(births):
    line = FakeLine(interval_ms=250)
    station = births(line)
    for at_ms in (1000, 1250, 2120, 2121, 2250):
        station.attend(at_ms * NS_PER_MS, open_for_units=True)
    assert [asked_ns // NS_PER_MS for _, asked_ns in line.born] == [1000, 1250, 2120, 2250]


def test_more_messages_than_can_be_looked_at_are_told(births, told):
    station = births(FakeLine())
    for number in range(1100):
        station.announce(message(id=f"m{number}"))
    assert [(code, state) for code, state, _ in told] == [("too_many_messages", "raised")]
