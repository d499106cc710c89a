"""What a station answers to signed messages: on a real ledger, with real signatures."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

pytest.importorskip("cryptography")

from defectd.faults import Faults
from defectd.models.envelope import PAYLOAD_COMMAND
from defectd.models.store import Store
from defectd.rollout.admission import Place
from defectd.rollout.intake import Intake
from defectd.rollout.ledger import Ledger
from defectd.rollout.states import State
from support.bundles import OPS_KEY, RELEASE_KEY, make_root, sign
from support.releases import small

NEW, OLD = "b" * 64, "a" * 64


class Ports:
    """What an intake asks of the house."""

    def __init__(self, directory):
        self.place, self.boot_id, self.sources = Place("plant1", "smt", "line1", "aoi1"), "boot", {"usb": None}
        self.lost_marker, self.root = directory / "models.lost", make_root
        self.faults = Faults(lambda *_: None)
        self.announced = 0

    def changed(self):
        self.announced += 1


@pytest.fixture
def station(tmp_path):
    store = Store(tmp_path / "models")
    release = store.import_bundle(small(tmp_path / "factory"), "factory")
    store.set_pointers({"current": release.manifest_sha256})
    made = Ports(tmp_path)
    made.store, made.ledger = store, Ledger(store)
    made.intake = Intake(made, store, made.ledger)
    yield made
    store.close()


def envelope(signer=OPS_KEY, **changes):
    now = datetime.now(timezone.utc).replace(microsecond=0)
    fields = {
        "schema": "defectd.command/1.0",
        "request_id": "request-1",
        "seq": 5,
        "created": (now - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expires": (now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "audience": {"kind": "line", "value": "plant1/smt/line1"},
        "action": "deploy",
        "target": {"manifest_sha256": NEW, "release_seq": 2, "source": "usb", "path": "pcb/2"},
        **changes,
    }
    return sign(json.dumps(fields).encode(), PAYLOAD_COMMAND, signer).to_json()


def answer(station, payload):
    station.intake.take(payload)
    return station.intake.reported.last_command


def test_a_command_begins_a_rollout_and_the_report_says_so(station):
    told = answer(station, envelope())
    assert (told.accepted, told.code, told.seq) == (True, "accepted", 5)
    assert station.ledger.active().manifest_sha256 == NEW
    reported = station.intake.reported
    assert (reported.rollout.state, reported.floor_command_seq) == ("received", 5)
    assert reported.station == "plant1/smt/line1/aoi1" and station.announced


def test_the_same_bytes_are_answered_again_and_other_bytes_of_that_id_are_a_conflict(station):
    command = envelope()
    answer(station, command)
    told = answer(station, command)
    assert (told.accepted, told.code) == (True, "again")
    told = answer(station, envelope(seq=6))
    assert (told.accepted, told.code) == (False, "conflict")
    assert len(station.ledger.history()) == 1


def test_only_an_ops_key_can_command(station):
    told = answer(station, envelope(signer=RELEASE_KEY))
    assert (told.accepted, told.code, told.request_id) == (False, "signature", None)
    assert station.ledger.active() is None


def test_signed_nonsense_is_unreadable_and_what_is_no_envelope_is_not_signed(station):
    assert answer(station, sign(b"{}", PAYLOAD_COMMAND, OPS_KEY).to_json()).code == "unreadable"
    assert answer(station, b"\x00\xff").code == "signature"


def test_a_cleared_message_changes_nothing(station):
    answer(station, envelope())
    before = station.intake.reported
    station.intake.take(b"")
    assert station.intake.reported is before


def test_a_command_that_came_while_another_was_under_way_does_not_begin_by_itself_later(station):
    answer(station, envelope())
    second = envelope(request_id="request-2", seq=6)
    assert answer(station, second).code == "busy"
    station.ledger.move(station.ledger.active(), State.REJECTED, "x", "y")
    told = answer(station, second)
    assert (told.accepted, told.code) == (False, "busy")
    assert station.ledger.active() is None


def test_one_that_expired_by_a_wrong_clock_is_judged_anew(station, monkeypatch):
    from defectd.rollout import intake

    a_year_ahead = datetime.now(timezone.utc) + timedelta(days=365)
    command = envelope()
    with monkeypatch.context() as clock:
        clock.setattr(intake, "utc_now", lambda: a_year_ahead)
        assert answer(station, command).code == "expired"
        station.intake.reconsider()
        assert station.ledger.active() is None
    station.intake.reconsider()
    assert station.intake.reported.last_command.accepted, "nobody need send it again when the clock has been set"
    assert station.ledger.active() is not None


def test_an_approval_is_kept_with_the_rollout_and_not_refused_when_it_comes_again(station):
    answer(station, envelope())
    rollout = station.ledger.active()
    for state in (State.DOWNLOADING, State.VERIFYING, State.STAGED):
        rollout = station.ledger.move(rollout, state)
    approval = envelope(request_id="approval-1", seq=6, action="approve", of="request-1", target=None)
    assert answer(station, approval).accepted
    assert station.ledger.active().gates["approval"] == {"by": "approval-1"}
    assert answer(station, approval).accepted


def test_a_station_whose_state_was_lost_takes_nothing(station):
    station.lost_marker.touch()
    assert answer(station, envelope()).code == "state_lost"
    station.lost_marker.unlink()
    assert answer(station, envelope()).accepted


def test_a_cancel_is_handed_to_the_journey(station):
    answer(station, envelope())
    told = answer(station, envelope(request_id="cancel-1", seq=6, action="cancel", of="request-1", target=None))
    assert told.accepted and station.intake.end_asked == "cancel-1"
    assert station.intake.reported.floor_command_seq == 6
