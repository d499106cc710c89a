"""An MES with a certificate: writes [topic, payload] of every message as a line of JSON.

python -m support.mes HOST PORT CA_DIRECTORY FILE
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion


def main(host: str, port: str, ca: str, into: str) -> None:
    """Until it is killed. *into* exists from the subscription on."""
    names: dict[str, Any] = {"ca_certs": f"{ca}/ca.crt", "certfile": f"{ca}/mes.crt", "keyfile": f"{ca}/mes.key"}
    client = Client(CallbackAPIVersion.VERSION2, client_id="mes", clean_session=False, protocol=MQTTv311)
    client.tls_set(**names)
    client.reconnect_delay_set(1, 1)

    def arrived(_client: Client, _data: object, message: Any) -> None:
        if "/evt/" in message.topic:
            with Path(into).open("a") as file:
                file.write(json.dumps([message.topic, json.loads(message.payload)]) + "\n")

    client.on_connect = lambda *_: client.subscribe("defectd/v1/#", qos=1)
    client.on_subscribe = lambda *_: Path(into).touch()
    client.on_message = arrived
    for _ in range(100):
        try:
            client.connect(host, int(port), keepalive=10)
            break
        except OSError:  # the broker is about to start
            time.sleep(0.1)
    client.loop_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
