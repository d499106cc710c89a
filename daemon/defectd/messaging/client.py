"""One connection to the broker. The only module that imports paho.

paho is driven from our own thread through its external-loop interface: no thread of its own, which could die
unnoticed, and no queue of its own, which would lose and reorder messages across an outage.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.messaging.pacing import ProtocolName, ProtocolSetting
from defectd.messaging.tls import Tls, tls_context
from defectd.messaging.topics import MAX_INCOMING_BYTES, Message

CONNECT_TIMEOUT_S = 5.0
WILL_DELAY_S = 5
# The will is delayed only as long as its session lives, and a clean start would end it. Apart from the will there are
# the subscriptions in it: what comes for them while the station is away for a moment arrives when it returns, and then
# once more if it is retained.
SESSION_EXPIRY_S = 60
MAX_INCOMING_PACKET_BYTES = 128 << 10
PUBLISH_OVERHEAD_BYTES = 64  # header, topic length, message id and properties, rounded up
# What paho raises on packets that it cannot read (2.1: also on a 3.1.1 refusal of an MQTT 5 CONNECT).
_UNREADABLE = (ValueError, LookupError, AssertionError, struct.error, MQTTException)


@dataclass(frozen=True)
class Broker:
    """Where to publish, as whom, and how fast."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keepalive_s: int = 30
    protocol: ProtocolSetting = "auto"
    tls: Tls | None = None
    window: int = 20
    rate_limit_hz: float = 200.0
    reconnect_min_s: float = 1.0
    reconnect_max_s: float = 60.0


class Cause(Enum):
    """Why a connection ended, by what is to be done about it."""

    UNREACHABLE = "unreachable"
    TLS = "tls"
    LOGIN = "login"
    VERSION = "version"
    SILENT = "closed before it answered"
    REFUSED = "refused"
    TAKEN_OVER = "taken over"
    MUTE = "connected, but does not answer"
    FORBIDDEN = "may not even publish its status"
    LOST = "lost"
    CLOSED = "closed by us"


@dataclass(frozen=True)
class End:
    """The end of a connection; *detail* is for a person."""

    cause: Cause
    detail: str


@dataclass(frozen=True)
class Will:
    """What the broker publishes, retained, when the station disappears."""

    topic: str
    payload: bytes


class Connection:
    """From CONNECT to its end; never used again. All calls from one thread.

    An MQTT 5 broker is told not to send packets of more than MAX_INCOMING_PACKET_BYTES. In MQTT 3.1.1 there is no way
    to tell it: a larger message is read into memory, and dropped there.
    """

    def __init__(self, broker: Broker, protocol: ProtocolName, will: Will, wake: socket.socket) -> None:
        """*wake* is a non-blocking socket that interrupts `step` when it is readable."""
        self._broker, self._wake = broker, wake
        self._selector = selectors.DefaultSelector()
        self._answers: list[tuple[int, int]] = []
        self._sent_off: set[int] = set()
        self._messages: list[Message] = []
        self._asked: dict[int, str] = {}
        self._subscribed: list[tuple[str, str]] = []
        self._opened_ns = monotonic_ns()
        self.up = False
        self.end: End | None = None
        self.receive_maximum = 65535
        self.maximum_packet_size: int | None = None
        self._is_v5 = protocol == "5"
        self._properties = _properties(PacketTypes.PUBLISH, ContentType="application/json") if self._is_v5 else None
        self._client = self._new_client(will)

    def open(self) -> None:
        """Connect and send CONNECT; `up` follows from `step`. Blocks for at most a few seconds per address."""
        broker, place = self._broker, f"{self._broker.host}:{self._broker.port}"
        if broker.tls is not None:
            try:
                self._client.tls_set_context(tls_context(broker.tls))
            except OSError as error:
                self._finish(Cause.TLS, f"cannot use {broker.tls}: {error}")
                return
        try:
            self._connect()
        except (ssl.SSLError, ssl.CertificateError) as error:
            self._finish(
                Cause.TLS,
                f"TLS with {place} failed: {error}; check that the CA file belongs to the broker's certificate, "
                f"and that the certificate names {broker.host}",
            )
        except OSError as error:
            self._finish(Cause.UNREACHABLE, f"cannot connect to {place}: {error}")

    def fits(self, topic: str, payload: bytes) -> bool:
        """False if the broker would cut the connection over the size of it."""
        size = len(topic) + len(payload) + PUBLISH_OVERHEAD_BYTES
        return self.maximum_packet_size is None or size <= self.maximum_packet_size

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Queue a QoS 1 message, and return its message id; the answer comes from `step`. Only while `up`."""
        return self._client.publish(topic, payload, qos=1, retain=retain, properties=self._properties).mid

    def send_off(self, topic: str, payload: bytes, expires_s: int) -> None:
        """Queue a QoS 0 message: nobody answers, and an MQTT 5 broker forgets it after *expires_s*. Only while `up`."""
        properties = None
        if self._is_v5:
            properties = _properties(
                PacketTypes.PUBLISH, ContentType="application/json", MessageExpiryInterval=expires_s
            )
        self._sent_off.add(self._client.publish(topic, payload, qos=0, properties=properties).mid)

    def subscribe(self, topic: str) -> None:
        """Ask for *topic* with QoS 1; the answer is for `take_subscribed`. Only while `up`."""
        mid = self._client.subscribe(topic, qos=1)[1]
        if mid is not None:  # else the connection is gone, as `step` will say
            self._asked[mid] = topic

    def take_subscribed(self) -> list[tuple[str, str]]:
        """The answers to `subscribe` since the last call: (topic, why it was refused; empty if it was granted)."""
        subscribed, self._subscribed = self._subscribed, []
        return subscribed

    def take_messages(self) -> list[Message]:
        """What arrived since the last call, in order; the broker may send the same message more than once."""
        messages, self._messages = self._messages, []
        return messages

    def step(self, timeout_s: float) -> list[tuple[int, int]]:
        """Move bytes, wait at most *timeout_s* for more, and return the answers: (message id, reason code)."""
        try:
            self._move(timeout_s)
        except _UNREADABLE as error:
            cause = Cause.LOST if self.up else Cause.SILENT
            self._finish(cause, f"the broker sent what cannot be read: {error!r}")
        if not self.up and self.end is None and monotonic_ns() - self._opened_ns > 2 * CONNECT_TIMEOUT_S * NS_PER_S:
            self._finish(Cause.UNREACHABLE, "the broker does not answer CONNECT")
        answers, self._answers = self._answers, []
        return answers

    def disconnect(self) -> None:
        """Say goodbye, so that the will is not published; `step` until `end`."""
        self._finish(Cause.CLOSED, "closed by us", keep=True)
        self._client.disconnect()
        with suppress(*_UNREADABLE, OSError):
            self._client.loop_write()

    def abandon(self) -> None:
        """Let go of the socket; the broker publishes the will unless `disconnect` went before."""
        open_socket = self._client.socket()
        if open_socket is not None:
            open_socket.close()
        self._selector.close()

    def _new_client(self, will: Will) -> Client:
        broker = self._broker
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=broker.client_id,
            clean_session=None if self._is_v5 else True,
            protocol=MQTTv5 if self._is_v5 else MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the window is ours
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        will_properties = None
        if self._is_v5:
            will_properties = _properties(
                PacketTypes.WILLMESSAGE, WillDelayInterval=WILL_DELAY_S, ContentType="application/json"
            )
        client.will_set(will.topic, will.payload, qos=1, retain=True, properties=will_properties)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = lambda *_: None  # else `publish` writes at once, one by one
        return client

    def _connect(self) -> None:
        if self._is_v5:
            properties = _properties(
                PacketTypes.CONNECT,
                SessionExpiryInterval=SESSION_EXPIRY_S,
                MaximumPacketSize=MAX_INCOMING_PACKET_BYTES,
            )
            self._client.connect(
                self._broker.host, self._broker.port, self._broker.keepalive_s,
                clean_start=False, properties=properties,
            )  # fmt: skip
        else:
            self._client.connect(self._broker.host, self._broker.port, self._broker.keepalive_s)
        self._selector.register(self._wake, selectors.EVENT_READ)
        opened = self._client.socket()
        if opened is not None:
            self._selector.register(opened.fileno(), selectors.EVENT_READ)

    def _move(self, timeout_s: float) -> None:
        client = self._client
        if client.want_write():
            client.loop_write()
        opened: Any = client.socket()
        if opened is None:
            self._finish(Cause.LOST if self.up else Cause.SILENT, "the connection was closed")
            return
        if isinstance(opened, ssl.SSLSocket) and opened.pending():
            timeout_s = 0.0
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
        if self._selector.get_key(opened.fileno()).events != mask:
            self._selector.modify(opened.fileno(), mask)
        ready = self._selector.select(timeout_s)
        if any(key.fileobj is self._wake for key, _ in ready):
            with suppress(BlockingIOError):
                self._wake.recv(4096)
        client.loop_read()
        client.loop_misc()

    def _finish(self, cause: Cause, detail: str, *, keep: bool = False) -> None:
        """The first cause is the one that counts."""
        if self.end is None:
            self.end = End(cause, detail)
        if not keep:
            self.up = False

    def _on_connect(
        self, _c: Client, _u: Any, _f: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if not code.is_failure:
            self.up = True
            self.receive_maximum = getattr(properties, "ReceiveMaximum", 65535)
            self.maximum_packet_size = getattr(properties, "MaximumPacketSize", None)
            return
        broker = self._broker
        if code.value == 0x84:
            self._finish(
                Cause.VERSION, f"{broker.host}:{broker.port} does not speak MQTT {'5' if self._is_v5 else '3.1.1'}"
            )
        elif code.value in (0x86, 0x87, 0x8C):
            self._finish(
                Cause.LOGIN,
                f"{broker.host}:{broker.port} refused client {broker.client_id!r}, user {broker.username!r}: {code}; "
                "check the user name and password here, and that the broker allows them",
            )
        else:
            self._finish(Cause.REFUSED, f"{broker.host}:{broker.port} refused the connection: {code}")

    def _on_publish(self, _c: Client, _u: Any, mid: int, code: ReasonCode, _p: Properties) -> None:
        if mid in self._sent_off:
            self._sent_off.discard(mid)  # it was written to the socket, that is all that is known
        else:
            self._answers.append((mid, code.value))

    def _on_subscribe(self, _c: Client, _u: Any, mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
        topic = self._asked.pop(mid, None)
        if topic is not None:
            refused = next((code for code in codes if code.is_failure), None)
            self._subscribed.append((topic, "" if refused is None else f"{refused} (0x{refused.value:02X})"))

    def _on_message(self, _c: Client, _u: Any, message: MQTTMessage) -> None:
        size = len(message.payload)
        payload = bytes(message.payload) if size <= MAX_INCOMING_BYTES else None
        self._messages.append(Message(message.topic, payload, size))

    def _on_disconnect(
        self, _c: Client, _u: Any, flags: DisconnectFlags, code: ReasonCode, _p: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server and code.value == 0x8E:
            self._finish(
                Cause.TAKEN_OVER,
                f"another client connected as {self._broker.client_id!r}: two stations must not have the same name",
            )
        elif self.up:
            self._finish(Cause.LOST, f"the connection was lost: {code}")
        else:
            self._finish(
                Cause.SILENT,
                f"{self._broker.host}:{self._broker.port} closed the connection before it answered CONNECT ({code})"
                + ("; often a missing or refused client certificate" if self._broker.tls else ""),
            )

    def _on_socket_close(self, _c: Client, _u: Any, closing: Any) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(closing.fileno())


def _properties(packet_type: int, **values: Any) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
