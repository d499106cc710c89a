"""One deployment at a time."""

from __future__ import annotations

import json
import time

import pytest
from station import lock
from station.places import DeployError

ANNA = {"run_id": "a", "owner": "anna@laptop", "process": 41, "ttl_s": 60.0, "dead": None}
BERT = {"run_id": "b", "owner": "bert@bench", "process": 42, "ttl_s": 60.0, "dead": None}


def test_a_second_person_is_told_who_is_at_it_and_when_it_ends(places):
    lock.take(places, **ANNA)
    with pytest.raises(DeployError, match=r"anna@laptop is deploying here \(process 41.*ends by itself in (60|59) s"):
        lock.take(places, **BERT)


def test_the_same_run_renews_its_lock(places):
    lock.take(places, **ANNA)
    assert lock.take(places, **ANNA)["took_over_from"] is None


def test_a_lock_ends_by_itself(places):
    lock.take(places, **{**ANNA, "ttl_s": -1.0})
    assert lock.holder_of(places)["holder"] is None
    assert lock.take(places, **BERT)["took_over_from"] == "anna@laptop"


def test_ones_own_dead_run_is_taken_over_at_once(places):
    lock.take(places, **ANNA)
    lock.take(places, **{**ANNA, "run_id": "again", "process": 99, "dead": 41})
    assert lock.holder_of(places)["holder"]["run_id"] == "again"


def test_somebody_elses_dead_run_is_not_for_us_to_judge(places):
    lock.take(places, **ANNA)
    with pytest.raises(DeployError):
        lock.take(places, **{**BERT, "dead": 41})


def test_only_ones_own_lock_is_given_back(places):
    lock.take(places, **ANNA)
    lock.give_back(places, "b")
    assert lock.holder_of(places)["holder"]["owner"] == "anna@laptop"
    lock.give_back(places, "a")
    assert lock.holder_of(places)["holder"] is None


@pytest.mark.parametrize("garbage", ["", "[]", "{}", json.dumps({"until_s": "x", "run_id": 3})])
def test_a_lock_that_nobody_can_read_holds_nobody_up(places, garbage):
    (places.run / lock.NAME).write_text(garbage)
    lock.take(places, **ANNA)
    assert lock.holder_of(places)["holder"]["until_s"] > time.clock_gettime(time.CLOCK_BOOTTIME)
