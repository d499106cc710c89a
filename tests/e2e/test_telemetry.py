"""What a station tells of itself besides its units: over a real broker, and to Prometheus."""

from __future__ import annotations

import json
import socket
import urllib.request

import pytest

pytest.importorskip("torch", reason="needs torch: make setup")
pytest.importorskip("cv2", reason="needs OpenCV: make setup")

from support.brokers import find_mosquitto, free_port
from support.proving_ground import ground
from support.station import wait_until

pytestmark = [
    pytest.mark.mqtt5,
    pytest.mark.skipif(find_mosquitto() is None, reason="needs Mosquitto: apt-get install mosquitto"),
]


def fetched(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.status, answer.read().decode()


def test_the_device_and_the_line_are_told_in_one_message_and_to_prometheus(tmp_path):
    port = free_port()
    changes = {"telemetry": {"every_s": 1.0}, "web": {"port": port}}
    with ground(tmp_path, 400, 10.0, changes) as here:
        here.await_good_units()
        wait_until(lambda: (here.collector.retained.get("device") or {}).get("latency"), 30, "tele/device with figures")
        told = here.collector.retained["device"]
        stages = {(figures["camera"], figures["stage"]) for figures in told["latency"]}
        assert ("top", "inference") in stages and ("top", "capture_to_verdict") in stages
        assert told["units"] > 0 and told["deadline_misses"] == 0
        names = {"daemon", "engine", "camera/top"}  # who is there is looked up every ten seconds
        wait_until(lambda: set(here.collector.retained["device"]["rss_mb"]) >= names, 30, "the memory of every process")
        assert told["mem_available_mb"] > 0 and told["thermal_level"] == "normal"
        assert fetched(port, "/healthz")[0] == 200 and fetched(port, "/readyz")[0] == 200
        exposed = fetched(port, "/metrics")[1]
        assert 'defectd_units_total{camera="top",verdict="failed"}' in exposed
        assert "defectd_device_memory_available_bytes" in exposed and "defectd_outbox_pending_events" in exposed
        inspection = here.collector.inspections[-1]
        assert inspection["conditions"]["throttled"] is False, json.dumps(inspection["conditions"])
        here.terminate()


def test_a_port_that_is_taken_is_a_fault_until_it_is_free_and_no_reason_to_stop(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with ground(tmp_path, 400, 10.0, {"web": {"port": port}}) as here:

            def told(state):
                events = list(here.collector.events.values())
                return any((event.get("component"), event.get("state")) == ("web", state) for event in events)

            here.await_good_units()
            wait_until(lambda: told("raised"), 15, "a fault")
            taken.close()
            wait_until(lambda: told("cleared"), 30, "the end of the fault")
            assert fetched(port, "/readyz")[0] == 200
            here.terminate()
