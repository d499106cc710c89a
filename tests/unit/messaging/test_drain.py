"""The window of one connection, without a network."""

from __future__ import annotations

from defectd.clock import NS_PER_S
from defectd.messaging.drain import CALM_NS, FETCH_ROWS, Counters, Drain
from defectd.messaging.pacing import TokenBucket
from defectd.messaging.rows import StoredRow
from defectd.messaging.topics import Topics

NOW = 1000 * NS_PER_S
DELIVERED, NOBODY, NOT_AUTHORIZED, QUOTA = 0x00, 0x10, 0x87, 0x97
TOPICS = Topics("site", "area", "line", "st")


class Rows:
    """An outbox of plain lists."""

    def __init__(self, count: int) -> None:
        self.pending = [StoredRow(n, "inspection", n, f"id-{n}", b"payload-%d" % n) for n in range(1, count + 1)]
        self.settled: set[int] = set()
        self.dead: list[tuple[int, str]] = []
        self.fetches = 0

    def fetch(self, after_row_id, limit):
        self.fetches += 1
        return [r for r in self.pending if r.row_id > after_row_id and r.row_id not in self.settled][:limit]

    def acked(self, row_ids):
        self.settled.update(row_ids)

    def dead_letter(self, row_id, reason):
        self.settled.add(row_id)
        self.dead.append((row_id, reason))


class Wire:
    """A connection that only writes down what is published."""

    def __init__(self, maximum: int = 1_000_000) -> None:
        self.maximum = maximum
        self.sent: list[tuple[str, bytes, bool]] = []

    def fits(self, topic, payload):
        return len(payload) <= self.maximum

    def publish(self, topic, payload, *, retain=False):
        self.sent.append((topic, payload, retain))
        return len(self.sent)


def drain_of(rows: Rows, wire: Wire, window: int = 20, rate_hz: float = 0, *, wary: bool = False) -> Drain:
    return Drain(rows, wire, TOPICS, window, TokenBucket(rate_hz), Counters(), wary=wary)


def test_never_more_than_the_window_is_in_flight_and_the_rows_go_in_order():
    rows, wire = Rows(50), Wire()
    drain = drain_of(rows, wire)
    drain.fill(NOW)
    assert len(wire.sent) == 20
    drain.settle([(mid, DELIVERED) for mid in range(1, 6)], NOW)
    drain.fill(NOW)
    assert drain.in_flight == 20
    assert [payload for _, payload, _ in wire.sent] == [b"payload-%d" % n for n in range(1, 26)]
    assert rows.settled == {1, 2, 3, 4, 5}


def test_notices_count_towards_the_window_go_first_and_only_the_latest_is_sent():
    rows, wire = Rows(50), Wire()
    drain = drain_of(rows, wire, window=2)
    drain.fill(NOW)
    drain.announce("status", b"old", NOW)
    drain.announce("status", b"new", NOW)
    assert drain.in_flight == 2
    drain.settle([(1, DELIVERED)], NOW)
    drain.fill(NOW)
    assert wire.sent[2:] == [("status", b"new", True)]


def test_the_rate_limit_says_how_long_to_wait():
    rows, wire = Rows(50), Wire()
    drain = drain_of(rows, wire, rate_hz=100)
    wait_s = drain.fill(NOW)
    assert len(wire.sent) == 10
    assert 0 < wait_s <= 0.01


def test_a_refused_event_is_set_aside_and_the_others_go_on():
    rows, wire = Rows(3), Wire()
    drain = drain_of(rows, wire)
    drain.fill(NOW)
    drain.settle([(1, DELIVERED), (2, NOT_AUTHORIZED), (3, NOBODY)], NOW)
    assert rows.dead == [(2, "rejected_by_broker")]
    assert rows.settled == {1, 2, 3}
    assert [refusal.why for refusal in drain.refusals()] == ["reason code 0x87"]


def test_an_event_too_large_for_the_broker_is_never_sent():
    rows, wire = Rows(1), Wire(maximum=3)
    drain = drain_of(rows, wire)
    drain.fill(NOW)
    assert wire.sent == []
    assert rows.dead == [(1, "payload_too_large")]


def test_a_full_broker_is_left_alone_for_a_while_and_then_gets_the_same_rows_in_order():
    rows, wire = Rows(5), Wire()
    drain = drain_of(rows, wire, window=3)
    drain.fill(NOW)
    drain.settle([(1, DELIVERED), (2, QUOTA)], NOW)
    drain.fill(NOW + 100 * NS_PER_S)
    assert len(wire.sent) == 3, "the third is still in flight"
    drain.settle([(3, QUOTA)], NOW)
    drain.fill(NOW + NS_PER_S // 100)
    assert len(wire.sent) == 3, "too early"
    drain.fill(NOW + NS_PER_S)
    assert [payload for _, payload, _ in wire.sent[3:]] == [b"payload-2", b"payload-3", b"payload-4"]


def test_an_empty_outbox_is_not_asked_again_until_there_is_news():
    rows, wire = Rows(0), Wire()
    drain = drain_of(rows, wire)
    for _ in range(10):
        drain.fill(NOW)
    assert rows.fetches == 1
    drain.wake()
    drain.fill(NOW)
    assert rows.fetches == 2


def test_a_long_backlog_is_read_in_parts():
    rows, wire = Rows(3 * FETCH_ROWS), Wire()
    drain = drain_of(rows, wire)
    drain.fill(NOW)
    assert rows.fetches == 1


def test_silence_counts_only_while_the_broker_owes_an_answer():
    rows, wire = Rows(1), Wire()
    drain = drain_of(rows, wire)
    assert drain.silent_s(NOW) == 0
    drain.fill(NOW)
    assert drain.silent_s(NOW + 31 * NS_PER_S) == 31
    drain.settle([(1, DELIVERED)], NOW + 31 * NS_PER_S)
    assert drain.silent_s(NOW + 99 * NS_PER_S) == 0


def test_no_event_goes_before_the_broker_has_taken_the_status():
    rows, wire = Rows(3), Wire()
    drain = drain_of(rows, wire)
    drain.announce("status", b"online", NOW)
    drain.fill(NOW)
    assert len(wire.sent) == 1
    drain.settle([(1, DELIVERED)], NOW)
    drain.fill(NOW)
    assert len(wire.sent) == 4


def test_a_refused_status_is_marked_as_such():
    drain = drain_of(Rows(0), Wire())
    drain.announce("status", b"online", NOW)
    drain.settle([(1, NOT_AUTHORIZED)], NOW)
    (refusal,) = drain.refusals()
    assert refusal.is_notice


def test_only_what_is_announced_as_such_is_retained():
    wire = Wire()
    drain = drain_of(Rows(0), wire)
    drain.announce("status", b"online", NOW)
    drain.announce("progress", b"10 %", NOW, retain=False)
    assert wire.sent == [("status", b"online", True), ("progress", b"10 %", False)]


def test_one_notice_per_topic_is_in_flight_and_then_the_latest_goes():
    wire = Wire()
    drain = drain_of(Rows(0), wire)
    for number in range(5):
        drain.announce("progress", b"%d" % number, NOW, retain=False)
    drain.announce("status", b"online", NOW)
    assert [payload for _, payload, _ in wire.sent] == [b"0", b"online"]
    drain.settle([(1, DELIVERED)], NOW)
    assert [payload for _, payload, _ in wire.sent] == [b"0", b"online", b"4"]
    drain.settle([(2, DELIVERED), (3, DELIVERED)], NOW)
    assert drain.idle


def test_a_notice_is_under_suspicion_until_a_while_after_its_answer():
    drain = drain_of(Rows(0), Wire())
    drain.announce("status", b"online", NOW)
    assert drain.suspects(NOW + NS_PER_S) == {"status"}
    drain.settle([(1, DELIVERED)], NOW + NS_PER_S)
    assert drain.suspects(NOW + NS_PER_S) == {"status"}
    assert not drain.calm(NOW + NS_PER_S)
    assert drain.suspects(NOW + NS_PER_S + CALM_NS) == set()
    assert drain.calm(NOW + NS_PER_S + CALM_NS)


def test_when_wary_only_one_notice_at_a_time_is_under_suspicion_and_then_the_events_go():
    wire = Wire()
    drain = drain_of(Rows(1), wire, wary=True)
    drain.announce("status", b"online", NOW)
    drain.announce("birth", b"born", NOW)
    drain.settle([(1, DELIVERED)], NOW)
    assert 0 < drain.fill(NOW) <= CALM_NS / NS_PER_S
    assert [topic for topic, *_ in wire.sent] == ["status"]
    drain.fill(NOW + CALM_NS)
    drain.settle([(2, DELIVERED)], NOW + CALM_NS)
    drain.fill(NOW + CALM_NS)
    assert [topic for topic, *_ in wire.sent] == ["status", "birth"]
    drain.fill(NOW + 2 * CALM_NS)
    assert wire.sent[2:] == [(TOPICS.event("inspection"), b"payload-1", False)]
