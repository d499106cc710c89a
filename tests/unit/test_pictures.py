"""Evidence and training data are written to two directories: each has a fault of its own."""

from __future__ import annotations

from defectd.evidence.keeper import Kept
from defectd.faults import Faults
from defectd.line import Tally
from defectd.pictures import Pictures


class Keeper:
    """Has these pictures to tell of."""

    def __init__(self, news):
        self._news = news

    def receive(self):
        news, self._news = self._news, []
        return news


def test_training_data_that_cannot_be_written_is_no_trouble_of_the_evidence():
    told, denied = [], "/x: Permission denied"
    news = [kept for unit in range(3) for kept in (Kept(f"u{unit}", ()), Kept(f"u{unit}/collected", (), denied))]
    faults = Faults(lambda component, code, state, *_: told.append((component, code, state)))
    Pictures(Keeper([*news, Kept("u3/collected", ())]), [], faults, Tally()).hear()
    assert told == [("evidence", "not_collected", "raised"), ("evidence", "not_collected", "cleared")]


def test_evidence_that_cannot_be_written_is_a_fault_until_it_can_be():
    told = []
    news = [Kept("u1", (), "/x: full"), Kept("u2", (), "/x: full"), Kept("u1/collected", ()), Kept("u3", ())]
    faults = Faults(lambda component, code, state, *_: told.append((component, code, state)))
    Pictures(Keeper(news), [], faults, Tally()).hear()
    assert told == [("evidence", "not_written", "raised"), ("evidence", "not_written", "cleared")]
