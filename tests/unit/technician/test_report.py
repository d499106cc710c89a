from __future__ import annotations

import io

from defectd.technician import report
from defectd.technician.screen import Screen
from defectd.technician.standing import Kind, Standing
from unit.technician.said import NEW, answer, progress, reported, rollout, status, view

A, B, C = (f"plant1/smt/line1/aoi{number}" for number in (1, 2, 3))
DONE = Standing(Kind.DONE, "committed", 1.0)
FAILED = Standing(Kind.FAILED, "failed", None, "3 boxes are missing; export it again", "golden")
SENT = Standing(Kind.SENT, "sent, no answer yet", 0.0)


def working(doing):
    return Standing(Kind.WORKING, doing, 0.3)


def test_the_outcome_says_what_serves_now_and_why():
    views = {A: view(reported(current=NEW)), B: view(reported())}
    assert report.outcome({A: DONE, B: FAILED, C: SENT}, views).lines() == [
        "station  outcome              serves now",
        "aoi1     committed            boards 1.5",
        "aoi2     failed (golden)      boards 1.4",
        "aoi3     sent, no answer yet  ?",
        "aoi2: 3 boxes are missing; export it again",
    ]


def test_the_sentence_counts():
    assert report.sentence({A: DONE, B: DONE}, "committed") == "committed on all 2 stations"
    assert report.sentence({A: DONE, B: FAILED, C: SENT}, "committed") == (
        "committed on 1 of 3 stations; 1 sent, 1 failed"
    )
    assert report.sentence({A: DONE}, "approved") == f"approved on {A}"
    assert report.sentence({A: FAILED}, "committed") == f"not committed on {A}"


def test_a_log_has_a_line_when_something_else_happens_or_it_is_a_quarter_further():
    before, lines = None, []
    for doing in ("downloading", *(f"downloading {percent} %" for percent in range(0, 101, 5)), "warming up"):
        line = report.change("aoi1", working(doing), before)
        if line:
            lines.append(line)
            before = working(doing)
    assert [line.strip() for line in lines] == [
        "aoi1: downloading", "aoi1: downloading 25 %", "aoi1: downloading 50 %", "aoi1: downloading 75 %",
        "aoi1: downloading 100 %", "aoi1: warming up",
    ]  # fmt: skip


def test_what_went_wrong_is_marked_and_said_once():
    line = report.change("aoi1", FAILED, working("golden pictures"))
    assert line == "!! aoi1: failed (golden): 3 boxes are missing; export it again"
    assert report.alarm("aoi1", FAILED, FAILED) == "" and report.alarm("aoi1", DONE, None) == ""


def test_the_overview_has_all_that_a_technician_asks_first():
    views = {
        A: view(reported(rollout("probation")), status(), progress("probation", 41.0)),
        B: view(reported(rollout("failed", code="golden", detail="why")), status("offline", "lost", "power cut")),
        C: view(reported(None, answer("x", False, "older", "release it again"))),
    }
    assert report.overview(views, [A, B, C]).lines() == [
        "station  state       serves      rollout",
        "aoi1     inspecting  boards 1.4  boards 1.5: on probation 41 %",
        "aoi2     offline     boards 1.4  boards 1.5: failed",
        "aoi3     unknown     boards 1.4  none yet",
        "aoi2: offline: power cut",
        "aoi2: failed (golden): why",
        "aoi3: refused its last command (older): release it again",
    ]


def test_whoever_is_waited_for_is_told_what_to_type():
    views = {A: view(reported(rollout("staged", waits_for="approve"))), B: view(reported(rollout("staged")))}
    assert report.hints(views, [A, B]) == ["to let it go on: defectd rollout approve request-1 --key OPS.KEY"]
    assert "waits for `approve`" in report.overview(views, [A, B]).lines()[1]


def test_a_screen_that_nobody_sees_prints_lines():
    stream = io.StringIO()
    screen = Screen(plain=False, stream=stream)
    with screen:
        for standing in (Standing(Kind.UNSENT, "not sent"), SENT, SENT, working("downloading"), DONE):
            screen.show({A: standing})
    screen.table(report.outcome({A: DONE}, {}))
    said = [line[9:] if line[2] == ":" else line for line in stream.getvalue().splitlines()]
    assert said == [
        "   aoi1: sent, no answer yet", "   aoi1: downloading", "   aoi1: committed",
        "station  outcome    serves now", "aoi1     committed  ?",
    ]  # fmt: skip
