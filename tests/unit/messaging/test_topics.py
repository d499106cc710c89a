"""Where messages go, and when a station asks for those that come."""

from __future__ import annotations

from defectd.clock import NS_PER_S
from defectd.messaging.topics import ASK_AGAIN_NS, HANG_UP_NS, HANG_UPS, Subscriptions, Topics, Unwelcome

NOW = 1000 * NS_PER_S


def hang_up_on(subscriptions: Subscriptions, now_ns: int, times: int) -> list[bool]:
    """Lost right after each question; the answers of `lost`."""
    told = []
    for _ in range(times):
        subscriptions.connected()
        assert subscriptions.due(now_ns)
        told.append(subscriptions.lost(now_ns + 1, events_in_flight=True))
    return told


def test_models_have_their_own_topics():
    topics = Topics("site", "area", "line", "st")
    assert topics.model_desired == "defectd/v1/site/area/line/st/model/desired"
    assert topics.model_reported == "defectd/v1/site/area/line/st/model/reported"
    assert topics.model_progress == "defectd/v1/site/area/line/st/model/progress"


def test_each_connection_asks_once_and_then_no_more():
    subscriptions = Subscriptions(["a", "b"])
    for _ in range(2):
        subscriptions.connected()
        assert subscriptions.due(NOW) == ["a", "b"]
        subscriptions.granted("a")
        subscriptions.granted("b")
        assert not subscriptions.settled(NOW)
        assert subscriptions.settled(NOW + HANG_UP_NS)
        assert subscriptions.due(NOW + 10 * ASK_AGAIN_NS) == []


def test_what_is_refused_or_not_answered_is_asked_for_again_after_a_while():
    subscriptions = Subscriptions(["a", "b"])
    subscriptions.connected()
    subscriptions.due(NOW)
    subscriptions.granted("b")
    assert not subscriptions.settled(NOW + HANG_UP_NS)
    assert subscriptions.due(NOW + ASK_AGAIN_NS - 1) == []
    assert subscriptions.due(NOW + ASK_AGAIN_NS) == ["a"]


def test_without_topics_nothing_is_asked_and_nothing_settles():
    subscriptions = Subscriptions([])
    subscriptions.connected()
    assert subscriptions.due(NOW) == []
    assert not subscriptions.settled(NOW + ASK_AGAIN_NS)


def test_a_broker_that_hangs_up_over_the_question_each_time_is_not_asked_for_a_while():
    subscriptions = Subscriptions(["a"])
    assert hang_up_on(subscriptions, NOW, HANG_UPS) == [False] * (HANG_UPS - 1) + [True]
    subscriptions.connected()
    assert subscriptions.due(NOW + ASK_AGAIN_NS) == []
    assert hang_up_on(subscriptions, NOW + ASK_AGAIN_NS + 1, 1) == [True], "and once more is enough"


def test_losses_that_have_nothing_to_do_with_the_question_do_not_make_a_station_deaf():
    subscriptions = Subscriptions(["a"])
    for _ in range(3 * HANG_UPS):
        subscriptions.connected()
        assert subscriptions.due(NOW) == ["a"]
        subscriptions.granted("a")
        assert not subscriptions.lost(NOW + 1, events_in_flight=True), "it may be the event"
        subscriptions.connected()
        assert subscriptions.due(NOW) == ["a"]
        assert not subscriptions.lost(NOW + HANG_UP_NS, events_in_flight=False), "it was too late for that"


def test_a_broker_that_grants_and_then_hangs_up_over_what_it_has_to_send_is_recognised():
    subscriptions, told = Subscriptions(["a"]), []
    for _ in range(HANG_UPS):
        subscriptions.connected()
        assert subscriptions.due(NOW) == ["a"]
        subscriptions.granted("a")
        told.append(subscriptions.lost(NOW + 1, events_in_flight=False))
    assert told[-1]


def test_a_connection_that_holds_makes_good_for_earlier_hang_ups():
    subscriptions = Subscriptions(["a"])
    hang_up_on(subscriptions, NOW, HANG_UPS - 1)
    subscriptions.connected()
    subscriptions.due(NOW)
    subscriptions.granted("a")
    assert subscriptions.settled(NOW + HANG_UP_NS)
    assert hang_up_on(subscriptions, NOW, HANG_UPS - 1) == [False] * (HANG_UPS - 1)


def test_a_notice_that_is_refused_is_left_out_until_it_is_tried_again():
    unwelcome = Unwelcome()
    unwelcome.refused("reported")
    assert "reported" in unwelcome
    assert "birth" not in unwelcome
    unwelcome.try_again()
    assert "reported" not in unwelcome
    assert not unwelcome


def test_the_notice_that_is_under_suspicion_at_each_of_several_losses_is_the_cause():
    unwelcome = Unwelcome()
    assert unwelcome.lost({"birth", "reported"}) == []
    assert not unwelcome.wary
    assert unwelcome.lost({"birth", "reported"}) == []
    assert unwelcome.wary
    assert unwelcome.lost({"reported"}) == ["reported"]


def test_a_notice_that_was_the_cause_is_so_again_at_the_first_loss_after_it_was_tried_again():
    unwelcome = Unwelcome()
    for _ in range(HANG_UPS):
        blamed = unwelcome.lost({"reported"})
    assert blamed == ["reported"]
    unwelcome.refused("reported")
    unwelcome.forgive()
    unwelcome.try_again()
    assert unwelcome.lost({"reported"}) == ["reported"]


def test_a_loss_without_suspects_or_a_connection_that_holds_clears_all():
    unwelcome = Unwelcome()
    for clear in (unwelcome.forgive, lambda: unwelcome.lost(set())):
        for _ in range(HANG_UPS - 1):
            assert unwelcome.lost({"birth"}) == []
        clear()
        assert not unwelcome.wary
