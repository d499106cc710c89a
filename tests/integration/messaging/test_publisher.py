"""The publisher against real brokers that refuse, freeze, and are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import IO, Any, Callable

import pytest

from defectd.clock import NS_PER_S
from defectd.examples import EXAMPLES
from defectd.inspection.events import FaultEvent, new_id

mqtt5 = pytest.mark.mqtt5


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return bool(condition())


def large_fault(size: int) -> FaultEvent:
    return EXAMPLES[FaultEvent].model_copy(update={"id": new_id(), "detail": "x" * size})


@mqtt5
def test_status_and_birth_are_retained_and_events_arrive_in_order(mosquitto, station, listen):
    broker = mosquitto()
    listener, made = listen(broker), station(broker)
    ids = made.put(300)
    assert until(lambda: len(listener.events("inspection")) == 300)
    assert [event["id"] for event in listener.events("inspection")] == ids
    assert until(made.is_empty)
    assert (made.publisher.protocol, made.publisher.connected) == ("5", True)
    late = listen(broker, client_id="late")
    assert until(lambda: late.last("status") and late.last("birth"))
    assert all(retained for _, _, retained in late.messages)
    assert (late.last("status")["state"], late.last("birth")["schema"]) == ("online", "defectd.birth/1.0")
    counters = made.publisher.counters
    assert (counters.published, counters.acked, counters.no_subscribers) == (300, 300, 0)


@mqtt5
def test_an_announcement_replaces_the_retained_status(mosquitto, station, listen):
    broker = mosquitto()
    listener, made = listen(broker), station(broker)
    assert until(lambda: made.publisher.connected)
    made.status = made.status.model_copy(update={"detail": "changed"})
    made.publisher.announce()
    assert until(lambda: (listener.last("status") or {}).get("detail") == "changed")


@mqtt5
def test_that_no_one_listens_is_counted(mosquitto, station):
    made = station(mosquitto())
    made.put(10)
    assert until(lambda: made.publisher.counters.no_subscribers == 10)
    assert made.publisher.counters.nobody_listens
    assert until(made.is_empty)


@mqtt5
def test_events_from_before_the_broker_is_there_arrive_later(mosquitto, station):
    broker = mosquitto(started=False)
    made = station(broker)
    ids = made.put(50)
    assert until(lambda: made.raised("disconnected"))
    assert f":{broker.port}" in made.raised("disconnected")
    broker.start()
    assert until(lambda: made.cleared("disconnected"))
    assert until(made.is_empty)
    assert made.publisher.counters.acked == len(ids)


@mqtt5
def test_a_broker_killed_in_the_middle_loses_no_event(mosquitto, station, listen):
    broker = mosquitto("max_inflight_messages 0")
    listener = listen(broker)
    broker.save()
    made = station(broker, rate_limit_hz=500.0)
    ids = []
    for kill in range(3):
        ids += made.put(200, first=200 * kill)
        assert until(lambda count=kill: len(listener.events("inspection")) > 200 * count + 60)
        broker.save()
        broker.kill()
        ids += made.put(20, first=200 * kill + 180)
        time.sleep(0.1)
        broker.start()
    assert until(lambda: {event["id"] for event in listener.events("inspection")} >= set(ids), 15.0)
    assert {event["id"] for event in listener.events("inspection")} == set(ids)
    seqs = sorted({event["seq"] for event in listener.events("inspection")})
    assert seqs == list(range(1, len(ids) + 1))
    assert made.publisher.reconnects >= 3


@mqtt5
def test_a_broker_that_freezes_is_noticed_and_gets_everything_after_it_thaws(mosquitto, station, listen):
    broker = mosquitto()
    listener = listen(broker)
    made = station(broker, keepalive_s=1)
    assert until(lambda: made.publisher.connected)
    broker.freeze()
    ids = made.put(100)
    assert until(lambda: not made.publisher.connected)
    broker.thaw()
    assert until(lambda: {event["id"] for event in listener.events("inspection")} == set(ids))
    assert until(made.is_empty)


@mqtt5
def test_a_broker_that_stops_answering_while_the_connection_lives_is_left(mosquitto, station, monkeypatch):
    monkeypatch.setattr("defectd.messaging.publisher.ANSWER_TIMEOUT_S", 0.3)
    broker = mosquitto()
    made = station(broker, keepalive_s=60)
    assert until(lambda: made.publisher.connected)
    broker.freeze()
    made.put(100)
    assert until(lambda: made.raised("not_answering"), 5.0)
    broker.thaw()
    assert until(made.is_empty)
    assert until(lambda: made.cleared("not_answering"))


@mqtt5
def test_what_the_broker_forbids_is_set_aside_and_told_and_the_rest_goes_on(mosquitto, station, listen, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text(
        "topic read #\n"
        "topic write defectd/v1/+/+/+/+/status\ntopic write defectd/v1/+/+/+/+/birth\n"
        "topic write defectd/v1/+/+/+/+/evt/fault\ntopic write defectd/v1/+/+/+/+/evt/gap\n"
    )
    acl.chmod(0o600)
    broker = mosquitto(f"acl_file {acl}")
    listener, made = listen(broker), station(broker)
    made.put(30, verdict="failed")
    made.outbox.put(large_fault(10))
    assert until(lambda: made.outbox.depth().dead_letters == 30)
    assert until(lambda: listener.events("fault"))
    assert until(lambda: sum(gap["lost"] for gap in listener.events("gap")) == 30)
    told = [seq for gap in listener.events("gap") for first, last in gap["ranges"] for seq in range(first, last + 1)]
    assert sorted(told) == list(range(1, 31))
    assert {gap["reason"] for gap in listener.events("gap")} == {"rejected_by_broker"}
    assert "evt/inspection" in made.raised("publish_refused")
    assert [code for code, *_ in made.told].count("publish_refused") == 1
    assert made.publisher.connected


@mqtt5
def test_a_broker_that_forbids_even_the_status_costs_no_event(mosquitto, station, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topic read #\n")
    made = station(mosquitto(f"acl_file {acl}"))
    made.put(5)
    assert until(lambda: made.raised("publish_refused"))
    assert "/status" in made.raised("publish_refused")
    time.sleep(1.0)
    assert made.outbox.depth().pending == 5
    assert made.publisher.counters.dead_letters == 0


class RudeBroker(threading.Thread):
    """Speaks just enough MQTT 3.1.1 to take everything but one topic, on which it hangs up, subscriptions too."""

    def __init__(self, hates: bytes) -> None:
        super().__init__()
        self.hates = hates
        self.taken: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._server.getsockname()
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client, client.makefile("rb") as stream:
                self._serve(client, stream)

    def _serve(self, client: socket.socket, stream: IO[bytes]) -> None:
        while True:
            header = stream.read(1)
            if not header:
                return
            length, shift = 0, 0
            while True:
                digit = stream.read(1)[0]
                length |= (digit & 127) << shift
                shift += 7
                if digit < 128:
                    break
            body = stream.read(length)
            if header[0] >> 4 == 1:
                client.sendall(b"\x20\x02\x00\x00")
            elif header[0] >> 4 == 3:
                size = int.from_bytes(body[:2], "big")
                if self.hates in body[2 : 2 + size]:
                    return
                self.taken.append(body[4 + size :])
                client.sendall(b"\x40\x02" + body[2 + size : 4 + size])
            elif header[0] >> 4 == 8:
                if self.hates in body:
                    return
                client.sendall(b"\x90\x03" + body[:2] + b"\x01")

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.join()


def test_an_event_on_which_a_broker_hangs_up_does_not_hold_up_the_others(station):
    broker = RudeBroker(b"evt/fault")
    try:
        made = station(broker, protocol="3.1.1", reconnect_min_s=0.02, reconnect_max_s=0.05)
        made.put(30)
        made.outbox.put(large_fault(10))
        ids = made.put(30, first=30)
        assert until(made.is_empty)
        assert made.outbox.depth().dead_letters == 1
        assert "evt/fault" in made.raised("publish_refused")
        assert {json.loads(each).get("id") for each in broker.taken} >= set(ids)
        made.publisher.close(1.0)
    finally:
        broker.close()


def test_a_broker_that_hangs_up_over_a_subscription_still_gets_the_events(station, monkeypatch):
    monkeypatch.setattr("defectd.messaging.topics.ASK_AGAIN_NS", NS_PER_S // 2)
    monkeypatch.setattr("defectd.messaging.topics.HANG_UP_NS", NS_PER_S // 5)
    desired = "defectd/v1/site/area/line/aoi1/model/desired"
    broker = RudeBroker(b"model/desired")
    try:
        options = {"protocol": "3.1.1", "reconnect_min_s": 0.02, "reconnect_max_s": 0.05}
        made = station(broker, subscriptions=[desired], **options)
        ids = made.put(30)
        assert until(made.is_empty)
        assert until(lambda: made.raised("subscribe_refused"))
        assert desired in made.raised("subscribe_refused")
        ids += made.put(30, first=30)
        assert until(made.is_empty)
        assert {json.loads(each).get("id") for each in broker.taken} >= set(ids)
        assert made.outbox.depth().dead_letters == 0
        broker.hates = b"nothing"
        assert until(lambda: made.cleared("subscribe_refused"))
        assert [code for code, *_ in made.told].count("subscribe_refused") == 2, "raised once, and cleared"
        made.publisher.close(1.0)
    finally:
        broker.close()


@mqtt5
def test_what_is_too_large_for_the_broker_is_not_sent_but_told(mosquitto, station, listen):
    broker = mosquitto("max_packet_size 5000")
    listener, made = listen(broker), station(broker)
    made.put(1)
    made.outbox.put(large_fault(6000))
    made.put(1, first=1)
    assert until(lambda: len(listener.events("inspection")) == 2 and listener.events("gap"))
    (gap,) = listener.events("gap")
    assert (gap["of_stream"], gap["ranges"], gap["reason"]) == ("fault", [[1, 1]], "payload_too_large")
    assert made.publisher.reconnects == 0


@mqtt5
def test_a_wrong_password_is_explained_and_does_not_end_the_publisher(mosquitto, station, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.touch()
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "aoi1", "right"], check=True, capture_output=True)
    passwords.chmod(0o644)
    broker = mosquitto("allow_anonymous false", f"password_file {passwords}")
    made = station(broker, username="aoi1", password="wrong", reconnect_max_s=0.2)
    assert until(lambda: made.raised("login_refused"))
    assert "'aoi1'" in made.raised("login_refused")
    assert f"127.0.0.1:{broker.port}" in made.raised("login_refused")
    assert "wrong" not in made.raised("login_refused")
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "aoi1", "wrong"], check=True, capture_output=True)
    broker.kill()
    broker.start()
    assert until(lambda: made.publisher.connected)
    assert until(lambda: made.cleared("login_refused"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, another CA, and a certificate for 127.0.0.1 and one for elsewhere, made by openssl."""
    directory = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        openssl("req", "-x509", *ec, "-keyout", f"{name}.key", "-out", f"{name}.crt",
                "-days", "2", "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    for name, alternative in (("here", "IP:127.0.0.1"), ("elsewhere", "DNS:elsewhere.example")):
        openssl("req", *ec, "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")  # fmt: skip
        (directory / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", "2", "-extfile", f"{name}.ext")  # fmt: skip
    for key in directory.glob("*.key"):
        key.chmod(0o644)
    return directory


def tls_lines(certificates: Path, name: str) -> list[str]:
    return [f"certfile {certificates}/{name}.crt", f"keyfile {certificates}/{name}.key"]


@mqtt5
def test_events_arrive_over_tls_with_a_certificate_of_our_own(mosquitto, station, certificates):
    from defectd.messaging.tls import Tls

    broker = mosquitto(*tls_lines(certificates, "here"), f"cafile {certificates}/ca.crt", "require_certificate true")
    tls = Tls(ca=certificates / "ca.crt", cert=certificates / "elsewhere.crt", key=certificates / "elsewhere.key")
    made = station(broker, tls=tls)
    made.put(500)
    assert until(lambda: made.publisher.counters.acked == 500)


@mqtt5
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves the socket to the GC
@pytest.mark.parametrize(
    ("certificate", "ca", "detail"),
    [
        ("here", "other.crt", "certificate verify failed"),
        ("elsewhere", "ca.crt", "127.0.0.1"),
        ("here", "missing.crt", "missing.crt"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_explained(mosquitto, station, certificates, certificate, ca, detail):
    from defectd.messaging.tls import Tls

    broker = mosquitto(*tls_lines(certificates, certificate))
    made = station(broker, tls=Tls(ca=certificates / ca))
    assert until(lambda: made.raised("tls_failed"))
    assert detail in made.raised("tls_failed")
    assert not made.publisher.connected


def test_a_broker_that_knows_only_3_1_1_gets_3_1_1(nats, station, listen):
    listener, made = listen(nats), station(nats)
    ids = made.put(200)
    assert until(lambda: len(listener.events("inspection")) == 200)
    assert [event["id"] for event in listener.events("inspection")] == ids
    assert made.publisher.protocol == "3.1.1"
    assert made.raised("disconnected") is None
    nats.kill()
    more = made.put(50, first=200)
    nats.start()
    assert until(made.is_empty)
    assert until(lambda: {event["id"] for event in listener.events("inspection")} == {*ids, *more})


@mqtt5
def test_a_protocol_that_was_set_is_used(mosquitto, station):
    made = station(mosquitto(), protocol="3.1.1")
    made.put(1)
    assert until(lambda: made.publisher.counters.acked == 1)
    assert made.publisher.protocol == "3.1.1"


@mqtt5
def test_closing_says_stopped_and_the_will_does_not_follow(mosquitto, station, listen):
    broker = mosquitto()
    listener, made = listen(broker), station(broker, protocol="3.1.1")
    made.put(10)
    assert until(lambda: made.publisher.connected)
    made.publisher.close(2.0)
    assert until(lambda: (listener.last("status") or {}).get("condition") == "stopped")
    time.sleep(0.3)
    assert [json.loads(p)["condition"] for t, p, _ in listener.messages if t.endswith("/status")][-1] == "stopped"


@mqtt5
def test_closing_without_a_broker_ends_soon(mosquitto, station):
    made = station(mosquitto(started=False))
    assert until(lambda: made.raised("disconnected"))
    started_s = time.monotonic()
    made.publisher.close(5.0)
    assert time.monotonic() - started_s < 1.0


@mqtt5
def test_two_stations_of_the_same_name_are_a_fault(mosquitto, station):
    broker = mosquitto()
    first, second = station(broker, "first.db"), station(broker, "second.db")
    codes = ("session_taken_over", "unstable")  # Mosquitto 2.0.11 does not say why it closes, newer ones do
    assert until(lambda: any(each.raised(code) for each in (first, second) for code in codes))
    details = [each.raised(code) for each in (first, second) for code in codes if each.raised(code)]
    assert all("'defectd-aoi1'" in detail for detail in details)


@mqtt5
def test_an_error_inside_the_publisher_is_reported_and_it_starts_over(mosquitto, station):
    broker = mosquitto()
    made = station(broker)
    assert until(lambda: made.publisher.connected)
    good, made.status = made.status, object()
    made.publisher.announce()
    assert until(lambda: made.raised("internal_error"))
    made.status = good
    made.put(1)
    assert until(lambda: made.publisher.counters.acked == 1)
    assert until(lambda: made.cleared("internal_error"))


@mqtt5
def test_the_rate_limit_holds(mosquitto, station):
    made = station(mosquitto(), rate_limit_hz=100.0)
    assert until(lambda: made.publisher.connected)
    made.put(100)
    started_s = time.monotonic()
    assert until(lambda: made.publisher.counters.acked == 100)
    assert 0.7 < time.monotonic() - started_s < 3.0


STATION = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from defectd.clock import utc_now
    from defectd.examples import EXAMPLES
    from defectd.faults import Faults
    from defectd.inspection.events import Birth, InspectionEvent, Status, new_id
    from defectd.messaging.client import Broker
    from defectd.messaging.outbox import Outbox
    from defectd.messaging.publisher import Notice, Publisher
    from defectd.messaging.topics import Topics
    path, port, protocol = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    outbox = Outbox(path, boot_id="b", station="aoi1", max_bytes=1 << 30, keep_acked_s=60.0,
                    on_commit=lambda: publisher.wake())
    lost = Status(state="offline", condition="lost", detail="", boot_id="b", ts=utc_now())
    topics = Topics("site", "area", "line", "aoi1")
    publisher = Publisher(Broker("127.0.0.1", port, "defectd-aoi1", protocol=protocol, rate_limit_hz=500.0,
                                 reconnect_min_s=0.05, reconnect_max_s=0.2),
                          topics, outbox, [Notice(topics.status, lambda: EXAMPLES[Status]),
                                           Notice(topics.birth, lambda: EXAMPLES[Birth])],
                          lambda: lost, Faults(lambda *_: None))
    outbox.start()
    publisher.start()
    for number in range(int(sys.argv[4])):
        outbox.put(EXAMPLES[InspectionEvent].model_copy(update={"id": new_id()}))
        time.sleep(0.001)
    outbox.flush(5.0)
    print("flushed", flush=True)
    time.sleep(60)
""")


def run_station(path: Path, port: int, protocol: str, count: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", STATION, str(path), str(port), protocol, str(count)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@mqtt5
def test_a_station_killed_in_the_middle_loses_no_event_that_was_on_disk(mosquitto, station, listen, tmp_path):
    broker = mosquitto()
    listener = listen(broker)
    for _ in range(2):
        process = run_station(tmp_path / "outbox.db", broker.port, "5", 1000)
        seen = len(listener.events("inspection"))
        assert until(lambda before=seen: len(listener.events("inspection")) > before + 100)
        kill(process)
    made = station(broker)
    assert until(lambda: made.publisher.connected and made.is_empty())
    last = made.outbox.next_seq()["inspection"] - 1
    assert until(lambda: {event["seq"] for event in listener.events("inspection")} == set(range(1, last + 1)))
    assert len({event["id"] for event in listener.events("inspection")}) == last


@mqtt5
def test_the_will_appears_when_a_station_is_killed(mosquitto, listen, tmp_path):
    broker = mosquitto()
    listener = listen(broker)
    process = run_station(tmp_path / "outbox.db", broker.port, "3.1.1", 1)
    assert until(lambda: (listener.last("status") or {}).get("state") == "online")
    kill(process)
    assert until(lambda: listener.last("status")["condition"] == "lost")


@mqtt5
@pytest.mark.slow
def test_with_mqtt_5_a_quick_return_is_not_seen_as_offline_but_a_long_absence_is(mosquitto, station, listen, tmp_path):
    broker = mosquitto()
    listener = listen(broker)
    process = run_station(tmp_path / "outbox.db", broker.port, "5", 1)
    assert until(lambda: (listener.last("status") or {}).get("state") == "online")
    kill(process)
    process = run_station(tmp_path / "outbox.db", broker.port, "5", 1)
    statuses = lambda: [json.loads(p)["state"] for t, p, _ in listener.messages if t.endswith("/status")]  # noqa: E731
    assert until(lambda: len(statuses()) == 2)
    time.sleep(6.5)
    assert statuses() == ["online", "online"]
    kill(process)
    assert until(lambda: statuses()[-1] == "offline", 10.0)


@mqtt5
def test_announcing_and_waking_from_many_threads_is_safe(mosquitto, station):
    made = station(mosquitto())
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            made.publisher.announce()
            made.publisher.wake()
            time.sleep(0.005)  # each announcement is two messages, which go first: a flood of them starves the events

    threads = [threading.Thread(target=disturb) for _ in range(3)]
    for thread in threads:
        thread.start()
    made.put(100)
    try:
        assert until(lambda: made.publisher.counters.acked == 100, 60.0)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
