from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.technician.wire import Bundle, Progress, read
from defectd.watch.wire import Malformed, StationStatus
from unit.technician.said import ASKED, STATION, answer, heard, progress, reported, rollout, status

TOPIC = f"defectd/v1/{STATION}/model/reported"


def test_a_report_is_read_as_the_station_sends_it():
    station, report = heard(reported(rollout("staged", waits_for="approve"), answer()))
    assert station == STATION and report.groups == ("pilot",) and report.floor_command_seq == 7
    assert report.current == Bundle("boards", "1.4", "a4" * 32) and str(report.current) == "boards 1.4"
    assert report.rollout.request_id == ASKED and report.rollout.waits_for == "approve"
    assert report.answer.accepted


def test_progress_and_status_are_read_too():
    assert heard(progress("downloading", 40.0))[1] == Progress(ASKED, "downloading", 40.0, "")
    assert isinstance(heard(status())[1], StationStatus)


def test_the_name_is_that_of_the_topic_and_not_what_the_payload_says():
    assert heard(reported(station="plant1/smt/line1/another"))[0] == STATION


def test_a_newer_station_may_say_more():
    body = json.loads(reported(rollout("pondering")).to_json())
    body.update(schema="defectd.model_reported/1.9", mood="good")
    body["rollout"]["colour"] = "red"
    assert read(TOPIC, json.dumps(body).encode())[1].rollout.state == "pondering"


@pytest.mark.parametrize("payload", [b"", b'{"schema": "defectd.model_reported/2.0"}'])
def test_what_is_not_for_us_is_skipped(payload):
    assert read(TOPIC, payload) is None
    assert read(f"defectd/v1/{STATION}/evt/inspection", b"{}") is None
    assert read("defectd/v1/a/b/c/\x1b[2J/model/reported", reported().to_json()) is None
    assert read("other/v1/a/b/c/d/status", status().to_json()) is None


@pytest.mark.parametrize(
    "payload", [b"{", b"[]", b"7", b'{"schema": "defectd.model_reported/1.0"}', b'{"schema": 1, "rollout": 3}', b"\xff"]
)
def test_rubbish_is_malformed_or_skipped(payload):
    with suppress(Malformed):
        assert read(TOPIC, payload) is None


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)


@given(st.sampled_from(["model/reported", "model/progress", "status"]), st.data())
def test_whatever_a_field_holds_is_read_or_malformed(kind, data):
    said = {"model/reported": reported(rollout(), answer()), "model/progress": progress("x"), "status": status()}[kind]
    body = json.loads(said.to_json())
    place = body["rollout"] if kind == "model/reported" and data.draw(st.booleans()) else body
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(ANYTHING)
    with suppress(Malformed):
        read(f"defectd/v1/{STATION}/{kind}", json.dumps(body).encode())


@pytest.mark.parametrize("payload", [b"[" * 100_000, b'"' + b"x" * 300_000 + b'"'])
def test_what_is_too_deep_or_too_long_is_malformed(payload):
    with pytest.raises(Malformed):
        read(TOPIC, payload)


def test_nothing_that_steers_a_terminal_gets_through():
    report = heard(reported(rollout("failed", detail="bad\x1b[2Jnews\r\nmore\u202e", code="\x07")))[1]
    assert report.rollout.detail == "bad [2Jnews  more " and report.rollout.code == " "
    assert "\x1b" not in heard(status("offline", "lost", "\x1b[31mlost"))[1].detail
