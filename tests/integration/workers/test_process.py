"""Real child processes: what the supervisor promises when they hang, die, lie or say nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from defectd.clock import monotonic_ns
from defectd.workers.process import Died, Worker, WorkerLimits, WorkerSpec, WorkerState
from defectd.workers.protocol import Kind, Note
from defectd.workers.ring import FrameRing, RingLayout

FAST = WorkerLimits(start_s=20.0, silence_s=1.0, backoff_first_s=0.05, backoff_longest_s=0.2)


@pytest.fixture
def ring():
    ring = FrameRing.create(RingLayout(1, 3))
    yield ring
    ring.close()


@pytest.fixture
def start(ring):
    started = []

    def start(behaviour, limits=FAST, nice=0):
        configuration = {"log_level": "CRITICAL", "behaviour": behaviour}
        worker = Worker(WorkerSpec("test", "support.behaving", lambda: configuration, (ring,), limits, nice))
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()
        worker.reap(1.0)


def drive(worker, until, timeout_s=20.0):
    """Hear and tick as the loop does, until `until(news)` is true of something; return that."""
    due = time.monotonic() + timeout_s
    while time.monotonic() < due:
        for news in [*worker.receive(), *worker.tick(monotonic_ns())]:
            if until(news):
                return news
        time.sleep(0.01)
    raise AssertionError(f"nothing of the kind within {timeout_s} s; the worker is {worker.state}")


def is_ready(news):
    return isinstance(news, Note) and news.kind is Kind.READY


def has_died(news):
    return isinstance(news, Died)


def test_a_worker_becomes_ready_and_answers_and_shares_the_ring(start, ring):
    worker = start("well")
    drive(worker, is_ready)
    assert worker.report["rings"] == 1
    assert worker.send(Note(Kind.KEEP, {"value": 7}), reply_within_s=5)
    drive(worker, lambda news: isinstance(news, Note) and news.kind is Kind.KEPT)
    worker.replied()
    assert ring.pixels(0, 1, 1)[0, 0, 0] == 7


@pytest.mark.parametrize(
    ("behaviour", "code", "detail", "reason"),
    [
        ("unusable", "unusable", "no such device: /dev/null0", "exit_3"),
        ("broken", "broken", "CUDA error: an illegal memory access was encountered", "exit_4"),
        ("bug", "crashed", "oops", "exit_1"),
        ("segfault", "", "", "signal_11"),
    ],
)
def test_a_worker_that_dies_is_counted_with_its_last_words_and_replaced(start, behaviour, code, detail, reason):
    worker = start(behaviour)
    died = drive(worker, has_died)
    assert (died.fatal_code, died.fatal_detail, died.reason) == (code, detail, reason)
    assert worker.exits[reason] == 1 and worker.state is WorkerState.WAITING
    drive(worker, has_died)
    assert worker.exits[reason] == 2


def test_a_worker_that_hangs_in_a_request_is_killed_and_replaced(start):
    worker = start("hang_on_request")
    first = drive(worker, is_ready).body["pid"]
    worker.send(Note(Kind.KEEP, {"value": 1}), reply_within_s=0.2)
    assert drive(worker, has_died).reason == "hung"
    assert not alive(first)
    assert drive(worker, is_ready).body["pid"] != first


def test_a_stopped_process_is_killed_for_its_silence(start):
    worker = start("well")
    pid = drive(worker, is_ready).body["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert drive(worker, has_died).reason == "silent"
    assert not alive(pid)
    drive(worker, is_ready)


def test_a_worker_that_never_becomes_ready_is_killed(start):
    worker = start("never_ready", WorkerLimits(start_s=0.5, backoff_first_s=0.05))
    assert drive(worker, has_died).reason == "start_timeout"


def test_a_worker_that_talks_nonsense_is_replaced(start):
    worker = start("nonsense")
    assert drive(worker, has_died).reason == "protocol"
    drive(worker, is_ready)


def test_the_back_off_grows_while_a_worker_keeps_dying(start):
    worker = start("unusable", WorkerLimits(start_s=20, backoff_first_s=0.05, backoff_longest_s=10))
    delays = [drive(worker, has_died).retry_s for _ in range(4)]
    assert delays[3] > 2 * delays[0]


def test_a_worker_runs_with_the_priority_it_was_given(start):
    assert drive(start("well", nice=5), is_ready).body["nice"] == os.nice(0) + 5


def test_after_a_stop_no_process_is_left(start):
    worker = start("well")
    pid = drive(worker, is_ready).body["pid"]
    worker.stop()
    worker.reap(2.0)
    assert not alive(pid) and worker.tick(monotonic_ns()) == []


def test_what_a_worker_said_before_it_died_is_heard_though_it_left_our_records_unread(start):
    worker = start("well")
    pid = drive(worker, is_ready).body["pid"]
    os.kill(pid, signal.SIGSTOP)
    worker.send(Note(Kind.KEEP, {"value": 1}))
    worker.send(Note(Kind.KEEP, {"value": 2}))
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.3)  # it answers both
    os.kill(pid, signal.SIGSTOP)
    worker.send(Note(Kind.KEEP, {"value": 3}))  # it never reads this one
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    heard = []
    due = time.monotonic() + 5
    while not any(has_died(news) for news in heard) and time.monotonic() < due:
        heard += [*worker.receive(), *worker.tick(monotonic_ns())]
    kept = [news.body["value"] for news in heard if isinstance(news, Note) and news.kind is Kind.KEPT]
    assert kept == [1, 2] and has_died(heard[-1])


def test_a_worker_may_be_silent_while_an_answer_is_awaited(start):
    worker = start("hang_on_request", WorkerLimits(start_s=20, silence_s=0.3, backoff_first_s=0.05))
    drive(worker, is_ready)
    asked_s = time.monotonic()
    worker.send(Note(Kind.KEEP, {"value": 1}), reply_within_s=1.5)
    assert drive(worker, has_died).reason == "hung"
    assert time.monotonic() - asked_s >= 1.5


def test_a_worker_that_is_told_to_end_can_still_be_heard(start):
    worker = start("well")
    pid = drive(worker, is_ready).body["pid"]
    worker.send(Note(Kind.KEEP, {"value": 9}))
    worker.stop()
    heard = []
    due = time.monotonic() + 5
    while worker.state is not WorkerState.STOPPED and time.monotonic() < due:
        heard += worker.receive()
    assert [news.body for news in heard if isinstance(news, Note)] == [{"value": 9}]
    worker.reap(2.0)
    assert not alive(pid) and not worker.exits


def test_sigterm_to_the_whole_service_is_for_the_daemon_alone(start):
    worker = start("well")
    pid = drive(worker, is_ready).body["pid"]
    os.kill(pid, signal.SIGTERM)
    worker.send(Note(Kind.KEEP, {"value": 4}))
    drive(worker, lambda news: isinstance(news, Note) and news.kind is Kind.KEPT)


def test_a_camera_that_is_not_plugged_in_may_start_for_ever_as_long_as_it_says_alive(start):
    limits = WorkerLimits(start_s=0.6, alive_extends_start=True, backoff_first_s=0.05)
    worker = start("alive_only", WorkerLimits(start_s=20, alive_extends_start=True))
    worker.spec = WorkerSpec("test", worker.spec.module, worker.spec.configuration, worker.spec.rings, limits)
    due = time.monotonic() + 4
    while time.monotonic() < due:
        assert not worker.receive() and not worker.tick(monotonic_ns())
        time.sleep(0.01)
    assert worker.state is WorkerState.STARTING


def test_no_descriptor_is_left_behind_by_a_hundred_deaths(start):
    worker = start("unusable", WorkerLimits(start_s=20, backoff_first_s=0.001, backoff_longest_s=0.001))
    drive(worker, has_died)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(15):
        drive(worker, has_died)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


PARENT = """
import sys, time
from defectd.workers.process import Worker, WorkerSpec
worker = Worker(WorkerSpec("w", "support.behaving", lambda: {"log_level": "CRITICAL", "behaviour": "silent"}, ()))
worker.start()
while not worker.ready:
    worker.receive()
    time.sleep(0.01)
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_workers_die_with_a_parent_that_was_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    due = time.monotonic() + 5
    while alive(pid) and time.monotonic() < due:
        time.sleep(0.01)
    assert not alive(pid)


def alive(pid):
    """True for a process that runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
