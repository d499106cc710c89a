"""How fast, what an answer means, which protocol."""

from __future__ import annotations

import pytest

from defectd.clock import NS_PER_S
from defectd.messaging.pacing import Answer, Caution, ProtocolChoice, TokenBucket, answer


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (0x00, Answer.DELIVERED),
        (0x10, Answer.NOBODY),
        (0x87, Answer.REFUSED),
        (0x90, Answer.REFUSED),
        (0x99, Answer.REFUSED),
        (0x97, Answer.LATER),
        (0x80, Answer.LATER),
        (0x83, Answer.LATER),
        (0xFF, Answer.LATER),
    ],
)
def test_each_reason_code_has_its_meaning(code, meaning):
    assert answer(code) is meaning


def test_the_rate_holds_over_a_second_after_a_short_burst():
    bucket, sent = TokenBucket(200), 0
    for now_ns in range(NS_PER_S, 2 * NS_PER_S, NS_PER_S // 1000):
        while bucket.wait_s(now_ns) == 0:
            bucket.take()
            sent += 1
    assert 200 <= sent <= 221


def test_a_long_pause_does_not_allow_a_long_burst():
    bucket, sent = TokenBucket(200), 0
    while bucket.wait_s(3600 * NS_PER_S) == 0:
        bucket.take()
        sent += 1
    assert sent == 20


def test_a_slow_rate_lets_one_through_and_says_how_long_to_wait():
    bucket = TokenBucket(0.5)
    assert bucket.wait_s(NS_PER_S) == 0
    bucket.take()
    assert bucket.wait_s(NS_PER_S) == pytest.approx(2.0)
    assert bucket.wait_s(3 * NS_PER_S) == 0


def test_rate_zero_never_waits():
    bucket = TokenBucket(0)
    for _ in range(1000):
        assert bucket.wait_s(1) == 0
        bucket.take()


def test_a_broker_that_refuses_mqtt_5_gets_3_1_1_from_then_on():
    choice = ProtocolChoice("auto")
    assert choice.name == "5"
    assert choice.refused()
    assert choice.name == "3.1.1"
    choice.closed_silently()
    choice.closed_silently()
    assert choice.name == "3.1.1"
    assert not choice.refused()


def test_two_silent_closes_lead_to_a_try_with_3_1_1_which_stays_only_if_accepted():
    choice = ProtocolChoice("auto")
    choice.closed_silently()
    assert choice.name == "5"
    choice.closed_silently()
    assert choice.name == "3.1.1"
    choice.closed_silently()
    choice.closed_silently()
    assert choice.name == "5"
    choice.accepted()
    choice.closed_silently()
    choice.closed_silently()
    assert choice.name == "5"


@pytest.mark.parametrize("setting", ["5", "3.1.1"])
def test_a_protocol_that_was_set_is_kept(setting):
    choice = ProtocolChoice(setting)
    assert not choice.refused()
    choice.closed_silently()
    choice.closed_silently()
    assert choice.name == setting


def test_after_a_loss_in_mid_flight_one_at_a_time_goes_until_it_is_stable():
    caution = Caution()
    assert caution.window(20) == 20
    assert caution.lost([1, 2, 3], at_once=True) is None
    assert caution.window(20) == 1
    caution.relax()
    assert caution.window(20) == 20


def test_an_event_on_which_the_broker_hangs_up_every_time_is_given_up():
    caution = Caution()
    assert caution.lost([7, 8], at_once=True) is None
    assert [caution.lost([7], at_once=True) for _ in range(Caution.HANG_UPS)] == [None] * 4 + [7]
    assert caution.lost([8], at_once=True) is None


def test_a_bad_network_is_not_blamed_on_an_event():
    caution = Caution()
    for _ in range(20):
        assert caution.lost([], at_once=True) is None
        assert caution.lost([7], at_once=False) is None
    for row in range(1, 20):
        assert caution.lost([row], at_once=True) is None
