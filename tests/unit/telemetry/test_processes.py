"""Memory by worker, and whether the clock is right."""

from __future__ import annotations

import pytest

from defectd.clock import NS_PER_S
from defectd.telemetry.clock_sync import clock_synchronised, kernel_says_synchronised
from defectd.telemetry.files import Files
from defectd.telemetry.processes import Processes
from defectd.telemetry.sample import Roots
from support.trees import add_process

_LATER_NS = 11 * NS_PER_S


@pytest.fixture
def roots(tmp_path):
    roots = Roots(*(tmp_path / name for name in ("sys", "proc", "etc", "var")))
    add_process(roots, 100, 1, "defectd", 50)
    add_process(roots, 101, 100, "defectd.camera.worker", 80)
    add_process(roots, 102, 100, "defectd.engine.worker", 900)
    add_process(roots, 200, 1, "jtop", 40)
    return roots


def rounded(resident):
    return {name: round(mb) for name, mb in resident.items()}


def test_workers_are_called_by_their_module(roots):
    resident = Processes(roots, 100).resident_mb(Files(), 0)
    assert rounded(resident) == {"daemon": 50, "camera": 80, "engine": 900}


def test_workers_are_called_by_their_name_if_it_is_known(roots):
    resident = Processes(roots, 100, lambda: {101: "camera/top"}).resident_mb(Files(), 0)
    assert rounded(resident) == {"daemon": 50, "camera/top": 80, "engine": 900}


def test_what_a_worker_starts_counts_for_it(roots):
    add_process(roots, 103, 102, "torch._inductor.compile_worker", 300)
    assert rounded(Processes(roots, 100).resident_mb(Files(), 0))["engine"] == 1200


def test_workers_of_one_name_are_added_up(roots):
    add_process(roots, 103, 100, "defectd.camera.worker", 20)
    assert rounded(Processes(roots, 100).resident_mb(Files(), 0))["camera"] == 100


def test_a_new_worker_is_found_at_the_next_look_and_a_dead_one_is_gone_at_once(roots):
    processes, files = Processes(roots, 100), Files()
    processes.resident_mb(files, 0)
    (roots.proc / "102/statm").unlink()
    add_process(roots, 104, 100, "defectd.evidence.worker", 30)
    assert rounded(processes.resident_mb(files, NS_PER_S)) == {"daemon": 50, "camera": 80}
    assert rounded(processes.resident_mb(files, _LATER_NS))["evidence"] == 30


def test_the_kernel_says_whether_the_clock_is_right(roots):
    for answer in (True, False):
        assert clock_synchronised(roots, Files(), lambda answer=answer: answer) is answer
    assert kernel_says_synchronised() in (True, False, None)


def test_where_the_kernel_must_not_be_asked_the_mark_of_timesyncd_counts(roots):
    assert clock_synchronised(roots, Files(), lambda: None) is None
    mark = roots.var / "run/systemd/timesync/synchronized"
    mark.parent.mkdir(parents=True)
    mark.touch()
    assert clock_synchronised(roots, Files(), lambda: None) is True
