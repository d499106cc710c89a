"""Files that do not answer: a pipe into which nobody writes hangs whoever opens it, as a driver may."""

from __future__ import annotations

import os
import threading
import time

import pytest

from defectd.telemetry.sysfs import Sysfs
from support import trees
from support.trees import tree, zone_file

_PATIENCE_S = 0.25


@pytest.fixture
def machine(tmp_path):
    """Its roots, and a reader with little patience."""
    roots = tree(tmp_path / "machine", "agx-orin-jp6")
    return roots, Sysfs(roots, tmp_path, patience_s=_PATIENCE_S)


@pytest.fixture
def clog():
    """Make a file hang; what it gives back makes it answer."""
    pipes = []

    def clogged(path):
        path.unlink()
        os.mkfifo(path)
        pipes.append(path)
        return lambda: unclog(path)

    yield clogged
    for path in pipes:
        unclog(path)
    for thread in readers():
        thread.join(5)


def unclog(path):
    """Whoever waits reads the end of the file; the next one finds a file."""
    if path.is_fifo():
        pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        temporary = path.with_name("answers")
        temporary.write_text("50000\n")
        temporary.replace(path)
        os.close(pipe)


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "telemetry-read"]


def timed(sysfs):
    start = time.monotonic()
    sample = sysfs.read()
    return sample, time.monotonic() - start


def test_a_read_ends_its_thread(machine):
    _, sysfs = machine
    assert sysfs.read().hottest_c == 45.312
    assert readers() == []


def test_a_stuck_file_costs_one_short_wait_and_then_only_itself(machine, clog):
    roots, sysfs = machine
    clog(trees.hwmon(roots, "ina3221") / "curr2_input")
    sample, took_s = timed(sysfs)
    assert _PATIENCE_S <= took_s < 5 * _PATIENCE_S
    assert sample.hottest_c == 45.312  # was read before
    assert sample.power_w == {}
    sample, took_s = timed(sysfs)
    assert took_s < _PATIENCE_S
    assert set(sample.power_w) == {"VDD_GPU_SOC", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
    assert sample.mem_total_mb == 30536
    assert sysfs.silent == (str(roots.sys / "class/hwmon/hwmon1/curr2_input"),)
    assert len(readers()) == 1


def test_a_stuck_file_is_read_again_once_it_has_answered(machine, clog):
    roots, sysfs = machine
    answer = clog(zone_file(roots, "gpu-thermal"))
    sysfs.read()
    assert "gpu-thermal" not in sysfs.read().temps_c
    answer()
    for thread in readers():
        thread.join(5)
    assert sysfs.read().temps_c["gpu-thermal"] == 50.0
    assert sysfs.silent == ()


def test_a_file_that_hangs_three_times_is_left_out_for_good(machine, clog):
    roots, sysfs = machine
    temp = zone_file(roots, "gpu-thermal")
    for _ in range(3):
        answer = clog(temp)
        sysfs.read()
        answer()
        for thread in readers():
            thread.join(5)
    assert sysfs.silent == (str(temp),)
    assert "gpu-thermal" not in sysfs.read().temps_c


def test_whatever_hangs_a_machine_full_of_stuck_files_is_given_up_quickly(machine, clog):
    roots, sysfs = machine
    for zone in list(roots.sys.glob("class/thermal/thermal_zone*/temp")):
        clog(zone)
    clog(roots.proc / "meminfo")
    for _ in range(12):
        sample, took_s = timed(sysfs)
        assert took_s < 5 * _PATIENCE_S
    assert len(readers()) == 8
    assert sample.hottest_c is None


def test_files_that_are_slow_but_not_stuck_end_the_sample_and_are_not_blamed(tmp_path):
    roots = tree(tmp_path / "machine", "agx-orin-jp6")
    sysfs = Sysfs(roots, tmp_path, patience_s=5, total_s=0.005)  # the load alone takes 20 ms
    sample, took_s = timed(sysfs)
    assert took_s < 1
    assert sample.fan_rpm is None
    assert sysfs.silent == ()
    for thread in readers():
        thread.join(5)


def test_an_error_of_our_own_does_not_end_the_samples(tmp_path, caplog):
    roots = tree(tmp_path / "machine", "agx-orin-jp6")

    def names():
        raise RuntimeError("a worker's table that is being changed")

    sysfs = Sysfs(roots, tmp_path, names)
    for _ in range(3):
        assert sysfs.read().hottest_c == 45.312
    assert len([record for record in caplog.records if "cannot be read in full" in record.message]) == 1
