"""The live view and the plain lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from defectd.watch import station_filter
from defectd.watch.lines import line_of
from defectd.watch.listener import Link
from defectd.watch.tally import Tally
from defectd.watch.view import render
from defectd.watch.wire import read
from unit.watch.test_tally import told
from unit.watch.wire_events import PREFIX, birth, defect, fault, inspection, status

UP = Link(True, "MQTT 5")


def shown(stations, width=80, height=24, link=UP, now_s=1.0, note=""):
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, color_system=None)
    console.print(render(Tally(stations), link, "127.0.0.1:1883", (width, height), now_s, note))
    return stream.getvalue()


def one(*messages, **options):
    return shown({"plant1/smt/line1/aoi1": told(*messages)}, **options)


RUNNING = [
    birth(), status(), *(inspection(n) for n in range(1, 60)),
    inspection(60, verdict="failed", defects=[defect(confidence=0.93)]),
    inspection(61, verdict="error", error="deadline_exceeded", latency_ms=251.0),
]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "INSPECTING", "61 units", "boards 1 on torchscript-fp32-cpu", "passed    59", "failed     1", "PCB-SHORT 0.93",
        "FAILED", "ERROR", "deadline exceeded", "250 ms 1 late", "connected, MQTT 5", "pass rate    98.3 %",
        "every unit accounted for: events 1 to 61, no gap; no faults",
    ],
)  # fmt: skip
def test_everything_that_matters_is_said_in_words_without_colour(words):
    assert words in one(*RUNNING)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 60)])
def test_the_view_fits_the_terminal(width, height):
    lines = one(*RUNNING, width=width, height=height, note="a word from the demo").splitlines()
    assert len(lines) <= height - 1
    assert max(len(line) for line in lines) <= width


def test_the_newest_unit_stands_first():
    text = one(*RUNNING)
    assert text.index("board-00000061") < text.index("board-00000060")


def test_a_missing_event_is_said_loudly():
    assert "MISSING without an explanation: seq 2" in one(inspection(1), inspection(3))


def test_an_active_fault_is_named():
    assert "FAULT camera/top: camera_lost: gone" in one(inspection(1), fault())


def test_a_broker_that_is_away_is_said():
    assert "AWAY: connection refused" in one(inspection(1), link=Link(False, "connection refused"))


def test_a_line_that_stands_still_is_said():
    assert "no unit for 42 s" in one(inspection(1), now_s=42.0)


def test_a_lost_station_is_said():
    assert " LOST " in one(inspection(1), status("lost", state="offline"))


def test_what_the_broker_kept_is_shown_with_its_age():
    assert "2026-11-20 " in one(status("stopped", state="offline"), width=120)
    assert "connected at 2026-11-20 " in one(status("lost", state="offline"), width=120)
    assert "2026" not in one(inspection(1), status())


def test_several_stations_have_one_row_each():
    one_station, other = told(inspection(1), status()), told(inspection(1), inspection(3))
    one_station.name, other.name = "plant1/smt/line1/aoi1", "plant1/smt/line1/aoi2"
    text = shown({station.name: station for station in (one_station, other)})
    assert "plant1/smt/line1/aoi1" in text
    assert "plant1/smt/line1/aoi2" in text
    assert "board-" not in text


def test_without_a_station_the_view_says_that_it_waits():
    assert "no station has been heard yet" in shown({})


def line(topic, message):
    return line_of(*read(f"{PREFIX}/{topic}", message.to_json()))


def test_a_plain_line_tells_the_whole_unit():
    text = line("evt/inspection", inspection(7, verdict="failed", defects=[defect(confidence=0.93)]))
    assert text.endswith("aoi1 #7 board-00000007 FAILED 27.0 ms PCB-SHORT 0.93")


def test_a_plain_line_tells_why_there_is_no_verdict():
    text = line("evt/inspection", inspection(7, verdict="error", error="camera_lost"))
    assert text.endswith("ERROR 27.0 ms camera lost")


def test_a_plain_line_of_a_status_says_when_it_was_said():
    assert line("status", status("stopped", state="offline")).startswith("aoi1: stopped: words (as of 2026-11-20 ")
    assert "(connected at 2026-11-20 " in line("status", status("lost", state="offline"))


def test_all_stations_and_wildcards_can_be_asked_for():
    assert station_filter("all") == "+/+/+/+"
    assert station_filter("plant1/smt/+/aoi1") == "plant1/smt/+/aoi1"


@pytest.mark.parametrize("wrong", ["aoi1", "a/b/c", "a/b/c/#", "a//c/d", ""])
def test_a_station_that_cannot_be_one_is_refused(wrong):
    with pytest.raises(Exception, match="expected site/area/line/station"):
        station_filter(wrong)
