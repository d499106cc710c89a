from __future__ import annotations

from datetime import timedelta

import pytest

from defectd.rollout.states import FINAL, State
from defectd.technician.standing import (
    ANSWER_WITHIN_S,
    BACK_WITHIN_S,
    Asked,
    Kind,
    Standing,
    View,
    overall,
    stand,
    words,
    worst,
)
from unit.technician.said import ASKED, NOW, OTHER, answer, progress, reported, rollout, status, view

DEPLOY = Asked(ASKED, "deploy", sent_s=0.0)
CANCEL = Asked("request-2", "cancel", ends=ASKED, sent_s=0.0)


def test_what_was_not_sent_is_not_waited_for():
    assert stand(View(), Asked(ASKED, "deploy"), 1e9).kind is Kind.UNSENT


def test_silence_is_a_matter_of_time():
    seen = view(reported(), status())
    assert stand(seen, DEPLOY, ANSWER_WITHIN_S - 1).kind is Kind.SENT
    now = stand(seen, DEPLOY, ANSWER_WITHIN_S)
    assert now.kind is Kind.SILENT and "may not read model/desired" in now.detail


def test_the_silence_of_an_offline_station_is_explained():
    seen = view(reported(), status("offline", "lost", "the connection was lost"))
    assert "the connection was lost" in stand(seen, DEPLOY, 1).detail
    assert "the broker keeps the command" in stand(seen, DEPLOY, 60).detail
    assert "right name?" in stand(View(), DEPLOY, 60).detail


def test_an_answer_after_a_long_silence_counts():
    assert stand(view(reported(rollout("downloading"), answer())), DEPLOY, 1e6).kind is Kind.WORKING


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("committed", Kind.DONE), ("failed", Kind.FAILED), ("rolled_back", Kind.FAILED), ("cancelled", Kind.FAILED),
        ("rejected", Kind.REJECTED), ("shadow", Kind.WORKING),
    ],
)  # fmt: skip
def test_a_rollout_stands_as_its_state_says(state, kind):
    now = stand(view(reported(rollout(state, code="x", detail="why"), answer())), DEPLOY, 1)
    assert (now.kind, now.detail, now.code) == (kind, "why", "x")


def test_a_refusal_is_told_in_the_stations_words():
    now = stand(view(reported(None, answer(accepted=False, code="older", detail="release it again"))), DEPLOY, 1)
    assert now == Standing(Kind.REJECTED, "refused", None, "release it again", "older")


def test_an_unreadable_command_is_ours_only_if_the_answer_is_new():
    wrong_key = answer(None, False, "signature", "signed by nobody")
    seen = view(reported(None, wrong_key))
    assert stand(seen, Asked(ASKED, "deploy", None, 0.0, seen.reported.answer), 1).kind is Kind.SENT
    later = seen.after(view(reported(None, wrong_key.model_copy(update={"ts": NOW + timedelta(1)}))).reported, 0.0)
    now = stand(later, Asked(ASKED, "deploy", None, 0.0, seen.reported.answer), 1)
    assert now.kind is Kind.REJECTED and "'ops' (--key)" in now.detail


def test_another_rollout_is_not_ours():
    assert stand(view(reported(rollout("failed", OTHER), answer(OTHER))), DEPLOY, 1).kind is Kind.SENT


def test_the_last_word_on_our_rollout_holds_when_another_follows():
    after = view(reported(rollout("committed"), answer()), reported(rollout("downloading", OTHER), answer(OTHER)))
    assert stand(after, DEPLOY, 1).kind is Kind.DONE
    replaced = view(reported(rollout("shadow"), answer()), reported(rollout("downloading", OTHER), answer(OTHER)))
    assert stand(replaced, DEPLOY, 1).doing == "replaced"


def test_progress_shows_until_a_newer_report_comes():
    seen = view(reported(rollout("downloading"), answer()), progress("downloading", 40.0))
    assert stand(seen, DEPLOY, 1).doing == "downloading 40 %"
    seen = view(reported(rollout("downloading")), progress("downloading", 40.0), reported(rollout("verifying")))
    assert stand(seen, DEPLOY, 1).doing == words("verifying")
    seen = view(reported(rollout("downloading")), progress("building", 10.0, OTHER))
    assert stand(seen, DEPLOY, 1).doing == "downloading"


def test_what_it_waits_for_is_said_and_words_of_its_own_are_kept():
    assert stand(view(reported(rollout("staged", waits_for="approve"))), DEPLOY, 1).doing == "waits for `approve`"
    now = stand(view(reported(rollout("staged", waits_for="the moon"))), DEPLOY, 1)
    assert (now.kind, now.doing) == (Kind.WAITING, "waits: the moon")


def test_a_station_that_goes_away_is_waited_for_as_long_as_a_start_takes():
    gone = view(reported(rollout("loading")), status("offline", "lost", "lost"), at_s=100.0)
    assert stand(gone, DEPLOY, 100.0 + BACK_WITHIN_S).kind is Kind.WAITING
    assert stand(gone, DEPLOY, 101.0 + BACK_WITHIN_S).kind is Kind.SILENT
    back = gone.after(view(status()).status, 200.0)
    assert stand(back, DEPLOY, 1e6).kind is Kind.WORKING


@pytest.mark.parametrize(
    ("state", "kind"),
    [("cancelled", Kind.DONE), ("rolled_back", Kind.DONE), ("committed", Kind.FAILED), ("shadow", Kind.WORKING)],
)
def test_a_cancel_has_its_effect_when_the_rollout_has_ended_so(state, kind):
    assert stand(view(reported(rollout(state), answer(CANCEL.request_id))), CANCEL, 1).kind is kind


def test_a_cancel_that_is_refused_says_why_even_though_the_rollout_is_over():
    late = answer(CANCEL.request_id, False, "nothing_to_cancel", "it is over")
    assert stand(view(reported(rollout("committed"), late)), CANCEL, 1).detail == "it is over"


def test_an_approval_is_done_when_it_is_accepted():
    approve = Asked("request-2", "approve", ends=ASKED, sent_s=0.0)
    assert stand(view(reported(rollout("staged"), answer(OTHER))), approve, 1).kind is Kind.SENT
    assert stand(view(reported(rollout("staged"), answer("request-2"))), approve, 1).kind is Kind.DONE


def test_a_rollback_is_a_rollout_of_its_own_where_nothing_is_going_on():
    rollback = Asked("request-2", "rollback", sent_s=0.0)
    assert stand(view(reported(rollout("rolled_back"), answer(OTHER))), rollback, 1).kind is Kind.SENT
    seen = view(reported(rollout("committed", "request-2", action="rollback"), answer("request-2")))
    assert stand(seen, rollback, 1).kind is Kind.DONE


def test_failures_count_more_than_refusals_and_these_more_than_silence():
    def kind(*kinds):
        return worst(Standing(one) for one in kinds)

    assert kind(Kind.DONE, Kind.SILENT, Kind.REJECTED, Kind.FAILED) is Kind.FAILED
    assert kind(Kind.DONE, Kind.SILENT, Kind.REJECTED) is Kind.REJECTED
    assert kind(Kind.DONE, Kind.SILENT) is Kind.SILENT
    assert kind(Kind.DONE) is Kind.DONE and kind() is Kind.DONE


def test_every_state_of_a_rollout_has_words_and_a_place_on_the_bar():
    plain = ("downloading", "committed", "failed", "cancelled")
    assert all((words(state.value) == state.value) == (state.value in plain) for state in State)
    shares = [overall(state.value, percent) for state in State if state not in FINAL for percent in (0.0, 50.0, 100.0)]
    assert all(0 <= share <= 1 for share in shares)
    assert overall("downloading", 100.0) <= overall("verifying", 0.0) < overall("probation", 99.0)
