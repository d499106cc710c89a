"""Rollouts on the real daemon, with a real broker: every unit has its verdict, whatever becomes of the model."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("torch", reason="needs torch: make setup")
pytest.importorskip("cv2", reason="needs OpenCV: make setup")
pytest.importorskip("cryptography")

from support.brokers import find_mosquitto
from support.rolling import QUICK, rolling
from support.signed import tiny_bundle

pytestmark = [
    pytest.mark.mqtt5,
    pytest.mark.skipif(find_mosquitto() is None, reason="needs Mosquitto: apt-get install mosquitto"),
]


def test_a_good_bundle_is_committed_and_no_unit_is_missing(tmp_path):
    with rolling(tmp_path) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        end = station.ended(station.send(good))
        assert (end["state"], end["code"]) == ("committed", ""), end
        assert end["successful"] and set(end["gates"]) >= {"shadow", "probation"}
        assert station.reported["current"]["version"] == "2" and station.reported["previous"]["version"] == "1"
        assert station.reported["floor_release_seq"] == 2
        station.here.await_good_units()
        station.here.terminate()
        station.here.report(once=False)
        versions = [event["model"]["version"] for event in station.here.collector.inspections]
        assert versions == sorted(versions) and set(versions) == {"1", "2"}


def test_where_two_models_do_not_fit_the_line_pauses_and_comes_back_to_the_old_one(tmp_path):
    with rolling(tmp_path) as station:
        station.here.await_good_units()
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        greedy = {**QUICK, "min_free_mb": 1_000_000, "allow_pause": True, "probation_units": 1000}
        end = station.ended(station.send(good, policy=greedy))
        assert (end["state"], end["code"]) == ("rolled_back", "memory"), end
        assert station.reported["current"]["version"] == "1"
        station.here.struck_at_s = time.time()
        station.here.await_good_units()
        assert station.here.collector.inspections[-1]["model"]["version"] == "1"
        again = tiny_bundle(station.usb / "again", seq=3, version="3")
        end = station.ended(station.send(again, policy={**greedy, "probation_units": 0}))
        assert end["state"] == "committed", end
        station.here.struck_at_s = time.time()
        station.here.await_good_units()
        station.here.terminate()
        station.here.struck_at_s = 0.0
        station.here.report(once=False)
        versions = {event["model"]["version"] for event in station.here.collector.inspections if event["model"]}
        assert versions == {"1", "2", "3"}
        assert any(event.get("code") == "line_paused" for event in station.here.collector.events.values())
