"""The lines on the terminal, the JSON, and a doctor who does not stumble over one check."""

from __future__ import annotations

import fcntl
import io
import json
from pathlib import Path
from typing import Iterator

import pytest

from defectd.doctor.checks.access import check_devices
from defectd.doctor.patient import Occupancy, Patient, Places, occupancy_of
from defectd.doctor.report import Finding, Level, Report, error, ok, skipped, warning
from defectd.doctor.run import Nobody, Options, Step, examine
from defectd.doctor.screen import Screen
from defectd.telemetry.sample import Board, DeviceSample

FINDINGS = [
    ("software", ok("Python", "3.8.10", version="3.8.10")),
    ("broker", error("login", "refused", "set mqtt.password")),
    ("broker", skipped("commands", "no source")),
    ("machine", warning("heat", "91 °C", "see to the fan")),
]


def test_nobody_may_complain_without_a_remedy():
    with pytest.raises(AssertionError, match="login: nobody is told what to do"):
        error("login", "refused", "")


def test_only_an_error_makes_a_station_unfit():
    assert not Report("a machine", "station.toml", FINDINGS, 1.0).is_fit
    assert Report("a machine", "station.toml", FINDINGS[2:], 1.0).is_fit


def test_programs_get_every_finding_with_its_figures():
    told = json.loads(json.dumps(Report("a machine", "station.toml", FINDINGS, 1.0).to_json("0.1.0", "now")))
    assert told["ok"] is False
    assert told["counts"] == {"ok": 1, "skipped": 1, "warning": 1, "error": 1}
    assert told["findings"][0]["figures"] == {"version": "3.8.10"}
    assert told["findings"][0]["remedy"] is None
    assert told["findings"][1] == {
        "section": "broker", "subject": "login", "level": "error", "found": "refused", "remedy": "set mqtt.password",
        "figures": {},
    }  # fmt: skip


def test_a_person_reads_one_line_per_finding_and_what_to_do_below_it():
    stream = io.StringIO()
    screen = Screen(stream)
    screen.doing("looking")
    for section, finding in FINDINGS:
        screen.found(section, finding)
    screen.sum_up(Report("a machine", "station.toml", FINDINGS, 1.0))
    lines = stream.getvalue().splitlines()
    assert "  ERROR    login          refused" in lines
    assert lines[lines.index("  ERROR    login          refused") + 1].strip() == "-> set mqtt.password"
    assert lines[-1] == "1 error, 1 warning, 1 ok, 1 not looked at (1 s): the station is not ready"
    assert "\x1b" not in stream.getvalue()


def test_long_words_wrap_under_their_own_column():
    stream = io.StringIO()
    Screen(stream).found("broker", ok("login", "word " * 60))
    first, second, third = stream.getvalue().splitlines()[1:4]
    assert first.index("word") == second.index("word") == third.index("word")
    assert max(map(len, (first, second, third))) <= 140


def test_a_check_that_fails_does_not_hide_the_others(tmp_path):
    def breaks(_: Patient) -> Iterator[Finding]:
        yield ok("first", "seen")
        raise KeyError("temp")

    def works(_: Patient) -> Iterator[Finding]:
        yield ok("second", "seen")

    steps = [Step("one", "", breaks), Step("two", "", works)]
    report = examine(tmp_path / "absent.toml", Options(steps=steps), Nobody())
    assert [finding.subject for _, finding in report.findings] == ["first", "breaks", "second"]
    assert report.findings[1][1].level is Level.ERROR
    assert "KeyError" in report.findings[1][1].found


def test_a_lock_that_is_held_tells_of_a_daemon(tmp_path):
    assert occupancy_of(tmp_path) == Occupancy(False)
    lock = tmp_path / ".lock"
    with lock.open("w") as held:
        assert occupancy_of(tmp_path) == Occupancy(False)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = occupancy_of(tmp_path, tmp_path)
        assert found == Occupancy(True)
        number = lock.stat().st_ino
        (tmp_path / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 4711 08:01:{number} 0 EOF\n")
        assert occupancy_of(tmp_path, tmp_path) == Occupancy(True, 4711)
    assert occupancy_of(tmp_path) == Occupancy(False)
    with lock.open("w") as other:  # a doctor leaves no claim behind
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_gpus_nodes_are_looked_for_where_jetpack_puts_them(tmp_path):
    patient = Patient(Path("s.toml"), Board("Orin", "36.4.3", "orin"), DeviceSample(0), places=Places(dev=tmp_path))
    assert next(check_devices(patient)).level is Level.ERROR
    for name in ("nvmap", "nvhost-ctrl", "nvhost-prof-gpu"):
        (tmp_path / name).touch()
    told = next(check_devices(patient))
    assert (told.level, [Path(node).name for node in told.figures["nodes"]]) == (Level.OK, ["nvmap", "nvhost-ctrl"])
