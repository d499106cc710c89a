"""What comes to a station and what it says of its models, over real brokers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from defectd.clock import NS_PER_S, utc_now
from defectd.examples import EXAMPLES
from defectd.inspection.events import Status
from defectd.inspection.rollout_wire import ModelProgress
from defectd.messaging.topics import MAX_INCOMING_BYTES, Topics
from support.brokers import BrokerProcess, hang_up

mqtt5 = pytest.mark.mqtt5
TOPICS = Topics("site", "area", "line", "aoi1")
DESIRED = TOPICS.model_desired


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return bool(condition())


def send(broker: BrokerProcess, payload: bytes, topic: str = DESIRED) -> None:
    """Publish retained, as a technician's laptop does."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="laptop", protocol=MQTTv311)
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10.0)
    finally:
        hang_up(client)


def progress(detail: str) -> ModelProgress:
    return ModelProgress(request_id="r1", state="downloading", percent=10.0, detail=detail, ts=utc_now())


def follow_a_retained_command(broker: BrokerProcess, made: Any) -> None:
    """What was retained before, what comes meanwhile, the same again after a reconnect, and that it is cleared."""
    assert until(lambda: made.arrived)
    assert made.arrived == [(DESIRED, b"first")]
    send(broker, b"second")
    assert until(lambda: len(made.arrived) == 2)
    connects = made.publisher.counters.connects
    broker.stop()
    assert until(lambda: not made.publisher.connected)
    broker.start()
    assert until(lambda: made.publisher.counters.connects > connects)
    assert until(lambda: len(made.arrived) > 2)
    assert set(made.arrived[1:]) == {(DESIRED, b"second")}
    send(broker, b"")
    assert until(lambda: made.arrived[-1] == (DESIRED, b""))


@mqtt5
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_retained_command_arrives_on_connect_and_after_a_reconnect_and_that_it_is_cleared(
    mosquitto, station, protocol
):
    broker = mosquitto()
    send(broker, b"first")
    follow_a_retained_command(broker, station(broker, subscriptions=[DESIRED], protocol=protocol))


def test_a_broker_that_knows_only_3_1_1_delivers_a_retained_command_too(nats, station):
    send(nats, b"first")
    follow_a_retained_command(nats, station(nats, subscriptions=[DESIRED]))


@mqtt5
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_ten_megabytes_neither_end_the_connection_nor_reach_the_station(mosquitto, station, listen, protocol):
    broker = mosquitto()
    listener = listen(broker, topics="defectd/v1/+/+/+/+/evt/#")
    made = station(broker, subscriptions=[DESIRED], protocol=protocol)
    send(broker, b"before")
    assert until(lambda: made.arrived)
    send(broker, bytes(10_000_000))
    ids = made.put(20)
    assert until(lambda: [event["id"] for event in listener.events("inspection")] == ids)
    send(broker, b"after")
    assert until(lambda: made.arrived == [(DESIRED, b"before"), (DESIRED, b"after")])
    assert made.publisher.reconnects == 0


@mqtt5
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_station_connects_although_ten_megabytes_are_retained(mosquitto, station, protocol):
    broker = mosquitto()
    send(broker, bytes(10_000_000))
    made = station(broker, subscriptions=[DESIRED], protocol=protocol)
    made.put(20)
    assert until(made.is_empty)
    send(broker, b"after")
    assert until(lambda: made.arrived == [(DESIRED, b"after")])
    assert made.publisher.reconnects == 0


@mqtt5
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_is_a_little_too_large_is_a_fault_until_something_smaller_comes(mosquitto, station, monkeypatch, protocol):
    monkeypatch.setattr("defectd.messaging.topics.HANG_UP_NS", NS_PER_S // 10)
    broker = mosquitto()
    made = station(broker, subscriptions=[DESIRED], protocol=protocol)
    send(broker, bytes(MAX_INCOMING_BYTES))
    assert until(lambda: made.arrived == [(DESIRED, bytes(MAX_INCOMING_BYTES))])
    send(broker, bytes(MAX_INCOMING_BYTES + 1))
    assert until(lambda: made.raised("message_too_large"))
    assert f"{DESIRED}: {MAX_INCOMING_BYTES + 1} bytes" in made.raised("message_too_large")
    send(broker, b"small")
    assert until(lambda: made.cleared("message_too_large"))
    assert [len(payload) for _, payload in made.arrived] == [MAX_INCOMING_BYTES, 5]


@mqtt5
def test_a_receiver_that_stumbles_does_not_end_the_connection(mosquitto, station):
    broker = mosquitto()
    made = station(broker, subscriptions=[DESIRED])
    made.arrived = None  # nothing can be appended to that
    send(broker, b"bad")
    made.put(5)
    assert until(lambda: made.publisher.counters.acked == 5)
    made.arrived = []
    send(broker, b"good")
    assert until(lambda: made.arrived[-1:] == [(DESIRED, b"good")])
    assert made.publisher.reconnects == 0
    assert made.raised("internal_error") is None


def guarded(directory: Path, *, forbidden: str | None) -> list[str]:
    """Mosquitto's lines for its dynamic security, which refuses the subscription to one topic."""
    plugins = list(Path("/usr/lib").glob("**/mosquitto_dynamic_security.so"))
    if not plugins:
        pytest.skip("no mosquitto_dynamic_security.so; it comes with the package mosquitto")
    acls = [{"acltype": "subscribeLiteral", "topic": forbidden, "allow": False}] if forbidden else []
    allowed = dict.fromkeys(["publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"], True)
    rules = directory / "dynamic-security.json"
    rules.write_text(
        json.dumps(
            {
                "defaultACLAccess": allowed,
                "clients": [],
                "groups": [{"groupname": "all", "roles": [{"rolename": "station"}], "clients": []}],
                "roles": [{"rolename": "station", "acls": acls}],
                "anonymousGroup": "all",
            }
        )
    )
    rules.chmod(0o600)
    return ["per_listener_settings false", f"plugin {plugins[0]}", f"plugin_opt_config_file {rules}"]


@mqtt5
@pytest.mark.parametrize(("protocol", "code"), [("5", "0x87"), ("3.1.1", "0x80")])
def test_a_subscription_that_is_refused_is_a_fault_and_events_go_on(
    mosquitto, station, listen, tmp_path, monkeypatch, protocol, code
):
    monkeypatch.setattr("defectd.messaging.topics.HANG_UP_NS", NS_PER_S // 10)
    broker = mosquitto(*guarded(tmp_path, forbidden=DESIRED))
    listener = listen(broker)
    made = station(broker, subscriptions=[DESIRED], protocol=protocol)
    assert until(lambda: made.raised("subscribe_refused"))
    assert code in made.raised("subscribe_refused")
    assert f"topic read {DESIRED}" in made.raised("subscribe_refused")
    ids = made.put(20)
    assert until(lambda: [event["id"] for event in listener.events("inspection")] == ids)
    assert made.publisher.connected
    assert made.publisher.reconnects == 0
    broker.kill()
    guarded(tmp_path, forbidden=None)
    broker.start()
    assert until(lambda: made.cleared("subscribe_refused"))
    send(broker, b"command")
    assert until(lambda: made.arrived == [(DESIRED, b"command")])


@mqtt5
def test_progress_reaches_who_looks_on_but_is_not_retained(mosquitto, station, listen):
    broker = mosquitto()
    listener, made = listen(broker), station(broker)
    assert until(lambda: made.publisher.connected)
    made.publisher.tell(TOPICS.model_progress, progress("half"))
    assert until(lambda: (listener.last("model/progress") or {}).get("detail") == "half")
    late = listen(broker, client_id="late")
    assert until(lambda: late.last("birth"))
    time.sleep(0.2)
    assert late.last("model/progress") is None


@mqtt5
def test_progress_told_without_a_broker_is_dropped(mosquitto, station, listen):
    broker = mosquitto(started=False)
    made = station(broker)
    made.publisher.tell(TOPICS.model_progress, progress("unheard"))
    broker.start()
    listener = listen(broker)
    assert until(lambda: made.publisher.connected)
    made.publisher.tell(TOPICS.model_progress, progress("heard"))
    assert until(lambda: listener.last("model/progress"))
    told = [json.loads(payload)["detail"] for topic, payload, _ in listener.messages if topic.endswith("progress")]
    assert told == ["heard"]


@mqtt5
def test_a_flood_of_progress_is_thinned_out_the_last_one_arrives_and_events_go_on(mosquitto, station, listen):
    broker = mosquitto()
    listener, made = listen(broker), station(broker)
    assert until(lambda: made.publisher.connected)
    made.put(100)
    for number in range(5000):
        made.publisher.tell(TOPICS.model_progress, progress(str(number)))
    assert until(lambda: (listener.last("model/progress") or {}).get("detail") == "4999")
    assert until(lambda: len(listener.events("inspection")) == 100)
    assert len([topic for topic, *_ in listener.messages if topic.endswith("progress")]) < 5000


@mqtt5
def test_a_third_notice_is_retained_and_left_out_while_there_is_nothing_to_say(mosquitto, station, listen):
    broker = mosquitto()
    made = station(broker)
    assert until(lambda: made.publisher.connected)
    late = listen(broker, client_id="late")
    assert until(lambda: late.last("birth"))
    assert late.last("model/reported") is None
    made.reported = lambda: EXAMPLES[Status]
    made.publisher.announce()
    later = listen(broker, client_id="later")
    assert until(lambda: later.last("model/reported"))
    assert until(made.is_empty)


@mqtt5
def test_a_notice_that_cannot_be_made_is_a_fault_and_events_go_on(mosquitto, station, listen):
    def broken() -> Status:
        raise OSError("the ledger is locked")

    broker = mosquitto()
    listener, made = listen(broker), station(broker)
    assert until(lambda: made.publisher.connected)
    made.reported = broken
    made.publisher.announce()
    assert until(lambda: made.raised("notice_failed"))
    assert "the ledger is locked" in made.raised("notice_failed")
    made.put(5)
    assert until(lambda: len(listener.events("inspection")) == 5)
    made.reported = lambda: EXAMPLES[Status]
    made.publisher.announce()
    assert until(lambda: made.cleared("notice_failed"))
    assert made.publisher.reconnects == 0


@mqtt5
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_notice_that_the_broker_forbids_is_one_fault_that_stays_and_events_go_on(
    mosquitto, station, listen, tmp_path, monkeypatch, protocol
):
    monkeypatch.setattr("defectd.messaging.publisher.REFUSAL_MEMORY_S", 1.0)
    monkeypatch.setattr("defectd.messaging.drain.CALM_NS", NS_PER_S // 20)
    acl = tmp_path / "acl"
    allowed = [f"topic write {TOPICS.prefix}/{name}" for name in ("status", "birth", "evt/#")]
    acl.write_text("\n".join(["topic read #", *allowed]) + "\n")
    acl.chmod(0o600)
    broker = mosquitto(f"acl_file {acl}")
    listener, made = listen(broker), station(broker, protocol=protocol)
    made.reported = lambda: EXAMPLES[Status]
    assert until(lambda: made.publisher.connected)
    made.publisher.announce()
    assert until(lambda: made.raised("publish_refused"))
    assert "model/reported" in made.raised("publish_refused")
    ids = made.put(20)
    assert until(lambda: {event["id"] for event in listener.events("inspection")} == set(ids))
    time.sleep(2.5)
    assert [code for code, *_ in made.told].count("publish_refused") == 1, "it does not come and go"
    assert made.outbox.depth().dead_letters == 0
    assert made.publisher.reconnects < 10, "Mosquitto 2.0 hangs up over it: it is not tried all the time"
    acl.write_text("topic readwrite #\n")
    broker.kill()
    broker.start()
    assert until(lambda: listener.last("model/reported"))
    assert until(lambda: made.cleared("publish_refused"))


@mqtt5
def test_telemetry_is_sent_once_and_does_not_look_like_an_answer_of_the_broker(mosquitto, station, listen):
    broker = mosquitto()
    listener, made = listen(broker), station(broker)
    assert until(lambda: made.publisher.connected)
    assert until(lambda: listener.last("status"))
    for number in range(3):
        made.publisher.tell(TOPICS.device, progress(f"sample {number}"), expires_s=10)
        assert until(lambda number=number: (listener.last("tele/device") or {}).get("detail") == f"sample {number}")
    acked = made.publisher.counters.acked
    made.put(5)
    assert until(lambda: made.publisher.counters.acked == acked + 5)
    made.publisher.close(1.0)
    with listen(broker) as later:
        time.sleep(0.5)
        assert later.last("tele/device") is None, "it is not retained"
