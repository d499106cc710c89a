"""The line's broker as the role `broker` sets it up: its configuration, its ACL and its certificates, on a real
Mosquitto, by trying what they forbid."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from defectd.messaging.topics import Topics
from support.brokers import NO_MOSQUITTO, BrokerProcess, find_mosquitto

jinja2 = pytest.importorskip("jinja2")
pytestmark = [
    pytest.mark.mqtt5,
    pytest.mark.skipif(find_mosquitto() is None, reason=NO_MOSQUITTO),
]

ROLE = Path(__file__).parents[2] / "deploy/roles/broker"
AOI1 = Topics("plant", "hall", "line", "aoi1")
AOI2 = Topics("plant", "hall", "line", "aoi2")
NOT_AUTHORIZED = 0x87
WAIT_S = 20.0
QUIET_S = 1.0  # what is forbidden does not arrive; a message on this machine takes milliseconds


def line_ca(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROLE / "files/line_ca"), str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check)


class LineBroker(BrokerProcess):
    """Mosquitto with the files that the role writes."""

    def command(self) -> list[str]:
        executable = find_mosquitto()
        assert executable is not None
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        text = environment.from_string((ROLE / "templates/mosquitto.conf.j2").read_text()).render(
            broker_port=self.port, broker_bind=self.host, broker_directory=self.directory, broker_log="stderr",
            broker_state=self.directory, broker_autosave_s=30, broker_queue_messages=100_000,
            broker_queue_bytes=256 << 20, broker_forget_clients_after="7d", broker_packet_bytes=1 << 20,
            broker_connections=500,
        )  # fmt: skip
        (self.directory / "acl").write_text((ROLE / "files/acl").read_text())
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text(text + "user root\n")  # it would give up root, and could not read the keys
        return [executable, "-c", str(configuration)]


class Party:
    """Somebody with a certificate. MQTT 5, for its reason codes."""

    def __init__(self, broker: LineBroker, ca: Path, name: str | None, **options: Any) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.connected: list[int] = []
        self.ended: list[bool] = []
        self._answers: dict[int, int] = {}
        self._changed = threading.Condition()
        client_id = options.pop("client_id", f"test-{name}")
        will: str | None = options.pop("will", None)
        session_s: int = options.pop("session_s", 0)
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5, reconnect_on_failure=False
        )
        own = {"certfile": str(ca / f"{name}.crt"), "keyfile": str(ca / f"{name}.key")} if name else {}
        self.client.tls_set(ca_certs=str(options.pop("trust", ca / "ca.crt")), **own)
        if will:
            self.client.will_set(will, b"will", qos=1)
        self.client.on_connect = lambda _c, _u, _f, code, _p: self._note(lambda: self.connected.append(code.value))
        self.client.on_disconnect = lambda *_: self._note(lambda: self.ended.append(True))
        self.client.on_publish = lambda _c, _u, mid, code, _p: self._note(
            lambda: self._answers.update({mid: code.value})
        )
        self.client.on_subscribe = lambda _c, _u, mid, _codes, _p: self._note(lambda: self._answers.update({mid: 0}))
        self.client.on_message = lambda _c, _u, m: self._note(lambda: self.messages.append((m.topic, m.payload)))
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = session_s
        self.client.connect(broker.host, broker.port, properties=properties, clean_start=not session_s)
        self.client.loop_start()
        if not self.wait(lambda: bool(self.connected or self.ended), WAIT_S) or not self.connected:
            self.close()
            raise ConnectionError("no CONNACK")

    def _note(self, change: Any) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def wait(self, true: Any, seconds: float = WAIT_S) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(true, seconds))

    def publish(self, topic: str, payload: bytes = b"{}", *, retain: bool = False) -> int:
        """The broker's reason code."""
        told = self.client.publish(topic, payload, qos=1, retain=retain)
        assert self.wait(lambda: told.mid in self._answers), "no PUBACK"
        return self._answers[told.mid]

    def subscribe(self, topics: str) -> Party:
        _, mid = self.client.subscribe(topics, qos=1)
        assert self.wait(lambda: mid in self._answers), "no SUBACK"
        return self

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Close the socket without a word."""
        self.client._sock.close()  # type: ignore[union-attr]
        self.client.loop_stop()

    def __enter__(self) -> Party:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the line: a broker, two stations, an MES, a technician, and a station that has left."""
    folder = tmp_path_factory.mktemp("ca")
    line_ca(folder, "server", "line-broker", "127.0.0.1", "localhost")
    for station in ("aoi1", "aoi2", "gone"):
        line_ca(folder, "station", station)
    for user in ("mes", "technician"):
        line_ca(folder, "user", user)
    for suffix in ("crt", "key"):
        (folder / f"kept.{suffix}").write_bytes((folder / f"gone.{suffix}").read_bytes())
    line_ca(folder, "revoke", "gone")
    return folder


@pytest.fixture(scope="module")
def broker(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LineBroker]:
    broker = LineBroker(tmp_path_factory.mktemp("broker"))
    for there, here in {"broker.crt": "line-broker.broker.crt", "broker.key": "line-broker.broker.key"}.items():
        (broker.directory / there).write_bytes((ca / here).read_bytes())
    for name in ("ca.crt", "ca.crl"):
        (broker.directory / name).write_bytes((ca / name).read_bytes())
    with broker:
        yield broker


STREAMS = ("inspection", "fault", "gap", "slow_down", "rollout")
OWN = [
    *(AOI1.status, AOI1.birth, AOI1.device, AOI1.model_reported, AOI1.model_progress),
    *(AOI1.event(stream) for stream in STREAMS),
]


@pytest.mark.parametrize("topic", OWN)
def test_a_station_says_what_is_its_own(topic: str, ca: Path, broker: LineBroker):
    with Party(broker, ca, "aoi1") as station:
        assert station.publish(topic) in (0x00, 0x10)  # 0x10: nobody listens


@pytest.mark.parametrize(
    "topic",
    [topic.replace("/aoi1/", "/aoi2/") for topic in OWN]
    + [
        AOI1.model_desired,
        AOI2.model_desired,
        f"{AOI1.prefix}/cmd/ping",
        f"{AOI1.prefix}/model/else",
        "defectd/v1",
        "else",
    ],
)
def test_a_station_says_nothing_else(topic: str, ca: Path, broker: LineBroker):
    with Party(broker, ca, "aoi1") as station:
        assert station.publish(topic) == NOT_AUTHORIZED


@pytest.mark.parametrize("topic", [*OWN, AOI1.model_desired, "defectd/v1/plant/hall/line/mes/cmd/x", "else"])
def test_the_mes_writes_nothing_else(topic: str, ca: Path, broker: LineBroker):
    with Party(broker, ca, "mes") as mes:
        assert mes.publish(topic) == NOT_AUTHORIZED


@pytest.mark.parametrize("topic", [*OWN, f"{AOI1.prefix}/cmd/ping", "else"])
def test_a_technician_writes_nothing_but_commands(topic: str, ca: Path, broker: LineBroker):
    with Party(broker, ca, "technician") as technician:
        assert technician.publish(topic) == NOT_AUTHORIZED
        assert technician.publish(AOI1.model_desired) in (0x00, 0x10)


def test_a_client_id_of_another_station_opens_nothing(ca: Path, broker: LineBroker):
    with Party(broker, ca, "aoi1", client_id="defectd-aoi2") as station:
        assert station.publish(AOI2.status) == NOT_AUTHORIZED


def test_a_station_reads_its_own_commands_and_nothing_else(ca: Path, broker: LineBroker):
    with Party(broker, ca, "aoi1").subscribe("#") as first, Party(broker, ca, "aoi2") as second:
        first.subscribe(f"$share/group/{AOI2.prefix}/#").subscribe("$SYS/#")
        second.publish(AOI2.event("inspection"))
        with Party(broker, ca, "technician") as technician:
            technician.publish(AOI2.model_desired, b"second")
            technician.publish(AOI1.model_desired, b"first")
        assert first.wait(lambda: bool(first.messages))
        time.sleep(QUIET_S)
        assert first.messages == [(AOI1.model_desired, b"first")]


def test_a_command_waits_for_a_station_that_is_away(ca: Path, broker: LineBroker):
    with Party(broker, ca, "technician") as technician:
        technician.publish(AOI1.model_desired, b"command", retain=True)
        with Party(broker, ca, "aoi1").subscribe(AOI1.model_desired) as station:
            assert station.wait(lambda: station.messages == [(AOI1.model_desired, b"command")])
        technician.publish(AOI1.model_desired, b"", retain=True)


def test_the_mes_says_which_unit_comes_and_the_station_hears_it(ca: Path, broker: LineBroker):
    with Party(broker, ca, "aoi1").subscribe(AOI1.unit) as station, Party(broker, ca, "mes") as mes:
        assert mes.publish(AOI1.unit, b"unit") == 0
        assert station.wait(lambda: station.messages == [(AOI1.unit, b"unit")])


@pytest.mark.parametrize("topics", ["defectd/v1/#", "$share/mes/defectd/v1/+/+/+/+/evt/#"])
def test_the_mes_reads_all_events(topics: str, ca: Path, broker: LineBroker):
    with Party(broker, ca, "mes").subscribe(topics) as mes:
        for name, topic in (("aoi1", AOI1.event("inspection")), ("aoi2", AOI2.event("fault"))):
            with Party(broker, ca, name) as station:
                assert station.publish(topic) == 0
        assert mes.wait(lambda: len(mes.messages) == 2)


def test_a_will_in_the_name_of_another_station_is_not_sent(ca: Path, broker: LineBroker):
    with Party(broker, ca, "mes").subscribe("defectd/v1/#") as mes:
        with contextlib.suppress(ConnectionError):  # refused right away: as good
            Party(broker, ca, "aoi1", will=AOI2.status).vanish()
        Party(broker, ca, "aoi1", will=AOI1.status).vanish()
        assert mes.wait(lambda: bool(mes.messages))
        time.sleep(QUIET_S)
        assert mes.messages == [(AOI1.status, b"will")]


def connects(broker: LineBroker, ca: Path, name: str | None, **options: Any) -> bool:
    try:
        with Party(broker, ca, name, **options) as party:
            return party.connected[0] == 0
    except OSError:  # of TLS, or no CONNACK
        return False


def test_nobody_comes_in_without_a_certificate(ca: Path, broker: LineBroker):
    assert connects(broker, ca, "aoi1")
    assert not connects(broker, ca, None)


def test_a_certificate_of_another_ca_is_refused(ca: Path, broker: LineBroker, tmp_path: Path):
    line_ca(tmp_path, "station", "aoi1")
    assert not connects(broker, tmp_path, "aoi1", trust=ca / "ca.crt")


def test_a_revoked_certificate_is_refused(ca: Path, broker: LineBroker):
    assert not connects(broker, ca, "kept")


def test_a_station_cannot_pose_as_the_broker(ca: Path):
    verify = ["openssl", "verify", "-purpose", "sslserver", "-CAfile", str(ca / "ca.crt")]
    assert (
        subprocess.run([*verify, str(ca / "line-broker.broker.crt")], capture_output=True, check=False).returncode == 0
    )
    assert subprocess.run([*verify, str(ca / "aoi1.crt")], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("station", "mes"), "the ACL gives that name to a user"),
        (("station", "technician"), "the ACL gives that name to a user"),
        (("station", "+"), "expected letters"),
        (("station", "a/b"), "expected letters"),
        (("station", "a" * 65), "longer than 64"),
        (("user", "somebody"), "expected technician or mes"),
        (("server", "x", "a b"), "expected a name or an address"),
        (("revoke", "unknown"), "no certificate"),
    ],
)  # fmt: skip
def test_names_that_the_acl_would_misread_get_no_certificate(arguments: tuple[str, ...], words: str, tmp_path: Path):
    refused = line_ca(tmp_path, *arguments, check=False)
    assert refused.returncode == 2 and words in refused.stderr
    assert not list(tmp_path.glob("issued/*.pem"))


def test_a_certificate_is_made_once(ca: Path):
    assert line_ca(ca, "station", "aoi1").stdout == "unchanged\n"
    assert line_ca(ca, "server", "line-broker", "127.0.0.1", "localhost").stdout == "unchanged\n"
    assert line_ca(ca, "user", "mes").stdout == "unchanged\n"


def test_a_broker_that_moves_gets_a_new_certificate(tmp_path: Path):
    assert line_ca(tmp_path, "server", "b", "10.0.0.5").stdout == "changed\n"
    assert line_ca(tmp_path, "server", "b", "10.0.0.6").stdout == "changed\n"


def test_keys_are_readable_by_their_owner_alone(ca: Path):
    assert {path.stat().st_mode & 0o077 for path in ca.rglob("*") if path.stem != "kept"} == {0}


def test_the_queue_of_an_mes_that_is_away_holds_more_than_the_default_and_survives_a_restart(
    ca: Path, broker: LineBroker
):
    Party(broker, ca, "mes", session_s=3600).subscribe(AOI1.event("inspection")).close()
    with Party(broker, ca, "aoi1") as station:
        told = [station.client.publish(AOI1.event("inspection"), str(n).encode(), qos=1) for n in range(3000)]
        assert station.wait(lambda: all(one.mid in station._answers for one in told), 60)
    broker.stop()
    broker.start()
    with Party(broker, ca, "mes", session_s=3600) as mes:
        assert mes.wait(lambda: len(mes.messages) >= 3000, 60)
        assert [int(payload) for _, payload in mes.messages] == list(range(3000))
