from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest

from defectd.models.store import Store
from defectd.rollout.ledger import Ledger
from defectd.rollout.starts import StartDecision, Starts, begin_start, clean_stop, decide, start_is_good
from support.releases import small

NOON = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def store(tmp_path):
    with closing(Store(tmp_path / "models")) as store:
        yield store


@pytest.fixture
def releases(store, tmp_path):
    """The manifests of three releases, which are factory, previous and current."""
    names = ("factory", "previous", "current")
    return {
        name: store.import_bundle(small(tmp_path / name, seq), name).manifest_sha256
        for seq, name in enumerate(names, 1)
    }


def starts(store: Store, count: int, first: datetime = NOON, every_s: float = 20) -> list[StartDecision]:
    return [begin_start(store, first + timedelta(seconds=every_s * number)) for number in range(count)]


@pytest.mark.parametrize(
    ("bad", "pointers", "expected"),
    [
        (0, {"current": "c", "previous": "p", "factory": "f"}, "current"),
        (2, {"current": "c", "previous": "p", "factory": "f"}, "current"),
        (3, {"current": "c", "previous": "p", "factory": "f"}, "previous"),
        (9, {"current": "c", "previous": "p"}, "previous"),
        (3, {"current": "c", "factory": "f"}, "factory"),
        (3, {"current": "c", "previous": "c", "factory": "f"}, "factory"),
        (3, {"current": "c", "candidate": "n"}, "current"),
        (3, {"current": "f", "factory": "f"}, "current"),
        (3, {"previous": "p", "factory": "f"}, "current"),
        (3, {}, "current"),
    ],
)
def test_which_model_serves_after_so_many_bad_starts(bad, pointers, expected):
    assert decide(Starts(bad=bad), pointers) == expected


def test_three_bad_starts_lead_to_the_previous_model_and_three_more_to_the_factory_model(store, releases):
    decisions = starts(store, 10)
    assert [one.pointer for one in decisions] == [
        "current", "current", "current", "previous", "current", "current", "factory", "current", "current", "current",
    ]  # fmt: skip
    assert [one.bad_starts for one in decisions] == [0, 1, 2, 3, 1, 2, 3, 1, 2, 3]
    assert [one.quarantined for one in decisions if one.quarantined] == [releases["current"], releases["previous"]]
    assert store.pointers() == {"current": releases["factory"], "factory": releases["factory"]}


def test_what_it_fell_back_from_is_not_tried_again(store, releases):
    fallback = starts(store, 4)[-1]
    code, reason = Ledger(store).quarantined(releases["current"])
    assert code == "boot_loop" and reason == fallback.detail
    assert "started 3 times in a row without inspecting for 30 s, so it serves the previous model" in reason
    assert Ledger(store).quarantined(releases["previous"]) is None


def test_where_there_is_nothing_to_fall_back_to_nothing_happens(store, tmp_path):
    assert {one.pointer for one in starts(store, 7)} == {"current"}
    only = store.import_bundle(small(tmp_path / "only"), "current").manifest_sha256
    assert {one.pointer for one in starts(store, 7)} == {"current"}
    assert store.pointers() == {"current": only} and Ledger(store).quarantined(only) is None


@pytest.mark.parametrize("forget", [start_is_good, clean_stop])
def test_a_good_start_or_a_clean_stop_begins_the_count_anew(store, releases, forget):
    starts(store, 3)
    forget(store)
    assert {one.pointer for one in starts(store, 3)} == {"current"}
    assert store.pointers()["current"] == releases["current"]


def test_a_clean_stop_is_told_to_the_next_start_and_to_no_other(store):
    first = begin_start(store, NOON)
    start_is_good(store)
    crashed = begin_start(store, NOON)
    clean_stop(store)
    much_later = NOON + timedelta(days=30)
    stopped, after = begin_start(store, much_later), begin_start(store, much_later)
    assert [one.after_clean_stop for one in (first, crashed, stopped, after)] == [False, False, True, False]


def test_another_current_model_is_not_to_blame_for_the_starts_before_it(store, releases):
    starts(store, 3)
    store.set_pointers({"current": releases["factory"]})
    assert [one.pointer for one in starts(store, 4)] == ["current", "current", "current", "previous"]


def test_starts_survive_a_process_that_closes_nothing(store, releases, tmp_path):
    others = []
    for number in range(4):
        others.append(Store(tmp_path / "models"))
        decision = begin_start(others[-1], NOON + timedelta(seconds=number))
    assert decision.pointer == "previous" and store.pointers()["current"] == releases["previous"]
    for other in others:
        other.close()


def test_starts_that_are_far_apart_do_not_count_together(store, releases):
    assert {one.pointer for one in starts(store, 8, every_s=601)} == {"current"}


def test_slow_starts_count_together(store, releases):
    assert starts(store, 4, every_s=500)[-1].pointer == "previous"


def test_a_clock_that_begins_in_1970_at_every_boot_does_not_hide_a_boot_loop(store, releases):
    boot = datetime(1970, 1, 1, tzinfo=timezone.utc)
    seconds = [31.0, 30.2, 33.9, 29.5]
    assert [begin_start(store, boot + timedelta(seconds=each)).pointer for each in seconds][-1] == "previous"


@pytest.mark.parametrize("step", [timedelta(days=20_000), timedelta(days=-20_000), timedelta(days=365)])
def test_a_step_of_the_clock_only_begins_the_count_anew(store, releases, step):
    starts(store, 3)
    assert [one.pointer for one in starts(store, 4, NOON + step)] == ["current"] * 3 + ["previous"]
