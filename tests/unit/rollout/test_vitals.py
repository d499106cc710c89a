"""Memory and temperature, read from files that look like a Jetson's, or like nothing much."""

from __future__ import annotations

import os

import pytest

from defectd.rollout.vitals import Vitals, read_vitals


@pytest.fixture
def machine(tmp_path):
    """`proc` and `sys` of an Orin."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 7990000 kB\nMemFree: 100000 kB\nMemAvailable:  2097152 kB\n")
    zone(tmp_path, 0, "cpu-thermal", "48500")
    zone(tmp_path, 1, "gpu-thermal", "51312")
    return tmp_path


def zone(machine, number, kind, temp):
    """A thermal zone; *temp* is the text of its file, None for none."""
    folder = machine / f"sys/class/thermal/thermal_zone{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type").write_text(f"{kind}\n")
    if temp is not None:
        (folder / "temp").write_text(f"{temp}\n")


def vitals_of(machine):
    return read_vitals(machine / "proc", machine / "sys")


def test_memory_is_what_a_new_process_could_have_and_heat_that_of_the_hottest_zone(machine):
    assert vitals_of(machine) == Vitals(free_mb=2048, hottest_c=51.312)


@pytest.mark.parametrize("nonsense", ["-256000", "150000", "2147483647", "-1000000", "", "warm", None])
def test_a_zone_that_talks_nonsense_is_left_out(machine, nonsense):
    zone(machine, 2, "cv0-thermal", nonsense)
    assert vitals_of(machine).hottest_c == 51.312


def test_a_zone_that_is_always_the_same_is_left_out(machine):
    zone(machine, 2, "PMIC-Die", "100000")
    assert vitals_of(machine).hottest_c == 51.312


def test_the_zone_of_a_gpu_that_is_off_is_left_out(machine):
    """It answers EAGAIN; so does a pipe into which nobody has written."""
    temp = machine / "sys/class/thermal/thermal_zone1/temp"
    temp.unlink()
    os.mkfifo(temp)
    writer = os.open(temp, os.O_RDWR)
    try:
        assert vitals_of(machine).hottest_c == 48.5
    finally:
        os.close(writer)


def test_a_frozen_machine_is_cold_and_not_silent(machine):
    for number in (0, 1):
        zone(machine, number, "cpu-thermal", "-20500")
    assert vitals_of(machine).hottest_c == -20.5


def test_where_all_zones_are_off_the_temperature_is_unknown(machine):
    for number in (0, 1):
        zone(machine, number, "cpu-thermal", "-256000")
    assert vitals_of(machine).hottest_c is None


def test_a_machine_that_tells_nothing_is_no_error(tmp_path):
    assert vitals_of(tmp_path) == Vitals(None, None)


def test_this_machine_says_how_much_memory_it_has():
    free_mb = read_vitals().free_mb
    assert free_mb is not None
    assert free_mb > 0


def test_the_worse_of_two_is_the_least_memory_and_the_highest_temperature():
    assert Vitals(300, 60.0).or_worse(Vitals(200, 50.0)) == Vitals(200, 60.0)
    assert Vitals(None, 60.0).or_worse(Vitals(200, None)) == Vitals(200, 60.0)
    assert Vitals().or_worse(Vitals()) == Vitals(None, None)


def test_what_is_within_bounds_or_unknown_is_no_reason():
    for vitals in (Vitals(256, 95.0), Vitals()):
        assert vitals.lacks_memory(256) is None
        assert vitals.is_too_hot(95) is None


def test_a_reason_says_the_figure_the_bound_and_the_key():
    vitals = Vitals(255, 95.1)
    assert vitals.lacks_memory(256) == "255 MB of memory are available, 256 MB must be (min_free_mb)"
    assert vitals.is_too_hot(95) == "the hottest zone has 95.1 °C, 95 °C are allowed (max_temp_c); look at the fan"
