"""What proves that a station inspects, and what is too old to."""

from __future__ import annotations

import json

import pytest
from station.seen import broker_of, judge_message, look_for

AT_S = 1_795_166_284.0  # 2026-11-20T09:18:04Z
STATUS = {"condition": "inspecting", "ts": "2026-11-20T09:18:04Z"}
UNIT = {"verdict": "failed", "created_at": "2026-11-20T09:18:04.120+00:00"}


def test_a_status_and_a_unit_of_the_new_release_prove_it():
    assert judge_message("p/status", json.dumps(STATUS).encode(), AT_S - 1) == "status inspecting"
    assert judge_message("p/evt/inspection", json.dumps(UNIT).encode(), AT_S - 1) == "evt/inspection failed"


def test_what_the_old_release_said_proves_nothing():
    assert judge_message("p/status", json.dumps(STATUS).encode(), AT_S + 1) is None
    assert judge_message("p/evt/inspection", json.dumps(UNIT).encode(), AT_S + 1) is None


@pytest.mark.parametrize("condition", ["starting", "stopping", "stopped", "lost"])
def test_a_station_that_does_not_inspect_is_not_seen_inspecting(condition):
    assert judge_message("p/status", json.dumps({**STATUS, "condition": condition}).encode(), 0) is None


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"condition": "inspecting"}', b"\xff", b'{"ts": 5}'])
def test_what_nobody_can_read_proves_nothing(payload):
    assert judge_message("p/status", payload, 0) is None
    assert judge_message("p/evt/inspection", payload, 0) is None


def test_a_broker_that_is_not_there_is_an_answer():
    pytest.importorskip("paho.mqtt")
    found = look_for("p", {"host": "127.0.0.1", "port": 1}, 0, 1)
    assert found["seen"] is None and not found["reached"] and "cannot be reached" in found["detail"]


def test_the_password_comes_from_the_environment_or_its_file(tmp_path):
    (tmp_path / "password").write_text("of the file\n")
    settings = {"mqtt": {"host": "b", "port": 8883, "password_file": str(tmp_path / "password"), "tls": {"ca": "/c"}}}
    assert broker_of(settings, {})["password"] == "of the file"
    assert broker_of(settings, {"DEFECTD_MQTT__PASSWORD": "said"})["password"] == "said"
    assert broker_of(settings, {})["ca"] == "/c"
