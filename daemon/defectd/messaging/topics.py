"""Where each message goes, `{root}/v1/{site}/{area}/{line}/{station}/…`; which ones a broker does not bear.

A broker may refuse a notice or a subscription, or hang up over it. Neither must hold up the events.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import AbstractSet, Sequence

from defectd.clock import NS_PER_S

ROOT = "defectd/v1"
MAX_INCOMING_BYTES = 96 << 10
ASK_AGAIN_NS = 60 * NS_PER_S
HANG_UP_NS = 2 * NS_PER_S
HANG_UPS = 3  # in a row; fewer than make an event the culprit (Caution), which must not pay for something else


@dataclass(frozen=True)
class Topics:
    """The topics of one station."""

    site: str
    area: str
    line: str
    station: str

    @property
    def levels(self) -> str:
        """site/area/line/station."""
        return f"{self.site}/{self.area}/{self.line}/{self.station}"

    @property
    def prefix(self) -> str:
        """Topic prefix of the station, without a trailing slash."""
        return f"{ROOT}/{self.levels}"

    @property
    def status(self) -> str:
        """Retained, and the will."""
        return f"{self.prefix}/status"

    @property
    def birth(self) -> str:
        """Retained."""
        return f"{self.prefix}/birth"

    def event(self, stream: str) -> str:
        """The topic of a stored stream: inspection, fault, gap."""
        return f"{self.prefix}/evt/{stream}"

    @property
    def device(self) -> str:
        """Telemetry of the device, not retained."""
        return f"{self.prefix}/tele/device"

    @property
    def unit(self) -> str:
        """To the station: a unit is here, or will come."""
        return f"{self.prefix}/cmd/unit"

    @property
    def model_desired(self) -> str:
        """Retained, to the station: a signed command."""
        return f"{self.prefix}/model/desired"

    @property
    def model_reported(self) -> str:
        """Retained."""
        return f"{self.prefix}/model/reported"

    @property
    def model_progress(self) -> str:
        """Not retained, and not stored: only for who looks on."""
        return f"{self.prefix}/model/progress"


@dataclass(frozen=True)
class Message:
    """What arrived, *size* bytes long. *payload* is None if that is more than MAX_INCOMING_BYTES."""

    topic: str
    payload: bytes | None
    size: int


class Subscriptions:
    """When to ask the broker for *topics*: on each connection, and again each minute for what it refused.

    Some brokers answer a forbidden SUBSCRIBE by closing the connection. After HANG_UPS of those in a row the station
    connects without asking, and asks a minute later: events go on, whatever becomes of the subscriptions.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = tuple(topics)
        self._missing = list(self.topics)
        self._hang_ups = 0
        self._ask_at_ns = 0
        self._asked_ns: int | None = None

    def connected(self) -> None:
        """A new connection: nothing is granted yet."""
        self._missing, self._asked_ns = list(self.topics), None
        if self._hang_ups < HANG_UPS:
            self._ask_at_ns = 0

    def due(self, now_ns: int) -> list[str]:
        """The topics to ask for now."""
        if not self._missing or now_ns < self._ask_at_ns:
            return []
        self._asked_ns, self._ask_at_ns = now_ns, now_ns + ASK_AGAIN_NS
        return list(self._missing)

    def granted(self, topic: str) -> None:
        """The broker will send what is published on *topic*."""
        if topic in self._missing:
            self._missing.remove(topic)

    def settled(self, now_ns: int) -> bool:
        """True when all is granted, and the broker has not hung up over it."""
        if self._asked_ns is None or now_ns - self._asked_ns < HANG_UP_NS:
            return False
        self._hang_ups = 0
        return not self._missing

    def lost(self, now_ns: int, *, events_in_flight: bool) -> bool:
        """The connection was lost. True if that was once too often right after the question.

        With *events_in_flight* it may be one of them that the broker cannot bear, unless the question is open.
        """
        at_once = self._asked_ns is not None and now_ns - self._asked_ns < HANG_UP_NS
        if not at_once or (events_in_flight and not self._missing):
            return False
        self._hang_ups += 1
        if self._hang_ups < HANG_UPS:
            return False
        self._ask_at_ns = now_ns + ASK_AGAIN_NS
        return True


class Unwelcome:
    """The notices that the broker does not bear: they are left out until `try_again`.

    MQTT 3.1.1 lets a broker hang up over what it forbids, and Mosquitto 2.0 even acknowledges it before. A notice under
    suspicion at HANG_UPS losses in a row is the one.
    """

    def __init__(self) -> None:
        self._topics: set[str] = set()
        self._hang_ups: Counter[str] = Counter()

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    def __bool__(self) -> bool:
        return bool(self._topics)

    @property
    def wary(self) -> bool:
        """True if notices should go one at a time, so that the next loss tells which it is."""
        return any(count >= HANG_UPS - 1 for count in self._hang_ups.values())

    def refused(self, topic: str) -> None:
        """The broker said so."""
        self._topics.add(topic)

    def lost(self, suspects: AbstractSet[str]) -> list[str]:
        """The connection was lost with *suspects*, perhaps none; returns those that are the cause."""
        if not suspects:
            self._hang_ups.clear()
        self._hang_ups.update(suspects)
        return sorted(topic for topic in suspects if self._hang_ups[topic] >= HANG_UPS)

    def try_again(self) -> None:
        """Leave out none any more; those that were the cause of a loss are so again at the first one."""
        self._topics.clear()

    def forgive(self) -> None:
        """The connection holds."""
        if not self._topics:
            self._hang_ups.clear()
