"""What is said once and not kept: progress, telemetry. The latest of each topic, while there is a connection."""

from __future__ import annotations

import threading
from typing import NamedTuple


class Said(NamedTuple):
    """`expires_s` None: QoS 1; else QoS 0, and the broker forgets it after so long."""

    payload: bytes
    expires_s: int | None


class Told:
    """Any thread may `put`; one takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, Said] = {}
        self._listened = False

    def put(self, topic: str, said: Said) -> bool:
        """False if nobody listens: it is dropped."""
        with self._lock:
            if self._listened:
                self._latest[topic] = said
            return self._listened

    def take(self) -> dict[str, Said]:
        """What has been put since the last call."""
        with self._lock:
            latest, self._latest = self._latest, {}
        return latest

    def listen(self, *, listened: bool) -> None:
        """There is a connection from now on, or none: what is told until the next one is not for that one."""
        with self._lock:
            self._listened = listened
            self._latest.clear()
