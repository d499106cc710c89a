from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.rollout.admission import Active, Admission, Known, Place, admit, covers
from defectd.rollout.command import Audience, Command, Target
from defectd.rollout.policy import Policy
from defectd.rollout.states import CANCELLABLE, EDGES, FINAL, State
from support.bundles import NOW

HERE = Place("plant-1", "smt", "line-2", "aoi-1", groups=("canary", "night"))
CURRENT, PREVIOUS, NEXT = "c" * 64, "p" * 64, "ab" * 32
PAYLOAD_SHA256 = "5" * 64
KNOWN = Known(
    floor_release_seq=6, floor_command_seq=11, current=CURRENT, previous=PREVIOUS, committed="0197-before",
    sources=("server", "usb"),
)  # fmt: skip


def command(action: str = "deploy", **changes: Any) -> Command:
    target = Target(manifest_sha256=NEXT, release_seq=7, source="server", path="pcb/1.4.0")
    return Command(
        **{
            "request_id": "0197-new", "seq": 12, "created": NOW, "expires": NOW + timedelta(hours=24),
            "audience": Audience(kind="station", value="plant-1/smt/line-2/aoi-1"), "action": action,
            "target": target if action == "deploy" else None,
            "of": "0197-active" if action in {"approve", "cancel"} else None, **changes,
        }
    )  # fmt: skip


def judge(given_command: Command, known: Known = KNOWN, now: datetime = NOW, **changes: Any) -> Admission:
    return admit(given_command, PAYLOAD_SHA256, HERE, replace(known, **changes), now)


def during(state: State) -> Active:
    return Active("0197-active", state)


def target(**changes: Any) -> Target:
    deploy = command().target
    assert deploy is not None
    return deploy.model_copy(update=changes)


def refused(admission: Admission, code: str) -> str:
    assert (admission.kind, admission.code) == ("refuse", code)
    assert admission.detail.endswith(".")
    return admission.detail


# -- accepted ----------------------------------------------------------------------------------------------------


def test_a_new_release_is_begun() -> None:
    assert judge(command()) == Admission("new", "accepted", "Release 7 will be fetched from server.")


def test_a_release_of_the_same_age_as_the_floor_is_begun() -> None:
    assert judge(command(), floor_release_seq=7).kind == "new"


def test_going_back_after_a_commit_is_a_new_rollout_even_to_an_older_release() -> None:
    assert judge(command("rollback"), floor_release_seq=2**53).kind == "new"
    assert judge(command("rollback", of="0197-before")).kind == "new"


def test_a_staged_rollout_is_approved() -> None:
    assert judge(command("approve"), active=during(State.STAGED)).kind == "approve"


@pytest.mark.parametrize("state", sorted(CANCELLABLE))
@pytest.mark.parametrize("action", ["cancel", "rollback"])
def test_a_rollout_that_decides_nothing_yet_is_cancelled_by_either_word(action: str, state: State) -> None:
    assert judge(command(action, of="0197-active"), active=during(state)).kind == "cancel"


@pytest.mark.parametrize("state", [State.SWITCHING, State.PROBATION])
@pytest.mark.parametrize(("action", "of"), [("cancel", "0197-active"), ("rollback", "0197-active"), ("rollback", None)])
def test_a_rollout_that_decides_is_undone_by_either_word(action: str, of: str | None, state: State) -> None:
    assert judge(command(action, of=of), active=during(state)).kind == "go_back"


def test_the_first_command_of_a_new_station_is_accepted() -> None:
    assert judge(command(seq=1), Known(sources=("server",))).kind == "new"


# -- who is meant ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "meant"),
    [
        ("station", "plant-1/smt/line-2/aoi-1", True),
        ("station", "plant-1/smt/line-2/aoi-2", False),
        ("station", "plant-2/smt/line-2/aoi-1", False),
        ("line", "plant-1/smt/line-2", True),
        ("line", "plant-1/tht/line-2", False),
        ("site", "plant-1", True),
        ("site", "plant-11", False),
        ("group", "canary", True),
        ("group", "plant-1", False),
        ("group", "day", False),
    ],
)
def test_a_station_knows_whether_it_is_meant(kind: Any, value: str, meant: bool) -> None:
    assert covers(Audience(kind=kind, value=value), HERE) is meant


def test_what_is_for_others_is_said_before_anything_else() -> None:
    elsewhere = command(audience=Audience(kind="group", value="day"), seq=1, expires=NOW + timedelta(seconds=1))
    admission = judge(elsewhere, same_id="6" * 64, state_lost=True, now=NOW + timedelta(days=400))
    detail = refused(admission, "not_for_us")
    assert "plant-1/smt/line-2/aoi-1, of the groups canary, night" in detail
    assert not admission.lasting


# -- seen before -------------------------------------------------------------------------------------------------


def test_the_same_command_again_does_nothing_however_old_it_is_by_now() -> None:
    admission = judge(command(), same_id=PAYLOAD_SHA256, floor_command_seq=12, now=NOW + timedelta(days=400))
    assert (admission.kind, admission.code) == ("again", "again")


def test_another_command_under_a_used_id_is_a_conflict() -> None:
    assert "0197-new" in refused(judge(command(), same_id="6" * 64), "conflict")


@pytest.mark.parametrize("seq", [1, 11])
def test_an_overtaken_command_is_stale(seq: int) -> None:
    assert f"seq {seq}, but seq 11" in refused(judge(command(seq=seq)), "stale")


def test_a_station_without_memory_obeys_nobody_until_it_is_set_up_anew() -> None:
    admission = judge(command(), Known(sources=("server",)), state_lost=True)
    assert "set it up anew" in refused(admission, "state_lost")
    assert not admission.lasting


# -- in time -----------------------------------------------------------------------------------------------------


def test_a_command_is_good_until_the_second_that_it_names() -> None:
    assert judge(command(), now=NOW + timedelta(hours=24, seconds=-1)).kind == "new"
    refused(judge(command(), now=NOW + timedelta(hours=24)), "expired")


def test_an_expired_command_is_taken_once_the_clock_is_right_again() -> None:
    admission = judge(command(), now=NOW + timedelta(days=365))
    assert "good until 2026-06-02 12:00 UTC, and this station's clock says 2027-06-01" in refused(admission, "expired")
    assert not admission.lasting


def test_a_clock_that_was_set_back_revives_no_command() -> None:
    later = int((NOW + timedelta(days=3)).timestamp())
    assert "it is behind" in refused(judge(command(), signed_time_s=later), "expired")


def test_a_station_in_1970_says_that_its_clock_may_be_wrong() -> None:
    admission = judge(command(), now=datetime.fromtimestamp(0, tz=NOW.tzinfo))
    assert "clock says 1970-01-01 00:00 UTC. Set this station's clock" in refused(admission, "not_yet")
    assert not admission.lasting


def test_a_station_in_1970_knows_the_time_from_what_was_signed_yesterday() -> None:
    yesterday = int((NOW - timedelta(hours=20)).timestamp())
    assert judge(command(), now=datetime.fromtimestamp(0, tz=NOW.tzinfo), signed_time_s=yesterday).kind == "new"


def test_clocks_may_differ_by_a_day() -> None:
    assert judge(command(), now=NOW - timedelta(days=1)).kind == "new"
    refused(judge(command(), now=NOW - timedelta(days=1, seconds=1)), "not_yet")


# -- deploy ------------------------------------------------------------------------------------------------------


def test_there_is_one_rollout_at_a_time() -> None:
    detail = refused(judge(command(), active=during(State.SHADOW)), "busy")
    assert "0197-active is under way here (shadow)" in detail


def test_what_a_busy_station_refused_does_not_begin_by_itself_later() -> None:
    assert judge(command(), active=during(State.SHADOW)).lasting


def test_an_older_release_needs_a_signed_permission() -> None:
    older = command(target=target(release_seq=5))
    assert "Release 5 is older than 6" in refused(judge(older), "older")
    assert judge(command(target=target(release_seq=5), policy=Policy(allow_downgrade=True))).kind == "new"


@pytest.mark.parametrize("policy", [Policy(), Policy(allow_downgrade=True)])
def test_a_release_that_failed_here_is_never_tried_twice(policy: Policy) -> None:
    admission = judge(command(policy=policy), quarantined=("drift", "it fails 31 of 300 units"))
    assert "(drift: it fails 31 of 300 units)" in refused(admission, "quarantined")


def test_what_serves_already_is_not_deployed_again() -> None:
    refused(judge(command(target=target(manifest_sha256=CURRENT))), "already_current")


def test_a_source_that_is_not_configured_can_still_be_added() -> None:
    admission = judge(command(target=target(source="elsewhere")))
    assert "no source called elsewhere; it has server, usb" in refused(admission, "unknown_source")
    assert not admission.lasting
    assert "it has none" in judge(command(), sources=()).detail


# -- the others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(set(State) - FINAL - {State.STAGED}))
def test_only_what_waits_is_approved(state: State) -> None:
    detail = refused(judge(command("approve"), active=during(state)), "nothing_to_approve")
    assert f"it is {state.value}" in detail


@pytest.mark.parametrize("action", ["approve", "cancel"])
def test_without_a_rollout_there_is_nothing_to_approve_or_to_cancel(action: str) -> None:
    refused(judge(command(action)), f"nothing_to_{action}")


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
@pytest.mark.parametrize("action", ["approve", "cancel", "rollback"])
def test_a_command_about_another_request_touches_nothing(action: str, state: State) -> None:
    detail = refused(judge(command(action, of="0197-other"), active=during(state)), "wrong_target")
    assert "about request 0197-other, but 0197-active" in detail


def test_a_committed_rollout_is_not_cancelled_but_undone() -> None:
    detail = refused(judge(command("cancel", of="0197-before")), "too_late")
    assert "defectd rollout rollback 0197-before" in detail


@pytest.mark.parametrize("action", ["cancel", "rollback"])
def test_what_goes_back_already_is_left_alone(action: str) -> None:
    refused(judge(command(action, of="0197-active"), active=during(State.ROLLING_BACK)), "too_late")


@pytest.mark.parametrize("state", sorted({*CANCELLABLE, State.ROLLING_BACK}))
def test_going_back_without_a_name_ends_no_rollout_that_decides_nothing(state: State) -> None:
    refused(judge(command("rollback"), active=during(state)), "busy")


def test_a_rollout_that_went_back_by_itself_meanwhile_is_not_undone_twice() -> None:
    refused(judge(command("rollback", of="0197-failed")), "wrong_target")


@pytest.mark.parametrize("previous", [None, CURRENT])
def test_without_an_earlier_release_there_is_no_way_back(previous: str | None) -> None:
    refused(judge(command("rollback"), previous=previous), "nothing_to_go_back_to")


def test_the_way_back_does_not_lead_to_a_release_that_failed() -> None:
    refused(judge(command("rollback"), quarantined=("boot_loop", "three starts")), "quarantined")


# -- all of them -------------------------------------------------------------------------------------------------

COMMANDS = st.builds(
    command,
    st.sampled_from(["deploy", "rollback"]),
    seq=st.integers(1, 24),
) | st.builds(
    command,
    st.sampled_from(["approve", "cancel", "rollback"]),
    seq=st.integers(1, 24),
    of=st.sampled_from(["0197-active", "0197-before", "0197-other"]),
)  # fmt: skip
KNOWLEDGE = st.builds(
    Known,
    floor_release_seq=st.integers(0, 14),
    floor_command_seq=st.integers(0, 24),
    signed_time_s=st.sampled_from([0, int(NOW.timestamp()), 2**62]),
    active=st.none() | st.builds(Active, st.just("0197-active"), st.sampled_from(sorted(set(State) - FINAL))),
    same_id=st.sampled_from([None, PAYLOAD_SHA256, "6" * 64]),
    quarantined=st.sampled_from([None, ("golden", "it missed 3 boxes")]),
    current=st.sampled_from([None, CURRENT, NEXT]),
    previous=st.sampled_from([None, PREVIOUS]),
    committed=st.sampled_from([None, "0197-before"]),
    sources=st.sampled_from([(), ("server",)]),
    state_lost=st.booleans(),
)
DAYS = st.integers(-20_000, 20_000)


@given(COMMANDS, KNOWLEDGE, DAYS)
def test_every_command_gets_one_answer_that_the_table_of_states_allows(one: Command, known: Known, days: int) -> None:
    admission = judge(one, known, NOW + timedelta(days=days))
    assert admission.detail
    assert (admission.code == "accepted") == (admission.kind not in {"again", "refuse"})
    if admission.kind not in {"again", "refuse"}:
        assert one.seq > known.floor_command_seq
        assert known.same_id is None
        assert not known.state_lost
    if admission.kind == "new":
        assert known.active is None
        assert known.quarantined is None
    if admission.kind == "cancel":
        assert known.active is not None
        assert State.CANCELLED in EDGES[known.active.state]
    if admission.kind == "go_back":
        assert known.active is not None
        assert State.ROLLING_BACK in EDGES[known.active.state]
