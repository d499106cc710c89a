"""A subscriber in its own thread: events in, parsed messages out. Tries MQTT 5, then 3.1.1."""

from __future__ import annotations

import queue
import ssl
import struct
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator

import paho.mqtt.client as mqtt
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from defectd.messaging.topics import ROOT
from defectd.watch.wire import Malformed, Message, read

ALL_STATIONS = "+/+/+/+"
_QUEUE_LIMIT = 20_000
_KEEPALIVE_S = 20
_VERSION_REFUSED = frozenset({1, 132})  # CONNACK of 3.1.1 and of 5
_LOGIN_REFUSED = frozenset({4, 5, 134, 135})
_RETRY_S = 1.0
_OTHER = {
    MQTTProtocolVersion.MQTTv5: MQTTProtocolVersion.MQTTv311,
    MQTTProtocolVersion.MQTTv311: MQTTProtocolVersion.MQTTv5,
}
# What paho raises on packets that it cannot read, such as the refusal of a broker that knows 3.1.1 alone.
_UNREADABLE = (ValueError, LookupError, AssertionError, struct.error, MQTTException)


@dataclass(frozen=True)
class BrokerAddress:
    """Where the broker is and how to get in. Setting *ca* turns TLS on."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Link:
    """How the viewer stands with the broker."""

    connected: bool
    detail: str
    refused: bool = False
    """The login was refused: trying again will not help."""


class Listener:
    """Subscribes to *stations* (`site/area/line/station`, `+` for any) while the `with` lasts."""

    def __init__(self, broker: BrokerAddress, stations: str = ALL_STATIONS) -> None:
        self.link = Link(False, "connecting")
        self.malformed = 0
        self.overflowed = 0
        """Messages that this viewer was too slow to look at."""
        self._broker, self._filter = broker, f"{ROOT}/{stations}/#"
        self._messages: queue.Queue[tuple[str, Message]] = queue.Queue(_QUEUE_LIMIT)
        self._stopping = threading.Event()
        self._subscribed = threading.Event()
        self._client: mqtt.Client | None = None
        self._refusal = 0  # the code of a CONNACK that refused us
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._client is not None:
            self._client.disconnect()
        self._thread.join(timeout=2.0)

    def wait_subscribed(self, timeout_s: float) -> bool:
        """True once the broker has confirmed the subscription: from then on nothing is missed."""
        return self._subscribed.wait(timeout_s)

    def hear(self, timeout_s: float) -> Iterator[tuple[str, Message]]:
        """Everything that has arrived, waiting at most *timeout_s* for the first."""
        try:
            yield self._messages.get(timeout=timeout_s)
            while True:
                yield self._messages.get_nowait()
        except queue.Empty:
            return

    def clear_retained(self, topics: tuple[str, ...]) -> None:
        """Remove retained messages, so that a borrowed broker is left as it was found."""
        for topic in topics:
            if self._client is not None and self._client.is_connected():
                self._client.publish(topic, b"", qos=1, retain=True).wait_for_publish(2.0)

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        protocol = MQTTProtocolVersion.MQTTv5
        while not self._stopping.is_set():
            self._client = client = self._build(protocol)
            self._refusal = 0
            answered = self._serve(client)
            if self.link.refused:
                return
            if self._refusal in _VERSION_REFUSED and protocol == MQTTProtocolVersion.MQTTv5:
                protocol = MQTTProtocolVersion.MQTTv311
                continue
            self._stopping.wait(_RETRY_S)
            if not answered:
                protocol = _OTHER[protocol]  # some brokers just hang up on a version that they do not speak

    def _serve(self, client: mqtt.Client) -> bool:
        """Keep one connection until it ends; False if the broker was reached and hung up without a word."""
        try:
            client.connect(self._broker.host, self._broker.port, keepalive=_KEEPALIVE_S)
        except (OSError, ValueError) as error:
            self.link = Link(False, getattr(error, "strerror", None) or str(error))
            return True
        try:
            while not (self._stopping.is_set() or self._refusal):
                if client.loop(timeout=0.2) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    break
            client.loop(timeout=0.05)  # lets a DISCONNECT out
        except _UNREADABLE:
            self._refusal = self._refusal or (0 if self.link.connected else min(_VERSION_REFUSED))
        answered = self.link.connected or self._refusal != 0
        if self.link.connected or not answered:
            self.link = Link(False, "connection lost" if self.link.connected else "the broker hung up")
        return answered

    def _build(self, protocol: MQTTProtocolVersion) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        client.on_connect, client.on_subscribe = self._on_connect, self._on_subscribe
        client.on_message = self._on_message
        broker = self._broker
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if broker.ca is not None:
            context = ssl.create_default_context(cafile=str(broker.ca))
            if broker.cert is not None and broker.key is not None:
                context.load_cert_chain(str(broker.cert), str(broker.key))
            client.tls_set_context(context)
        return client

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, code: Any, properties: Any) -> None:
        del flags, properties
        if code.is_failure:
            self._refusal = code.value
            self.link = Link(False, str(code), refused=code.value in _LOGIN_REFUSED)
            return
        version = "5" if client.protocol == MQTTProtocolVersion.MQTTv5 else "3.1.1"
        self.link = Link(True, f"MQTT {version}")
        client.subscribe(self._filter, qos=1)

    def _on_subscribe(self, client: mqtt.Client, _: Any, mid: int, codes: Any, properties: Any) -> None:
        del client, mid, properties
        refused = [code for code in codes if code.is_failure]
        if refused:
            self.link = replace(self.link, detail=f"{self._filter} refused: {refused[0]}", refused=True)
        else:
            self._subscribed.set()

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        del client
        try:
            heard = read(message.topic, bytes(message.payload))
            if heard is not None:
                self._messages.put_nowait(heard)
        except Malformed:
            self.malformed += 1
        except queue.Full:
            self.overflowed += 1
