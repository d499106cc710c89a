"""What the playbooks decide."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import tomllib
from stations import beside, preflight_problems, process_is_dead, report, to_toml


def test_what_is_rendered_reads_back_as_it_was():
    table = {
        "station": {"site": "plant1", "name": 'a "quoted" \\ name ä \x7f'},
        "camera": [{"name": "top", "rate_hz": 4.5, "loop": True}, {"name": "side", "box": {"x": 1}}],
        "inspection": {"region": [[1, 2], [3, 4]], "defect": [{"class_name": "short"}], "empty": []},
    }
    assert tomllib.loads(to_toml({**table, "absent": None})) == table


def test_a_fit_machine_has_no_problems(facts):
    assert preflight_problems(facts, facts["now_s"]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machine": "riscv64"}, "cp310-riscv64: no such target"),
        ({"jetpack": 4, "l4t": "32.7.1"}, "JetPack 4: too old; flash JetPack 5.1"),
        ({"python": [3, 6, 9], "jetpack": None}, "3.6.9 is too old"),
        ({"glibc": "2.27"}, "for 2.35 or later"),
        ({"glibc": ""}, "no glibc"),
        ({"systemd": None}, "systemd does not run"),
        ({"systemd": 237}, "systemd 237 is too old; 245"),
        ({"can_install": "distutils"}, "sudo apt install python3-distutils"),
        ({"free_mb": 400}, "400 MB are free"),
        ({"memory_mb": 500}, "500 MB of memory"),
        ({"packages": {}}, "has no torch"),
        ({"now_s": 0.0}, "its clock is -1795000000 s off"),
    ],
)
def test_each_obstacle_is_named_with_what_to_do(facts, change, words):
    now_s = facts["now_s"]
    (problem,) = preflight_problems({**facts, **change}, now_s)
    assert words in problem


def test_only_a_process_of_this_machine_and_user_is_known_to_be_dead():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    holder = {"owner": "anna@laptop", "process": ended.pid}
    assert process_is_dead(holder, "anna@laptop") == ended.pid
    assert process_is_dead(holder, "bert@laptop") is None
    assert process_is_dead({**holder, "process": os.getpid()}, "anna@laptop") is None
    assert process_is_dead(None, "anna@laptop") is None


def test_files_of_an_inventory_are_relative_to_it():
    assert beside("secrets/ca.crt", "/plant/line3") == "/plant/line3/secrets/ca.crt"
    assert beside("/elsewhere/ca.crt", "/plant/line3") == "/elsewhere/ca.crt"
    assert beside("", "/plant/line3") == ""


def test_a_report_says_why_and_what_runs_now():
    outcome = {"to": "0.2.0+11112222", "from": "0.1.0+33334444", "why": "it was not READY in 600 s", "restored": True,
               "journal": ["the last line"]}  # fmt: skip
    told = report(outcome)
    assert "0.2.0+11112222 was not kept: it was not READY" in told
    assert "inspects with 0.1.0+33334444 again" in told and "the last line" in told
    assert "did not come back: no disk" in report({**outcome, "restored": False, "not_restored": "no disk"})
