"""jtop in a process that is thrown away: the real service on a simulated Jetson, and processes that misbehave.

The simulated Jetson is a tree and two scripts in $DEFECTD_JETSON_SIM: make-tree.sh writes the tree, enter-rootless.sh
puts it over /sys, /etc and /run in a namespace of its own. Service and client are jetson-stats itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from defectd.clock import Backoff
from defectd.telemetry.jtop_source import JtopSource
from defectd.telemetry.sample import Roots
from defectd.telemetry.sysfs import Sysfs
from support.jetson import jetson as simulated_jetson
from support.proving import Skipped

INTERVAL_S = 0.5
CHILD = (sys.executable, "-m", "defectd.telemetry.jtop_child")


@pytest.fixture
def stopped_jetson(tmp_path):
    with contextlib.ExitStack() as stack:
        try:
            simulated = stack.enter_context(simulated_jetson(tmp_path, started=False))
        except Skipped as skipped:
            pytest.skip(str(skipped))
        yield simulated


@pytest.fixture
def jetson(stopped_jetson):
    stopped_jetson.start()
    return stopped_jetson


class Watched:
    """A source that is asked as the sampler asks, and how long it kept the sampler waiting."""

    def __init__(self, command, interval_s=INTERVAL_S, start_s=20.0):
        self.source = JtopSource(interval_s, start_s=start_s, backoff=Backoff(0.4, 0.4), command=command)
        self.longest_s = 0.0
        self.troubles = []

    def ask(self):
        before = time.monotonic()
        reading = self.source.latest()
        self.longest_s = max(self.longest_s, time.monotonic() - before)
        code = self.source.trouble_code
        if code and (not self.troubles or self.troubles[-1] != code):
            self.troubles.append(code)
        return reading

    def until(self, condition, timeout_s=40.0):
        """Ask until `condition(reading)` holds; the reading."""
        due = time.monotonic() + timeout_s
        while time.monotonic() < due:
            reading = self.ask()
            if condition(reading):
                return reading
            time.sleep(0.02)
        raise AssertionError(f"not within {timeout_s} s; troubles: {self.troubles}, {self.source.trouble}")

    def until_trouble(self, code):
        self.until(lambda _: self.source.trouble_code == code)
        assert self.source.latest() is None

    def reading(self):
        return self.until(lambda reading: reading is not None)


@pytest.fixture
def watch():
    started = []

    def watch(command, **options):
        started.append(Watched(command, **options))
        return started[-1]

    yield watch
    for watched in started:
        watched.source.stop()
        assert watched.longest_s < 1.0, "latest() kept the sampler waiting"


def inside(jetson, *command):
    return (*jetson.inside, *(command or CHILD))


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition, timeout_s=15.0):
    due = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < due, f"not within {timeout_s} s"
        time.sleep(0.02)


# The real service and client


def test_jtop_and_sysfs_say_the_same_of_the_same_machine(jetson, watch, tmp_path):
    watched = watch(inside(jetson))
    by_jtop = watched.reading().sample
    by_sysfs = Sysfs(Roots(sys=jetson.tree / "sys", etc=jetson.tree / "etc"), tmp_path).read()
    assert by_jtop.temps_c == {zone.split("-")[0]: celsius for zone, celsius in by_sysfs.temps_c.items()}
    assert len(by_jtop.temps_c) == 6 and by_jtop.hottest_c == by_sysfs.hottest_c == 45.312
    assert by_jtop.gpu_load == by_sysfs.gpu_load == 0.523
    for name in ("current_mhz", "min_mhz", "max_mhz", "governor"):
        assert getattr(by_jtop.gpu, name) == getattr(by_sysfs.gpu, name) is not None
    assert by_jtop.cpu == by_sysfs.cpu and by_jtop.cpu.hardware_max_mhz == 2201.6
    assert by_jtop.emc_mhz == by_sysfs.emc_mhz == 2133.0  # the tree is ours: here sysfs may read it, too
    assert by_jtop.power_w == pytest.approx(by_sysfs.power_w) and len(by_jtop.power_w) == 3
    assert by_jtop.total_power_w == pytest.approx(by_sysfs.total_power_w) == pytest.approx(6.71)
    assert by_jtop.fan_rpm == by_sysfs.fan_rpm == 1500 and by_jtop.fan_share == pytest.approx(by_sysfs.fan_share)
    assert by_jtop.mem_total_mb == by_sysfs.mem_total_mb and by_jtop.swap_used_mb == by_sysfs.swap_used_mb
    assert by_jtop.uptime_s == pytest.approx(by_sysfs.uptime_s, abs=5)
    assert by_jtop.power_mode == "MAXN"
    assert watched.troubles == []


def test_heat_is_followed_and_a_sensor_that_goes_off_is_left_out(jetson, watch):
    watched = watch(inside(jetson))
    watched.reading()
    jetson.write("devices/virtual/thermal/thermal_zone1/temp", "97500")
    reading = watched.until(lambda reading: reading is not None and reading.sample.hottest_c == 97.5)
    assert reading.sample.temps_c["gpu"] == 97.5
    jetson.write("devices/virtual/thermal/thermal_zone1/temp", "-256000")
    reading = watched.until(lambda reading: reading is not None and "gpu" not in reading.sample.temps_c)
    assert reading.sample.hottest_c == 45.312


def test_a_service_that_freezes_is_noticed_and_read_again_when_it_thaws(jetson, watch):
    watched = watch(inside(jetson))
    watched.reading()
    pid = watched.source.pid
    jetson.signal(signal.SIGSTOP)
    watched.until_trouble("frozen")
    assert "sudo systemctl restart jtop" in watched.source.trouble
    wait_until(lambda: gone(pid))
    jetson.signal(signal.SIGCONT)
    watched.reading()
    assert watched.source.trouble is None


def test_connecting_to_a_frozen_service_hangs_in_the_child_only(jetson, watch):
    jetson.signal(signal.SIGSTOP)
    watched = watch(inside(jetson), start_s=3.0)
    watched.until_trouble("frozen")
    jetson.signal(signal.SIGCONT)
    watched.reading()


def test_a_service_that_is_killed_is_missed_and_read_again_when_it_is_back(jetson, watch):
    watched = watch(inside(jetson))
    watched.reading()
    jetson.kill()
    watched.until_trouble("no_service")
    assert watched.troubles[0] in ("lost", "no_service")
    jetson.start()
    watched.reading()
    assert watched.source.trouble is None


def test_a_service_that_repeats_itself_gives_no_readings(jetson, watch):
    """`nvpmodel -q` hangs: the service still answers, with the values of before."""
    watched = watch(inside(jetson))
    watched.reading()
    (jetson.tree / "bin/nvpmodel").write_text("#!/bin/sh\nexec sleep 30\n")
    watched.until_trouble("frozen")
    asked_until = time.monotonic() + 8 * INTERVAL_S
    while time.monotonic() < asked_until:  # new clients are given the same old values
        assert watched.ask() is None
        time.sleep(0.02)


def test_without_the_service_it_says_how_to_start_it(stopped_jetson, watch):
    watched = watch(inside(stopped_jetson))
    watched.until_trouble("no_service")
    assert "sudo systemctl start jtop" in watched.source.trouble


def test_a_user_who_may_not_is_told_of_the_group(jetson, watch):
    subprocess.run([*jetson.inside, "chmod", "0", "/run/jtop.sock"], check=True, timeout=10)
    # without root's right to pass over permissions
    watched = watch(inside(jetson, "setpriv", "--bounding-set=-all", "--inh-caps=-all", *CHILD))
    watched.until_trouble("no_permission")
    assert "sudo usermod -aG jtop" in watched.source.trouble


def test_a_client_of_another_version_is_told_both(jetson, watch, tmp_path, monkeypatch):
    package = Path(importlib.util.find_spec("jtop").origin).parent
    shutil.copytree(package, tmp_path / "other/jtop")
    version = tmp_path / "other/jtop/__init__.py"
    theirs = next(line for line in version.read_text().splitlines() if line.startswith("__version__"))
    version.write_text(version.read_text().replace(theirs, '__version__ = "4.1.0"'))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'other'}:{os.environ['PYTHONPATH']}")
    watched = watch(inside(jetson))
    watched.until_trouble("version_mismatch")
    assert f"[{theirs.split(chr(34))[1]}] and client: [4.1.0]" in watched.source.trouble


def test_whoever_came_first_decides_how_often_and_that_is_no_silence(jetson, watch):
    first = watch(inside(jetson), interval_s=1.5)
    first.reading()
    second = watch(inside(jetson), interval_s=0.3)
    for _ in range(2):
        at_ns = second.reading().sample.at_ns
        second.until(lambda reading, at_ns=at_ns: reading is not None and reading.sample.at_ns > at_ns)
        first.ask()
    assert second.source.latest().interval_s == 1.5 and second.troubles == []


# Without jtop


def test_where_jetson_stats_is_missing_it_says_how_to_get_it(watch):
    watched = watch((sys.executable, "-S", "-m", "defectd.telemetry.jtop_child"))  # -S: without what pip installs
    watched.until_trouble("not_installed")
    assert "pip install 'defectd[jtop]'" in watched.source.trouble


def program(text):
    return sys.executable, "-c", text


HANGS = "import time; time.sleep(600)"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (program(HANGS), "frozen"),
        (program(f"import os, signal; os.kill(os.getpid(), signal.SIGSTOP); {HANGS}"), "frozen"),
        (program("print('warming up')"), "failed"),
        (program("print('[' * 100_000)"), "failed"),
        (program("import sys; sys.stdout.buffer.write(bytes(range(128, 256)) + b'\\n')"), "failed"),
        (program("while True: print('x' * 65536, end='')"), "failed"),
        (program("pass"), "failed"),
        (program("import os; os.abort()"), "failed"),
        (("/does/not/exist",), "no_process"),
    ],
    ids=["silent", "stopped", "words", "nested", "bytes", "endless", "ends", "aborts", "missing"],
)
def test_a_process_that_misbehaves_is_ended_and_another_one_tried(watch, command, code):
    watched = watch(command, start_s=1.0)
    watched.until_trouble(code)
    first = watched.source.pid
    watched.until(lambda _: code == "no_process" or watched.source.pid not in (None, first))
    assert first is None or gone(first)


def test_a_process_that_never_stops_talking_is_heard_without_blocking(watch):
    talks = """
import json, time
while True:
    print(json.dumps({"reading": {"uptime_s": 5}, "at_ns": time.monotonic_ns()}), flush=True)
"""
    watched = watch(program(talks))
    assert watched.reading().sample.uptime_s == 5
    for _ in range(20):
        watched.ask()
    assert watched.troubles == []


def test_an_old_reading_is_not_the_latest(watch):
    once = f"""
import json, time
print(json.dumps({{"reading": {{}}, "at_ns": time.monotonic_ns()}}), flush=True)
{HANGS}
"""
    watched = watch(program(once), interval_s=0.2)
    watched.reading()
    time.sleep(0.7)  # nobody asks meanwhile
    assert watched.source.latest() is None


def test_after_a_stop_no_process_is_left_nor_anything_that_it_started(watch, tmp_path):
    note = tmp_path / "pid"
    starts = f"import subprocess; p = subprocess.Popen(['sleep', '600']); open({str(note)!r}, 'w').write(str(p.pid))"
    watched = watch(program(f"{starts}; p.wait()"))
    watched.until(lambda _: note.exists() and note.read_text() != "")
    pid = watched.source.pid
    watched.source.stop()
    wait_until(lambda: gone(pid) and gone(int(note.read_text())))
    assert watched.source.latest() is None and watched.source.pid is None


def test_the_child_dies_with_a_daemon_that_is_killed(tmp_path):
    (tmp_path / "jtop.py").write_text(f"print('jtop prints this', flush=True)\n{HANGS}\n")  # as if it hung at once
    daemon = subprocess.Popen(
        [sys.executable, "-c", """
import time
from defectd.telemetry.jtop_source import JtopSource
source = JtopSource()
source.latest()
print(source.pid, flush=True)
time.sleep(600)
"""],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ['PYTHONPATH']}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with daemon, contextlib.ExitStack() as stack:
        stack.callback(daemon.kill)
        pid = int(daemon.stdout.readline())
        assert daemon.stderr.readline() == b"jtop prints this\n"  # not into the records
        assert not gone(pid)
        daemon.kill()
        wait_until(lambda: gone(pid))
