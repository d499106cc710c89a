"""The viewer's ear on real brokers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from defectd.demo.processes import LoggedProcess, child_environment, embedded_broker, find_broker
from defectd.watch import watch
from defectd.watch.listener import BrokerAddress, Listener
from support.brokers import hang_up
from unit.watch.wire_events import PREFIX, STATION, inspection, status

needs_mosquitto = [
    pytest.mark.mqtt5,
    pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs Mosquitto: apt-get install mosquitto"),
]


@contextmanager
def mosquitto(folder, *extra):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text("\n".join([f"listener {port} 127.0.0.1", "user root", *extra, ""]))
    process = subprocess.Popen(["mosquitto", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: can_connect(port))
        yield BrokerAddress("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(5)


def can_connect(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, timeout_s=10.0):
    ends_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends_s, "did not happen in time"
        time.sleep(0.02)


@contextmanager
def publisher(broker):
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        yield lambda topic, payload, retain=False: client.publish(topic, payload, 1, retain).wait_for_publish(5)
    finally:
        hang_up(client)


def heard(listener, count, timeout_s=10.0):
    messages, ends_s = [], time.monotonic() + timeout_s
    while len(messages) < count and time.monotonic() < ends_s:
        messages += listener.hear(0.1)
    return messages


def is_retained(broker):
    with Listener(broker) as listener:
        return listener.wait_subscribed(10) and bool(heard(listener, 1, 0.5))


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=needs_mosquitto)])
def broker(request, tmp_path):
    serve = embedded_broker(tmp_path) if request.param == "embedded" else mosquitto(tmp_path, "allow_anonymous true")
    with serve as address:
        yield address


def test_it_hears_units_in_order_and_what_was_retained_before_it_came(broker):
    with publisher(broker) as publish:
        publish(f"{PREFIX}/status", status().to_json(), True)
        wait_until(lambda: is_retained(broker))  # nats-server confirms a retained message before it retains it
        with Listener(broker) as listener:
            assert listener.wait_subscribed(10)
            for seq in range(1, 21):
                publish(f"{PREFIX}/evt/inspection", inspection(seq).to_json())
            messages = heard(listener, 21)
    assert {station for station, _ in messages} == {STATION}
    assert [message.seq for _, message in messages if hasattr(message, "seq")] == list(range(1, 21))
    assert {message.condition for _, message in messages if hasattr(message, "condition")} == {"inspecting"}


def test_it_speaks_the_version_that_the_broker_knows(broker):
    with Listener(broker) as listener:
        assert listener.wait_subscribed(10)
        assert listener.link.detail in ("MQTT 5", "MQTT 3.1.1")


def test_it_hears_only_the_station_that_was_asked_for(broker):
    with publisher(broker) as publish, Listener(broker, "plant1/smt/line1/aoi2") as listener:
        assert listener.wait_subscribed(10)
        publish(f"{PREFIX}/evt/inspection", inspection(1).to_json())
        publish(f"{PREFIX[:-1]}2/evt/inspection", inspection(2).to_json())
        assert [message.seq for _, message in heard(listener, 1)] == [2]


def test_rubbish_is_counted_and_the_next_unit_is_heard(broker):
    with publisher(broker) as publish, Listener(broker) as listener:
        assert listener.wait_subscribed(10)
        publish(f"{PREFIX}/evt/inspection", b'{"schema": "defectd.inspection/1.2"')
        publish(f"{PREFIX}/evt/inspection", inspection(2).to_json())
        assert [message.seq for _, message in heard(listener, 1)] == [2]
        assert listener.malformed == 1


def test_it_comes_back_when_the_broker_does(tmp_path):
    config = tmp_path / "broker.conf"

    def start(port):
        config.write_text(
            f'listen: "127.0.0.1:-1"\nserver_name: "t"\njetstream {{ store_dir: "{tmp_path}/js" }}\n'
            f'mqtt {{ host: "127.0.0.1", port: {port} }}\n'
        )
        process = LoggedProcess([find_broker(), "-c", str(config)], tmp_path / "log", child_environment())
        wait_until(lambda: can_connect(port))
        return process

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first = start(port)
    with Listener(BrokerAddress("127.0.0.1", port)) as listener:
        assert listener.wait_subscribed(10)
        first.stop(5)
        wait_until(lambda: not listener.link.connected)
        second = start(port)
        try:
            wait_until(lambda: listener.link.connected)
            with publisher(BrokerAddress("127.0.0.1", port)) as publish:
                unit = inspection(7).to_json()
                wait_until(lambda: publish(f"{PREFIX}/evt/inspection", unit) or heard(listener, 1, 0.5))
        finally:
            second.stop(5)


@pytest.mark.mqtt5
@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs Mosquitto: apt-get install mosquitto")
def test_a_refused_login_ends_the_view_with_a_remedy(tmp_path):
    with mosquitto(tmp_path, "allow_anonymous false") as broker, pytest.raises(Exception, match="check the user name"):
        watch(broker.host, broker.port, plain=True)
