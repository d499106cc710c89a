"""The publisher: one supervised thread that keeps a connection, carries the outbox over it, and hands on what arrives.

Nothing that matters is kept in the session at the broker: events wait in the outbox of this station, and what the
station listens to is retained, so that it arrives again with each subscription.
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Callable, Sequence

from defectd.clock import NS_PER_S, Backoff, monotonic_ns, utc_now
from defectd.faults import Faults
from defectd.inspection.events import Status, WireModel
from defectd.messaging.client import Broker, Cause, Connection, End, Will
from defectd.messaging.drain import HANGS_UP, Counters, Drain, Receiver, Refusal, Source
from defectd.messaging.pacing import Caution, ProtocolChoice, TokenBucket
from defectd.messaging.told import Said, Told
from defectd.messaging.topics import Subscriptions, Topics, Unwelcome

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 30.0
STABLE_S = 10.0  # a connection that lasted this long makes the next attempt quick
SHORT_LIVES = 5  # connections in a row that did not last so long, and brought nothing, are a fault
HANG_UP_S = 2.0
FAREWELL_S = 2.0
REFUSAL_MEMORY_S = 60.0

# cause: (fault, whether only a person can mend it, so that trying often is of no use)
_FAULTS = {
    Cause.UNREACHABLE: ("disconnected", False),
    Cause.SILENT: ("disconnected", False),
    Cause.REFUSED: ("disconnected", False),
    Cause.VERSION: ("disconnected", True),
    Cause.TLS: ("tls_failed", True),
    Cause.LOGIN: ("login_refused", True),
    Cause.TAKEN_OVER: ("session_taken_over", True),
    Cause.MUTE: ("not_answering", False),
    Cause.FORBIDDEN: ("publish_refused", True),
}
_ENDED_BY_ACCEPTANCE = ("disconnected", "tls_failed", "login_refused", "not_answering", "internal_error")
_ENDED_BY_STABILITY = ("session_taken_over", "unstable")


@dataclass(frozen=True)
class Notice:
    """A retained message. *body* says what holds now, or None to say nothing."""

    topic: str
    body: Callable[[], WireModel | None]


class Publisher:
    """Publishes the notices on every connection, then the outbox, until `close`; hands on what arrives."""

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        outbox: Source,
        notices: Sequence[Notice],
        last_words: Callable[[], Status],
        faults: Faults,
        *,
        subscriptions: Sequence[str] = (),
        on_message: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """The first of the *notices* is the status: no event goes before the broker has taken it.

        *notices*, *last_words* (the offline will) and *on_message* are called on the publisher's thread, and must not
        block. *on_message* gets (topic, payload) of what arrives on *subscriptions*; it may get the same one again.
        """
        self._broker, self._topics, self._outbox, self._faults = broker, topics, outbox, faults
        self._notices, self._last_words = tuple(notices), last_words
        user = broker.username or broker.client_id
        self._receiver = Receiver(Subscriptions(subscriptions), faults, user, on_message)
        self._told = Told()
        self._protocol = ProtocolChoice(broker.protocol)
        self._bucket = TokenBucket(broker.rate_limit_hz)
        self._backoff = Backoff(broker.reconnect_min_s, broker.reconnect_max_s)
        self._caution = Caution()
        self._short_lives = 0
        self._slow = Backoff(broker.reconnect_max_s, broker.reconnect_max_s)
        self._counters = Counters()
        self._announcing = threading.Event()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._drain_s = 0.0
        self._unwelcome, self._refused_here = Unwelcome(), False
        self._refused_ns = self._up_since_ns = 0
        self._trusted = self._stable = False
        self._waker, self._wake = socket.socketpair()
        self._waker.setblocking(False)
        self._wake.setblocking(False)
        # A daemon thread: a TLS handshake cannot be interrupted, and what is not sent by the end is on disk.
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self.connected = False
        self.last_progress_ns = monotonic_ns()

    @property
    def protocol(self) -> str:
        """The MQTT version in use, or to be tried next: 5 or 3.1.1."""
        return self._protocol.name

    @property
    def counters(self) -> Counters:
        """A copy."""
        return replace(self._counters)

    @property
    def reconnects(self) -> int:
        """How often the connection had to be made again."""
        return max(0, self._counters.connects - 1)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def announce(self) -> None:
        """Something in the notices changed: publish all again when connected. Any thread; coalesced."""
        self._announcing.set()
        self._interrupt()

    def tell(self, topic: str, message: WireModel, *, expires_s: int | None = None) -> None:
        """Publish *message*, not retained, if connected; else it is dropped. Of several for one topic that wait, the
        latest goes; with *expires_s* at QoS 0. Any thread; never blocks."""
        if self._told.put(topic, Said(message.to_json(), expires_s)):
            self._interrupt()

    def wake(self) -> None:
        """There are new rows in the outbox. Any thread; never blocks."""
        self._news.set()
        self._interrupt()

    def close(self, drain_s: float) -> None:
        """Stop taking rows, wait up to *drain_s* for those in flight, publish offline, disconnect."""
        self._drain_s = drain_s
        self._closing.set()
        self._interrupt()
        if self._thread.ident is not None:
            self._thread.join(drain_s + FAREWELL_S)
        if self._thread.is_alive():
            log.warning("the publisher is still connecting; what it has not sent is on disk")
            return
        self._waker.close()
        self._wake.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                delay_s = self._next_delay_s(self._live())
            except Exception as error:  # the thread's outermost guard
                log.exception("the publisher stumbled")
                self._faults.begin("mqtt", "internal_error", repr(error))
                delay_s = self._backoff.next_s()
            self._pause(delay_s)

    def _live(self) -> End:
        """One connection, from CONNECT to its end."""
        will = Will(self._topics.status, self._last_words().to_json())
        connection = Connection(self._broker, self._protocol.name, will, self._wake)
        try:
            connection.open()
            while connection.end is None and not connection.up and not self._closing.is_set():
                connection.step(1.0)
                self.last_progress_ns = monotonic_ns()
            if connection.up:
                self._serve(connection)
        finally:
            self.connected = False
            self._told.listen(listened=False)
            connection.abandon()
        return connection.end or End(Cause.CLOSED, "closed by us")

    def _serve(self, connection: Connection) -> None:
        self._welcome()
        full_window = max(1, min(self._broker.window, connection.receive_maximum))
        window, buried_before = self._caution.window(full_window), self._counters.dead_letters
        self._receiver.connected()
        outbox, wary = self._outbox, self._unwelcome.wary
        drain = Drain(outbox, connection, self._topics, window, self._bucket, self._counters, wary=wary)
        self._announcing.set()
        while connection.end is None and not self._closing.is_set():
            now_ns = monotonic_ns()
            if self._announcing.is_set():
                self._announcing.clear()
                self._announce(drain, now_ns)
            self._send_told(connection, drain, now_ns)
            if self._news.is_set():
                self._news.clear()
                drain.wake()
            wait_s = drain.fill(now_ns)
            drain.settle(connection.step(wait_s), monotonic_ns())
            self._receiver.receive(connection, monotonic_ns(), calm=drain.calm(monotonic_ns()))
            self._look(connection, drain, full_window)
        if connection.end is None:
            self._say_goodbye(connection, drain)
        elif connection.end.cause in (Cause.LOST, Cause.MUTE):
            self._learn_from_loss(drain)
        if self._counters.dead_letters > buried_before:
            self._backoff.reset()  # it may be the price of getting past what the broker refuses
            self._short_lives = 0

    def _send_told(self, connection: Connection, drain: Drain, now_ns: int) -> None:
        for topic, (payload, expires_s) in self._told.take().items():
            if topic in self._unwelcome:
                continue
            if expires_s is None:
                drain.announce(topic, payload, now_ns, retain=False)
            elif connection.fits(topic, payload):
                connection.send_off(topic, payload, expires_s)

    def _announce(self, drain: Drain, now_ns: int) -> None:
        failure = ""
        for notice in self._notices:
            try:
                body = notice.body()
                payload = None if body is None else body.to_json()
            except Exception as error:
                if notice is self._notices[0]:  # nothing goes without a status
                    raise
                log.exception("cannot tell %s", notice.topic)
                failure = f"{notice.topic}: {error!r}"
            else:
                if payload is not None and notice.topic not in self._unwelcome:
                    drain.announce(notice.topic, payload, now_ns)
        if failure:
            self._faults.begin("mqtt", "notice_failed", f"cannot be told, its retained message is old: {failure}")
        else:
            self._faults.end("mqtt", "notice_failed")

    def _look(self, connection: Connection, drain: Drain, full_window: int) -> None:
        self.last_progress_ns = now_ns = monotonic_ns()
        for refusal in drain.refusals():
            self._tell_refusal(refusal)
            if refusal.topic == self._topics.status:
                connection.end = End(Cause.FORBIDDEN, f"the broker refuses {refusal.topic}: {refusal.why}")
        if drain.silent_s(now_ns) > ANSWER_TIMEOUT_S and connection.end is None:
            connection.end = End(Cause.MUTE, f"the broker has not answered for {ANSWER_TIMEOUT_S:.0f} s")
        if drain.accepted:
            self._look_well(drain, full_window, now_ns)

    def _look_well(self, drain: Drain, full_window: int, now_ns: int) -> None:
        """The broker takes what we send: end the faults that this disproves, the doubtful ones after a while."""
        if not self._trusted:
            self._trusted = True
            for code in _ENDED_BY_ACCEPTANCE:
                self._faults.end("mqtt", code)
        if not self._stable and now_ns - self._up_since_ns > STABLE_S * NS_PER_S:
            self._stable, self._short_lives, drain.window = True, 0, full_window
            self._caution.relax()
            if not self._refused_ns:
                self._unwelcome.forgive()
            self._backoff.reset()
            for code in _ENDED_BY_STABILITY:
                self._faults.end("mqtt", code)
        if self._refused_ns and now_ns - self._refused_ns > REFUSAL_MEMORY_S * NS_PER_S:
            if self._unwelcome:
                self._refused_ns = now_ns
                self._unwelcome.try_again()
                self._announcing.set()
            else:
                self._refused_ns = 0
                self._unwelcome.forgive()
                self._faults.end("mqtt", "publish_refused")

    def _tell_refusal(self, refusal: Refusal) -> None:
        self._refused_ns, self._refused_here = monotonic_ns(), True
        if refusal.is_notice and refusal.topic != self._topics.status:
            self._unwelcome.refused(refusal.topic)
        self._faults.begin("mqtt", "publish_refused", f"the broker refuses {refusal.topic}: {refusal.why}")

    def _learn_from_loss(self, drain: Drain) -> None:
        now_ns, rows = monotonic_ns(), drain.rows_in_flight()
        at_once = drain.silent_s(now_ns) < HANG_UP_S
        self._receiver.lost(now_ns, events_in_flight=bool(rows))
        row_id = self._caution.lost(rows, at_once=at_once)
        if row_id is not None:
            drain.give_up(row_id)
        known = self._refused_here or not at_once  # then it was not a notice that was answered as if all were well
        blamed = self._unwelcome.lost(set() if known else drain.suspects(now_ns) - {self._topics.status})
        for refusal in drain.refusals() + [Refusal(topic, HANGS_UP, is_notice=True) for topic in blamed]:
            self._tell_refusal(refusal)

    def _welcome(self) -> None:
        self.connected, self._up_since_ns = True, monotonic_ns()
        self._told.listen(listened=True)
        self._trusted = self._stable = self._refused_here = False
        self._counters.connects += 1
        self._protocol.accepted()
        log.info("connected to %s:%d, MQTT %s", self._broker.host, self._broker.port, self._protocol.name)

    def _say_goodbye(self, connection: Connection, drain: Drain) -> None:
        """What is in flight may finish; what is not waits in the outbox for the next start."""
        self._await_answers(connection, drain, self._drain_s)
        stopped = self._last_words().model_copy(
            update={"state": "offline", "condition": "stopped", "detail": "stopped", "ts": utc_now()}
        )
        drain.announce(self._topics.status, stopped.to_json(), monotonic_ns())
        self._await_answers(connection, drain, FAREWELL_S)
        if connection.end is None:
            connection.disconnect()

    def _await_answers(self, connection: Connection, drain: Drain, longest_s: float) -> None:
        deadline_ns = monotonic_ns() + int(longest_s * NS_PER_S)
        while not drain.idle and connection.end is None and monotonic_ns() < deadline_ns:
            drain.settle(connection.step(0.05), monotonic_ns())
            self.last_progress_ns = monotonic_ns()

    def _next_delay_s(self, end: End) -> float:
        """How long to wait after *end*; tells the fault, and learns which protocol the broker speaks."""
        if end.cause is Cause.CLOSED:
            return 0.0
        if end.cause is Cause.SILENT:
            self._protocol.closed_silently()
        if end.cause is Cause.VERSION and self._protocol.refused():
            log.info("%s; MQTT 3.1.1 it is", end.detail)
            return 0.0
        log.info("no connection: %s", end.detail)
        if end.cause is Cause.LOST and not self._stable:
            self._short_lives += 1
            if self._short_lives >= SHORT_LIVES:
                self._faults.begin(
                    "mqtt",
                    "unstable",
                    f"{self._short_lives} connections in a row were lost soon ({end.detail}); "
                    f"does another client use the id {self._broker.client_id!r}?",
                )
        code, needs_person = _FAULTS.get(end.cause, ("", False))
        if code:
            self._faults.begin("mqtt", code, end.detail)
        return (self._slow if needs_person else self._backoff).next_s()

    def _pause(self, delay_s: float) -> None:
        until_ns = monotonic_ns() + int(delay_s * NS_PER_S)
        while not self._closing.is_set() and monotonic_ns() < until_ns:
            self._closing.wait(min(1.0, (until_ns - monotonic_ns()) / NS_PER_S))
            self.last_progress_ns = monotonic_ns()

    def _interrupt(self) -> None:
        with suppress(OSError):  # full: it is awake anyway; closed: there is no one to wake
            self._waker.send(b"\0")
