from __future__ import annotations

import pytest

from defectd.errors import StartupError
from defectd.technician.fleet import MOST_SEQ, Fleet, NoRollout, NoStation
from defectd.technician.places import audience
from unit.technician.said import ASKED, OTHER, heard, reported, rollout, status

ONE, TWO = "plant1/smt/line1/aoi1", "plant1/smt/line1/aoi2"
LINE = audience("line", "plant1/smt/line1")


def test_the_stations_that_report_models_are_found_by_name():
    fleet = Fleet([heard(reported(), TWO), heard(reported(), ONE), heard(status(), "plant1/smt/line1/aoi3")])
    assert fleet.find(LINE) == [ONE, TWO] and fleet.find(None) == [ONE, TWO]


def test_a_station_that_takes_no_commands_is_told_from_one_that_is_not_there():
    fleet = Fleet([heard(status(), ONE)])
    with pytest.raises(NoStation, match=r"aoi1: on this broker, but taking no model commands; expected a \[\[rollout"):
        fleet.find(audience("station", ONE))
    with pytest.raises(NoStation, match=f"no answer from station {TWO} on this broker; check the name"):
        fleet.find(audience("station", TWO))
    with pytest.raises(NoStation, match="no station answers"):
        Fleet().find(None)


def test_a_request_is_found_by_its_beginning_if_that_is_clear():
    fleet = Fleet([heard(reported(rollout(request_id=ASKED)), ONE), heard(reported(rollout(request_id=OTHER)), TWO)])
    assert list(fleet.with_request("request-1")) == [ONE]
    with pytest.raises(NoRollout, match=f"expected one of {OTHER}, {ASKED}"):
        fleet.with_request("request-")
    with pytest.raises(NoRollout, match="see `defectd rollout status`"):
        fleet.with_request("other")


def test_a_request_that_others_begin_with_is_itself():
    fleet = Fleet([heard(reported(rollout(request_id="a")), ONE), heard(reported(rollout(request_id="ab")), TWO)])
    assert list(fleet.with_request("a")) == [ONE]


def test_the_next_command_is_newer_than_any_that_they_had():
    fleet = Fleet([heard(reported(), ONE), heard(reported(floor_command_seq=41), TWO)])
    assert fleet.next_seq([ONE, TWO]) == 42 and fleet.next_seq([ONE]) == 8


def test_nobody_can_make_us_sign_the_highest_number_there_is():
    fleet = Fleet([heard(reported(), ONE), heard(reported(floor_command_seq=MOST_SEQ), TWO)])
    with pytest.raises(StartupError, match="aoi2: says that it has had command number 1000000000; that cannot be"):
        fleet.next_seq([ONE, TWO])
