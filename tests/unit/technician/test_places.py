from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.errors import SettingsError
from defectd.technician.places import audience, holds, members, shared, tersely, topic_levels, waves
from unit.technician.said import heard, reported

STATIONS = [f"plant1/smt/line{line}/aoi{number}" for line in (1, 2) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("kind", "value", "levels", "count"),
    [
        ("station", "plant1/smt/line1/aoi1", "plant1/smt/line1/aoi1", 1),
        ("line", "plant1/smt/line1/", "plant1/smt/line1/+", 3),
        ("site", "plant1", "plant1/+/+/+", 6),
        ("site", "plant", "plant/+/+/+", 0),
        ("group", "pilot", "+/+/+/+", 6),
        ("group", "others", "+/+/+/+", 0),
    ],
)
def test_a_place_hears_and_holds_its_stations(kind, value, levels, count):
    place = audience(kind, value)
    assert topic_levels(place) == levels
    assert len(members(place, {name: heard(reported())[1] for name in STATIONS})) == count


def test_without_a_place_all_are_meant():
    assert topic_levels(None) == "+/+/+/+"
    assert members(None, {name: heard(reported())[1] for name in STATIONS[::-1]}) == STATIONS


def test_a_line_does_not_hold_one_whose_name_begins_like_it():
    assert not holds(audience("line", "plant1/smt/line1"), "plant1/smt/line10/aoi1", ())


@pytest.mark.parametrize(("kind", "value"), [("station", "aoi1"), ("line", "a/b/+"), ("site", ""), ("group", "a/b")])
def test_a_wrong_place_is_named_with_what_was_expected(kind, value):
    with pytest.raises(SettingsError, match=rf"^--{kind}: got '{value}'.*expected".replace("+", r"\+")):
        audience(kind, value)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("100%", [6]),
        ("1,100%", [1, 5]),
        ("1,10%,50%,100%", [1, 2, 3]),
        ("1,1,6", [1, 5]),
        (" 2 , 100% ", [2, 4]),
        ("5,10%,100%", [5, 1]),
        ("9", [6]),
    ],
)
def test_waves_say_how_many_have_it_when_they_are_over(text, sizes):
    assert [len(wave) for wave in waves(text, STATIONS)] == sizes


@pytest.mark.parametrize("text", ["", "0", "2,1", "101%", "all", "1,50%", "1;2", "-1", "1.5%"])
def test_waves_that_make_no_sense_are_refused(text):
    with pytest.raises(SettingsError, match="--waves: got"):
        waves(text, STATIONS)


def test_no_stations_are_no_waves():
    assert waves("1,100%", []) == []


@given(st.integers(1, 500), st.lists(st.integers(1, 100), max_size=5))
def test_every_station_is_in_exactly_one_wave(count, shares):
    stations = [f"a/b/c/{number}" for number in range(count)]
    text = ",".join([*(f"{share}%" for share in sorted(shares)), "100%"])
    parts = waves(text, stations)
    assert [name for wave in parts for name in wave] == stations and all(parts)


def test_names_are_as_short_as_they_can_be():
    assert tersely(["a/b/c/d"]) == {"a/b/c/d": "d"}
    assert list(tersely(["a/b/c/d", "a/b/x/d"]).values()) == ["c/d", "x/d"]
    assert list(tersely(["a/b/c/d", "z/b/c/d"]).values()) == ["a/b/c/d", "z/b/c/d"]
    assert tersely([]) == {}
    assert shared(["a/b/c/d", "a/b/x/d"]) == "a/b: 2 stations" and shared(["a/b/c/d"]) == "a/b/c/d"
