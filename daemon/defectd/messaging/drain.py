"""What goes over a connection and what comes.

The outbox goes through a window, in order, at a bounded rate, until it is acknowledged. What comes is handed on.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Callable, Protocol, Sequence

from defectd.clock import NS_PER_S, Backoff
from defectd.faults import Faults
from defectd.messaging.gaps import Reason
from defectd.messaging.pacing import Answer, TokenBucket, answer
from defectd.messaging.rows import StoredRow
from defectd.messaging.topics import MAX_INCOMING_BYTES, Message, Subscriptions, Topics

log = logging.getLogger(__name__)

FETCH_ROWS = 256
POLL_NS = NS_PER_S  # in case a wake-up was missed
# Mosquitto 2.0 answers a notice that it forbids, over MQTT 3.1.1 as if all were well, and then hangs up.
CALM_NS = NS_PER_S // 5
HANGS_UP = "the broker closes the connection each time it gets this"


class Source(Protocol):
    """The outbox, as far as it is needed here."""

    def fetch(self, after_row_id: int, limit: int) -> list[StoredRow]: ...
    def acked(self, row_ids: Sequence[int]) -> None: ...
    def dead_letter(self, row_id: int, reason: Reason) -> None: ...


class Link(Protocol):
    """The connection, as far as it is needed here."""

    def fits(self, topic: str, payload: bytes) -> bool: ...
    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int: ...


class Inlet(Protocol):
    """The connection, as far as messages come from it."""

    def subscribe(self, topic: str) -> None: ...
    def take_subscribed(self) -> list[tuple[str, str]]: ...
    def take_messages(self) -> list[Message]: ...


@dataclass
class Counters:
    """Since the start of the daemon. `nobody_listens`: the last event reached no subscriber (MQTT 5 only)."""

    published: int = 0
    acked: int = 0
    dead_letters: int = 0
    no_subscribers: int = 0
    connects: int = 0
    nobody_listens: bool = False


@dataclass(frozen=True)
class Refusal:
    """Something that the broker will never take."""

    topic: str
    why: str
    is_notice: bool = False


class Drain:
    """What is in flight on one connection. After a loss a new one begins with the first unacknowledged row.

    `accepted`: the broker has taken something on this connection, so it is more than an open door.
    """

    def __init__(
        self,
        outbox: Source,
        link: Link,
        topics: Topics,
        window: int,
        bucket: TokenBucket,
        counters: Counters,
        *,
        wary: bool = False,
    ) -> None:
        """*wary*: notices go one at a time, and the first events after them, so that a hang-up tells which it is."""
        self._wary = wary
        self._outbox, self._link, self._topics = outbox, link, topics
        self.window = window
        self._bucket, self._counters = bucket, counters
        self._ready: deque[StoredRow] = deque()
        self._rows: dict[int, StoredRow] = {}
        self._notices: dict[int, str] = {}
        self._waiting_notices: dict[str, tuple[bytes, bool]] = {}
        self._answered_notices: dict[str, int] = {}
        self._cursor = 0
        self._next_fetch_ns = 0
        self._paused_until_ns = 0
        self._welcome = True
        self.accepted = False
        self._backoff = Backoff(first_s=0.5, longest_s=30.0)
        self._refusals: list[Refusal] = []
        self._last_answer_ns = 0

    @property
    def in_flight(self) -> int:
        """Messages that the broker has not answered."""
        return len(self._rows) + len(self._notices)

    @property
    def idle(self) -> bool:
        """True if all that was begun has been answered."""
        return not self.in_flight and not self._waiting_notices

    def wake(self) -> None:
        """There may be new rows."""
        self._next_fetch_ns = 0

    def announce(self, topic: str, payload: bytes, now_ns: int, *, retain: bool = True) -> None:
        """Publish a message ahead of the rows. One per topic is in flight; of those that wait, the latest goes."""
        if not self._link.fits(topic, payload):
            why = f"{len(payload)} bytes are more than the broker takes"
            self._refusals.append(Refusal(topic, why, is_notice=True))
            return
        self._waiting_notices[topic] = payload, retain
        self._publish_notices(now_ns)

    def fill(self, now_ns: int) -> float:
        """Publish what window and rate allow; return how long to wait, in seconds, before there may be more."""
        longest_s = 1.0
        if self._wary and not self.calm(now_ns):
            self._publish_notices(now_ns)
            longest_s = CALM_NS / NS_PER_S
        if self._welcome:
            # A broker that refuses even our status does not know this station: no event may be lost on it.
            self._welcome = not (self.calm(now_ns) if self._wary else self.idle)
            if self._welcome:
                return longest_s
        if now_ns < self._paused_until_ns or (self._paused_until_ns and self._rows):
            return max(0.01, min(1.0, (self._paused_until_ns - now_ns) / NS_PER_S))
        self._paused_until_ns = 0
        while self.in_flight < self.window:
            if not self._ready and not self._fetch(now_ns):
                return longest_s
            wait_s = self._bucket.wait_s(now_ns)
            if wait_s > 0:
                return min(wait_s, longest_s)
            self._publish(self._ready.popleft(), now_ns)
        return longest_s

    def settle(self, answers: Sequence[tuple[int, int]], now_ns: int) -> None:
        """Take the broker's *answers*, of (message id, reason code), to the outbox."""
        acked = []
        for mid, code in answers:
            self._last_answer_ns = now_ns
            meaning = answer(code)
            self.accepted = self.accepted or meaning in (Answer.DELIVERED, Answer.NOBODY)
            row = self._rows.pop(mid, None)
            if row is None:
                topic = self._notices.pop(mid, None)
                if topic is None:
                    continue
                self._answered_notices[topic] = now_ns
                if meaning in (Answer.REFUSED, Answer.LATER):
                    self._refusals.append(Refusal(topic, f"reason code 0x{code:02X}", is_notice=True))
            elif meaning is Answer.REFUSED:
                self._refuse(row, "rejected_by_broker", f"reason code 0x{code:02X}")
            elif meaning is Answer.LATER:
                self._pause(now_ns)
            else:
                acked.append(row.row_id)
                self._counters.nobody_listens = meaning is Answer.NOBODY
                self._counters.no_subscribers += meaning is Answer.NOBODY
        if acked:
            self._outbox.acked(acked)
            self._counters.acked += len(acked)
            self._backoff.reset()
        self._publish_notices(now_ns)

    def rows_in_flight(self) -> list[int]:
        """The rows that the broker has not answered, in order."""
        return [row.row_id for row in self._rows.values()]

    def suspects(self, now_ns: int) -> set[str]:
        """The topics of the notices over which the broker may have hung up: those in flight or just answered."""
        just_answered = {topic for topic, at_ns in self._answered_notices.items() if now_ns - at_ns < CALM_NS}
        return just_answered.union(self._notices.values())

    def calm(self, now_ns: int) -> bool:
        """True if no notice would be under suspicion, were the connection lost now."""
        return not self._waiting_notices and not self.suspects(now_ns)

    def give_up(self, row_id: int) -> None:
        """The broker hangs up whenever it gets this row in flight: set it aside."""
        row = next(row for row in self._rows.values() if row.row_id == row_id)
        self._refuse(row, "rejected_by_broker", HANGS_UP)

    def refusals(self) -> list[Refusal]:
        """What was refused since the last call."""
        refusals, self._refusals = self._refusals, []
        return refusals

    def silent_s(self, now_ns: int) -> float:
        """For how long the broker has owed an answer without giving any."""
        return (now_ns - self._last_answer_ns) / NS_PER_S if self.in_flight else 0.0

    def _fetch(self, now_ns: int) -> bool:
        if now_ns < self._next_fetch_ns:
            return False
        rows = self._outbox.fetch(self._cursor, FETCH_ROWS)
        self._ready.extend(rows)
        if rows:
            self._cursor = rows[-1].row_id
        else:
            self._next_fetch_ns = now_ns + POLL_NS
        return bool(rows)

    def _publish_notices(self, now_ns: int) -> None:
        in_flight = self._notices.values()
        for topic in [topic for topic in self._waiting_notices if topic not in in_flight]:
            if self.in_flight >= self.window or (self._wary and self.suspects(now_ns)):
                return
            payload, retain = self._waiting_notices.pop(topic)
            self._note_activity(now_ns)
            self._notices[self._link.publish(topic, payload, retain=retain)] = topic

    def _publish(self, row: StoredRow, now_ns: int) -> None:
        topic = self._topics.event(row.stream)
        if not self._link.fits(topic, row.payload):
            self._refuse(row, "payload_too_large", f"{len(row.payload)} bytes are more than the broker takes")
            return
        self._note_activity(now_ns)
        self._bucket.take()
        self._rows[self._link.publish(topic, row.payload)] = row
        self._counters.published += 1

    def _refuse(self, row: StoredRow, reason: Reason, why: str) -> None:
        self._outbox.dead_letter(row.row_id, reason)
        self._counters.dead_letters += 1
        self._refusals.append(Refusal(self._topics.event(row.stream), why))

    def _pause(self, now_ns: int) -> None:
        """Not now: let the window run dry, wait, and begin again with the first unacknowledged row."""
        if not self._paused_until_ns:
            self._paused_until_ns = now_ns + int(self._backoff.next_s() * NS_PER_S)
        self._ready.clear()
        self._cursor = self._next_fetch_ns = 0

    def _note_activity(self, now_ns: int) -> None:
        if not self.in_flight:
            self._last_answer_ns = now_ns


class Receiver:
    """Subscribes on each connection, and hands on what arrives; what is wrong with either is a fault, no more.

    Mosquitto's acl_file grants every subscription, and then sends nothing that is not allowed: no station can see that.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        faults: Faults,
        user: str,
        on_message: Callable[[str, bytes], None] | None,
    ) -> None:
        """*user* is whom the broker knows us as. Without *on_message* what arrives is dropped."""
        self._subscriptions, self._faults, self._user, self._on_message = subscriptions, faults, user, on_message
        self._too_large: set[str] = set()

    def connected(self) -> None:
        """A new connection begins."""
        self._subscriptions.connected()
        self._too_large.clear()

    def receive(self, inlet: Inlet, now_ns: int, *, calm: bool) -> None:
        """Take what has come and, when it is *calm*, ask for what is due: a hang-up is then an answer to that."""
        for topic in self._subscriptions.due(now_ns) if calm else ():
            inlet.subscribe(topic)
        for topic, why in inlet.take_subscribed():
            if why:
                self._tell_deafness(topic, f"the broker refuses the subscription: {why}")
            else:
                self._subscriptions.granted(topic)
        for message in inlet.take_messages():
            self._hand_on(message)
        if self._subscriptions.settled(now_ns):
            self._faults.end("mqtt", "subscribe_refused")
            if not self._too_large:
                self._faults.end("mqtt", "message_too_large")

    def lost(self, now_ns: int, *, events_in_flight: bool) -> None:
        """The connection was lost, perhaps because of what was asked for."""
        if self._subscriptions.lost(now_ns, events_in_flight=events_in_flight):
            self._tell_deafness(", ".join(self._subscriptions.topics), "the broker hangs up over the subscription")

    def _hand_on(self, message: Message) -> None:
        if message.payload is None:
            self._too_large.add(message.topic)
            self._faults.begin(
                "mqtt",
                "message_too_large",
                f"{message.topic}: {message.size} bytes arrived and were dropped; expected at most "
                f"{MAX_INCOMING_BYTES}: publish something smaller there, or clear the retained message",
            )
            return
        self._too_large.discard(message.topic)
        if self._on_message is None:
            return
        try:
            self._on_message(message.topic, message.payload)
        except Exception:  # what a message does to its receiver is no reason to stop publishing
            log.exception("the receiver of %s stumbled", message.topic)

    def _tell_deafness(self, topic: str, why: str) -> None:
        self._faults.begin(
            "mqtt",
            "subscribe_refused",
            f"{why}: nothing that is published on {topic} reaches this station. The broker must let {self._user!r} "
            f"read it; in Mosquitto's acl_file that is the line `topic read {topic}`. Asked again each minute",
        )
