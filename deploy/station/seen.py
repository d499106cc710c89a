"""Whether the station is seen inspecting at its broker. The one part that needs paho-mqtt."""

from __future__ import annotations

import json
import os
import ssl
import time
import uuid
from datetime import datetime
from typing import Any, Mapping


def look_for(prefix: str, broker: Mapping[str, Any], since_s: float, within_s: float) -> dict[str, Any]:
    """Until a status `inspecting` or an inspection that is younger than *since_s* (Unix time, the station's clock).

    Returns {"seen": what or None, "reached": bool, "detail": words}; never raises for what the network does.
    """
    from paho.mqtt.client import Client, MQTTv311  # noqa: PLC0415 - this file is read where it is not installed, too
    from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415

    found: dict[str, Any] = {"seen": None, "reached": False, "detail": "no answer"}
    topics = [f"{prefix}/status", f"{prefix}/evt/inspection"]

    def connected(client: Client, _data: object, _flags: object, reason: Any, _more: object) -> None:
        if reason.is_failure:
            found["detail"] = f"the broker refuses the login: {reason}"
            return
        found["reached"], found["detail"] = True, f"nothing on {prefix} that is younger than the switch"
        client.subscribe([(topic, 1) for topic in topics])

    def subscribed(_client: Client, _data: object, _mid: int, reasons: Any, _more: object) -> None:
        if all(reason.is_failure for reason in reasons):
            found["detail"] = f"the broker does not let this login read {prefix}: see its ACL"

    def arrived(_client: Client, _data: object, message: Any) -> None:
        words = judge_message(message.topic, bytes(message.payload), since_s)
        if words is not None and found["seen"] is None:
            found["seen"] = words

    client = Client(CallbackAPIVersion.VERSION2, client_id=f"defectd-deploy-{uuid.uuid4().hex[:8]}", protocol=MQTTv311)
    client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, arrived
    if broker.get("username"):
        client.username_pw_set(broker["username"], broker.get("password"))
    if broker.get("ca"):
        context = ssl.create_default_context(cafile=broker["ca"])
        if broker.get("cert"):
            context.load_cert_chain(broker["cert"], broker["key"])
        client.tls_set_context(context)
    try:
        client.connect(str(broker.get("host") or "127.0.0.1"), int(broker.get("port") or 1883))
    except (OSError, ValueError) as error:
        found["detail"] = f"{broker.get('host')}:{broker.get('port')} cannot be reached: {error}"
        return found
    ends_s = time.monotonic() + within_s
    while found["seen"] is None and time.monotonic() < ends_s:
        if client.loop(0.2) != 0:
            time.sleep(0.5)
            try:
                client.reconnect()
            except OSError as error:
                found["detail"] = str(error)
    client.disconnect()
    return found


def judge_message(topic: str, payload: bytes, since_s: float) -> str | None:
    """What it proves, in words, or None: an old message proves nothing."""
    try:
        body = json.loads(payload)
        if topic.endswith("/status"):
            if body["condition"] not in ("inspecting", "degraded") or _unix_s(body["ts"]) < since_s:
                return None
            return f"status {body['condition']}"
        if _unix_s(body["created_at"]) < since_s:
            return None
        return f"evt/inspection {body['verdict']}"
    except (ValueError, KeyError, TypeError):
        return None


def _unix_s(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def broker_of(settings: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Host, login and certificates as the `[mqtt]` table in effect has them, the password from the environment."""
    mqtt = settings["mqtt"]
    tls = mqtt.get("tls") or {}
    password = environment.get("DEFECTD_MQTT__PASSWORD")
    if password is None and mqtt.get("password_file"):
        with open(mqtt["password_file"], encoding="utf-8") as file:  # noqa: PTH123 - one line
            password = file.read().strip()
    return {
        "host": mqtt.get("host"), "port": mqtt.get("port"), "username": mqtt.get("username"), "password": password,
        "ca": tls.get("ca"), "cert": tls.get("cert"), "key": tls.get("key"),
    }  # fmt: skip
