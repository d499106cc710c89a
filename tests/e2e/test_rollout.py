"""Rollouts on the real daemon, with a real broker: every unit has its verdict, whatever becomes of the model."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch: make setup")
pytest.importorskip("cv2", reason="needs OpenCV: make setup")
pytest.importorskip("cryptography")

from support.brokers import find_mosquitto
from support.rolling import rolling
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
