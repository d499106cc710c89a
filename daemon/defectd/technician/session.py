"""The laptop's connection to the broker. It has no thread: messages move while `hear` or `publish` waits."""

from __future__ import annotations

import ssl
import struct
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, Sequence

import paho.mqtt.client as mqtt
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from defectd.errors import StartupError
from defectd.messaging.topics import ROOT
from defectd.technician.wire import DESIRED, PROGRESS, REPORTED, STATUS, Message, read
from defectd.watch.listener import BrokerAddress, Link
from defectd.watch.wire import Malformed

_CONNECT_S = 10.0
_PUBLISH_S = 10.0
_RETRY_S = 1.0
_KEEPALIVE_S = 20
_STEP_S = 0.1
_QUIET_S = 0.5
"""Retained messages come one after the other; after such a pause there are no more."""
_VERSION_REFUSED = frozenset({1, 132})  # CONNACK of 3.1.1 and of 5
_LOGIN_REFUSED = frozenset({4, 5, 134, 135, 140})
_UNREADABLE = (ValueError, LookupError, AssertionError, struct.error, MQTTException)
_VERSIONS = {MQTTProtocolVersion.MQTTv5: "5", MQTTProtocolVersion.MQTTv311: "3.1.1"}


class Session:
    """Hears what the stations of *place* (`site/area/line/station`, `+` for any level) say, and sends them commands.

    `with` connects. Raises StartupError if the broker cannot be reached, or refuses; a connection that is lost later is
    made again while `hear` waits.
    """

    def __init__(self, broker: BrokerAddress, place: str) -> None:
        self.broker, self.link = broker, Link(False, "connecting")
        self.malformed = 0
        self._topics = [f"{ROOT}/{place}/{kind}" for kind in (REPORTED, PROGRESS, STATUS)]
        self._client: mqtt.Client | None = None
        self._heard: list[tuple[str, Message]] = []
        self._answers: dict[int, Any] = {}
        self._ready = self._been_up = False
        self._refusal = ""
        self._version_refused = False
        self._tried_s = 0.0

    def __enter__(self) -> Session:
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def hear(self, within_s: float) -> list[tuple[str, Message]]:
        """What arrives within *within_s* seconds; returns as soon as something has."""
        ends_s = time.monotonic() + within_s
        while not self._heard and (left_s := ends_s - time.monotonic()) > 0:
            self._step(min(left_s, _STEP_S))
        heard, self._heard = self._heard, []
        return heard

    def hear_retained(self, longest_s: float = 5.0) -> list[tuple[str, Message]]:
        """What the broker kept: all that comes until it pauses."""
        ends_s, heard = time.monotonic() + longest_s, list(self.hear(_QUIET_S))
        while heard and time.monotonic() < ends_s:
            more = self.hear(_QUIET_S)
            if not more:
                break
            heard += more
        return heard

    def take_back(self, station: str) -> None:
        """Clear what *station* was commanded last: what it refused today must not begin by itself when it would be
        taken tomorrow. Raises StartupError."""
        self.command(station, b"", 0)

    def command(self, station: str, envelope: bytes, lives_s: int) -> None:
        """Publish a signed command to *station*, kept by the broker for *lives_s*. Raises StartupError if refused."""
        assert self._client is not None
        topic, properties = f"{ROOT}/{station}/{DESIRED}", None
        if envelope and self._client.protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType, properties.MessageExpiryInterval = "application/json", lives_s
        ends_s = time.monotonic() + _PUBLISH_S
        while not self._ready and time.monotonic() < ends_s:
            self._step(_STEP_S)
        mid = self._client.publish(topic, envelope, qos=1, retain=True, properties=properties).mid
        while mid not in self._answers:
            if time.monotonic() > ends_s:
                raise StartupError(
                    f"{station}: broker {self.broker} did not confirm the command within {_PUBLISH_S:.0f} s "
                    f"({self.link.detail}); look at `defectd rollout status` before you send it again"
                )
            self._step(_STEP_S)
        code = self._answers.pop(mid)
        if code.is_failure:
            raise StartupError(
                f"{station}: broker {self.broker} refused the command: {code}; "
                f"its ACL must let user {self.broker.username!r} write {ROOT}/+/+/+/+/{DESIRED}"
            )

    # -- the connection ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        for protocol in _VERSIONS:
            self._close()
            self._client, self._version_refused = self._build(protocol), False
            ends_s = time.monotonic() + _CONNECT_S
            self._connect(self._client.connect, self.broker.host, self.broker.port, _KEEPALIVE_S)
            while not (self._ready or self._refusal or self._version_refused) and time.monotonic() < ends_s:
                if not self._move(_STEP_S):
                    self._version_refused = True  # some brokers just hang up on a version that they do not speak
            if self._refusal:
                raise StartupError(self._refusal)
            if self._ready:
                return
        raise StartupError(
            f"broker {self.broker}: it was reached, and does not answer as an MQTT broker; check the port"
            + ("" if self.broker.ca else ", and whether it expects TLS (--ca)")
        )

    def _connect(self, connect: Any, *arguments: Any) -> None:
        where = f"broker {self.broker}"
        try:
            connect(*arguments)
        except ssl.SSLError as error:
            raise StartupError(
                f"{where}: TLS failed: {error}; check --ca, and that its certificate names {self.broker.host}"
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StartupError(f"{where}: {reason}; check --host and --port, the cable, and that it runs") from error

    def _step(self, timeout_s: float) -> None:
        """Move bytes, or, without a connection, try to get one again."""
        assert self._client is not None
        if self._move(timeout_s):
            return
        if self._refusal:
            raise StartupError(self._refusal)
        self._ready = False
        if self.link.connected:
            self.link = Link(False, "connection lost")
        now_s = time.monotonic()
        if now_s - self._tried_s < _RETRY_S:
            time.sleep(timeout_s)
            return
        self._tried_s = now_s
        try:
            self._client.reconnect()
        except (OSError, ValueError) as error:
            self.link = Link(False, getattr(error, "strerror", None) or str(error))

    def _move(self, timeout_s: float) -> bool:
        """False if there is no connection any more."""
        assert self._client is not None
        try:
            return bool(self._client.loop(timeout=timeout_s) == MQTTErrorCode.MQTT_ERR_SUCCESS) and not self._refusal
        except _UNREADABLE:
            return False

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with suppress(OSError, *_UNREADABLE):
            client.disconnect()
            client.loop(timeout=0.05)  # lets the DISCONNECT out
        client._reset_sockets()  # paho leaves a pair of them to the garbage collector

    def _build(self, protocol: MQTTProtocolVersion) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        client.on_connect, client.on_subscribe = self._on_connect, self._on_subscribe
        client.on_message, client.on_publish = self._on_message, self._on_publish
        broker = self.broker
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if broker.ca is not None:
            try:
                context = ssl.create_default_context(cafile=str(broker.ca))
                if broker.cert is not None and broker.key is not None:
                    context.load_cert_chain(str(broker.cert), str(broker.key))
            except OSError as error:
                raise StartupError(f"{broker.ca}: {error}; expected a CA in PEM form, and our certificate") from error
            client.tls_set_context(context)
        return client

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, code: Any, properties: Any) -> None:
        del flags, properties
        if not code.is_failure:
            self.link = Link(True, f"MQTT {_VERSIONS[client.protocol]}")
            client.subscribe([(topic, 1) for topic in self._topics])
        elif code.value in _VERSION_REFUSED:
            self._version_refused = True
        elif self._been_up and code.value not in _LOGIN_REFUSED:
            self.link = Link(False, str(code))  # it is starting, or busy: tried again
        else:
            hint = "check --username and DEFECTD_MQTT__PASSWORD" if code.value in _LOGIN_REFUSED else "see its log"
            self._refusal = f"broker {self.broker} refused user {self.broker.username!r}: {code}; {hint}"
            self.link = replace(self.link, detail=str(code), refused=True)

    def _on_subscribe(self, client: mqtt.Client, _: Any, mid: int, codes: Sequence[Any], properties: Any) -> None:
        del client, mid, properties
        if codes[0].is_failure:  # the others only add to the picture
            self._refusal = (
                f"broker {self.broker}: user {self.broker.username!r} may not read {self._topics[0]}: {codes[0]}; "
                "its ACL must allow that"
            )
        self._ready = self._been_up = True

    def _on_publish(self, client: mqtt.Client, _: Any, mid: int, code: Any, properties: Any) -> None:
        del client, properties
        self._answers[mid] = code

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        del client
        try:
            heard = read(message.topic, bytes(message.payload))
        except Malformed:
            self.malformed += 1
        else:
            if heard is not None:
                self._heard.append(heard)
