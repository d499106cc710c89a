"""An MES that never forgets: a subscriber with a persistent session, and what it received."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Dict

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support.brokers import hang_up

Event = Dict[str, Any]

_SESSION_S = 3600
_GOOD = ("passed", "failed")


class Collector:
    """Receives all events of all stations at QoS 1. The broker keeps its session while it is away, so what the broker
    has acknowledged and this does not get was lost inside the broker."""

    def __init__(self, host: str, port: int, login: tuple[str, str] | None = None) -> None:
        self.events: dict[str, Event] = {}
        """By id, in order of first arrival."""
        self.copies = 0
        self.changed_copies: list[str] = []
        self.retained: dict[str, Event] = {}
        self._subscribed = threading.Event()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_S
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"collector-{time.monotonic_ns()}", protocol=mqtt.MQTTv5
        )
        if login is not None:
            self._client.username_pw_set(*login)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(host, port, keepalive=10, clean_start=False, properties=properties)
        self._client.loop_start()
        if not self._subscribed.wait(10):
            raise TimeoutError("the broker does not take the subscription")

    @property
    def inspections(self) -> list[Event]:
        """The evt/inspection, in order of first arrival."""
        return [event for event in list(self.events.values()) if event["schema"].startswith("defectd.inspection/")]

    def good_since(self, wall_s: float) -> int:
        """How many units captured after *wall_s* (time.time) were passed or failed."""
        return sum(
            event["verdict"] in _GOOD and wall_time_s(event["started_at"]) > wall_s for event in self.inspections
        )

    def close(self) -> None:
        """Disconnect; the broker forgets the session when it expires."""
        hang_up(self._client)

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe("defectd/v1/#", qos=1)

    def _on_message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith(("/model/desired", "/cmd/unit")):
            return  # to the station, not from it, and not always JSON
        event = json.loads(message.payload)
        if "/evt/" not in message.topic:
            self.retained[message.topic.rpartition("/")[2]] = event
            return
        before = self.events.setdefault(event["id"], event)
        if before is not event:
            self.copies += 1
            if before != event:
                self.changed_copies.append(event["id"])


def wall_time_s(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time as events carry it."""
    from datetime import datetime

    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
