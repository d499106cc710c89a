"""What becomes of what arrives, without a network."""

from __future__ import annotations

from typing import Callable

from defectd.clock import NS_PER_S
from defectd.faults import Faults
from defectd.messaging.drain import Receiver
from defectd.messaging.topics import ASK_AGAIN_NS, HANG_UP_NS, HANG_UPS, Message, Subscriptions

NOW = 1000 * NS_PER_S


class Wire:
    """A connection that only writes down what is asked for; what it brings is set by the test."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.subscribed: list[tuple[str, str]] = []
        self.messages: list[Message] = []

    def subscribe(self, topic):
        self.asked.append(topic)

    def take_subscribed(self):
        subscribed, self.subscribed = self.subscribed, []
        return subscribed

    def take_messages(self):
        messages, self.messages = self.messages, []
        return messages


class Station:
    """A receiver, what it handed on, and the faults it told."""

    def __init__(self, on_message: Callable[[str, bytes], None] | None = None) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.told: list[tuple[str, str]] = []
        self.faults = Faults(lambda _component, code, state, _detail, _data: self.told.append((code, state)))
        take = on_message or (lambda topic, payload: self.got.append((topic, payload)))
        self.receiver = Receiver(Subscriptions(["desired"]), self.faults, "aoi1", take)
        self.wire = Wire()
        self.receiver.connected()

    def receive(self, now_ns: int = NOW, *, calm: bool = True) -> None:
        self.receiver.receive(self.wire, now_ns, calm=calm)

    def bring(self, payload: bytes | None, size: int | None = None) -> None:
        self.wire.messages.append(Message("desired", payload, len(payload or b"") if size is None else size))


def test_it_asks_when_it_is_calm():
    station = Station()
    station.receive(calm=False)
    assert station.wire.asked == []
    station.receive()
    assert station.wire.asked == ["desired"]


def test_messages_are_handed_on_in_order_empty_ones_too():
    station = Station()
    station.bring(b"one")
    station.bring(b"")
    station.receive()
    assert station.got == [("desired", b"one"), ("desired", b"")]


def test_a_refused_subscription_is_a_fault_that_names_the_topic_until_it_is_granted():
    station = Station()
    station.receive()
    station.wire.subscribed = [("desired", "Not authorized (0x87)")]
    station.receive()
    (fault,) = station.faults.active()
    assert fault.code == "subscribe_refused"
    assert all(word in fault.detail for word in ("0x87", "'aoi1'", "topic read desired"))
    station.receive(NOW + ASK_AGAIN_NS)
    assert station.wire.asked == ["desired", "desired"]
    station.wire.subscribed = [("desired", "")]
    station.receive(NOW + ASK_AGAIN_NS + HANG_UP_NS)
    assert station.faults.active() == []


def test_a_broker_that_hangs_up_over_the_subscription_is_a_fault_on_which_the_next_connection_does_not_end():
    station = Station()
    for _ in range(HANG_UPS):
        station.receive()
        station.receiver.lost(NOW + 1, events_in_flight=False)
        station.receiver.connected()
    assert [fault.code for fault in station.faults.active()] == ["subscribe_refused"]
    station.receive()
    assert len(station.wire.asked) == HANG_UPS


def test_a_message_that_is_too_large_is_a_fault_until_another_one_comes_there():
    station = Station()
    station.receive()
    station.wire.subscribed = [("desired", "")]
    station.bring(None, size=200_000)
    station.receive(NOW + HANG_UP_NS)
    (fault,) = station.faults.active()
    assert (fault.code, station.got) == ("message_too_large", [])
    assert "desired: 200000 bytes" in fault.detail
    station.bring(b"")
    station.receive(NOW + HANG_UP_NS)
    assert station.faults.active() == []


def test_a_message_that_was_too_large_and_is_gone_after_a_reconnect_is_no_fault_any_more():
    station = Station()
    station.bring(None, size=200_000)
    station.receive()
    station.receiver.connected()
    station.receive()
    station.wire.subscribed = [("desired", "")]
    station.receive(NOW + HANG_UP_NS)
    assert station.told == [("message_too_large", "raised"), ("message_too_large", "cleared")]


def test_a_receiver_that_stumbles_over_one_message_gets_the_next(caplog):
    got: list[bytes] = []

    def take(_topic: str, payload: bytes) -> None:
        if payload == b"bad":
            raise KeyError("no such thing")
        got.append(payload)

    station = Station(take)
    station.bring(b"bad")
    station.bring(b"good")
    station.receive()
    assert got == [b"good"]
    assert "the receiver of desired stumbled" in caplog.text
