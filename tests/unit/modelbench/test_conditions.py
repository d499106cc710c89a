"""The machine, read from files that look like a Jetson's, or like nothing much."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectd.modelbench.conditions import Conditions, Limits, Machine, Sample, samples_of
from support.trees import tree


def write(root: Path, path: str, text: object) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


@pytest.fixture
def xavier(tmp_path: Path) -> Path:
    for core in range(4):
        write(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", 1190400 + core)
        write(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_max_freq", 2201600)
    write(tmp_path, "sys/class/devfreq/17000000.gv11b/cur_freq", 612000000)
    write(tmp_path, "sys/class/devfreq/17000000.gv11b/max_freq", 1300500000)
    for number, (kind, milli) in enumerate((("cpu-thermal", 45312), ("gpu-thermal", 61500), ("PMIC-Die", 100000))):
        write(tmp_path, f"sys/class/thermal/thermal_zone{number}/type", kind)
        write(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", milli)
    for number, (kind, state) in enumerate((("pwm-fan", 2), ("cpu-throttle-alert", 0), ("gpu-throttle-alert", 1))):
        write(tmp_path, f"sys/class/thermal/cooling_device{number}/type", kind)
        write(tmp_path, f"sys/class/thermal/cooling_device{number}/cur_state", state)
    write(tmp_path, "sys/class/hwmon/hwmon2/name", "soctherm_oc")
    for number in (1, 2, 3):
        write(tmp_path, f"sys/class/hwmon/hwmon2/oc{number}_event_cnt", number)
        write(tmp_path, f"sys/class/hwmon/hwmon2/oc{number}_throt_en", 1)
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0002")
    write(tmp_path, "proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1")
    write(tmp_path, "proc/pressure/cpu", "some avg10=1.06 avg60=2.65 avg300=3.42 total=5000000")
    return tmp_path


def test_a_jetson_tells_its_clocks_its_heat_and_what_throttles(xavier: Path) -> None:
    machine = Machine(xavier)
    assert machine.limits() == Limits(2201.6, 1300.5, 2, "cpufreq", "mode 2", 4)
    assert machine.cpu_mhz() == (1190.4, 1190.401, 1190.402, 1190.403)
    assert (machine.gpu_mhz(), machine.hottest_c(), machine.throttled(), machine.overcurrents()) == (
        612,
        61.5,
        ("gpu",),
        6,
    )


def test_a_zone_that_is_power_gated_is_left_out(xavier: Path) -> None:
    (xavier / "sys/class/thermal/thermal_zone1/temp").write_text("")
    assert Machine(xavier).hottest_c() == 45.312


@pytest.mark.parametrize("platform", ["agx-orin-jp6", "agx-xavier", "thor"])
def test_every_jetson_tells_what_telemetry_reads_of_it(tmp_path: Path, platform: str) -> None:
    tree(tmp_path / "machine", platform)
    machine = Machine(tmp_path / "machine")
    limits = machine.limits()
    assert limits.gpu_mhz is not None and machine.gpu_mhz() is not None and machine.gpu_mhz() <= limits.gpu_mhz
    assert machine.hottest_c() is not None and 30 < machine.hottest_c() < 60
    assert (limits.power_mode, machine.throttled()) == ("MAXN", ())


def test_shares_are_of_the_time_since_the_sample_before(xavier: Path) -> None:
    now = iter([10.0, 10.0, 12.0])
    samples = samples_of(Machine(xavier), lambda: next(now))
    assert next(samples).busy is None
    write(xavier, "proc/stat", "cpu  250 0 100 850 0 0 0 200 0 0")
    write(xavier, "proc/pressure/cpu", "some avg10=1.06 avg60=2.65 avg300=3.42 total=5500000")
    write(xavier, "sys/class/hwmon/hwmon2/oc3_event_cnt", 30)
    sample = next(samples)
    assert sample.at_s == 12.0
    assert (sample.busy, sample.stolen, sample.waiting, sample.overcurrents) == (0.375, 0.5, 0.25, 33)


def test_a_machine_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    now = iter([0.0, 0.5])
    assert next(samples_of(machine, lambda: next(now))) == Sample(0.5)
    assert machine.limits() == Limits(cpu_source="/proc/cpuinfo")


def test_a_virtual_machine_is_said_to_be_one(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "cpu MHz\t\t: 2596.140\nflags\t: fpu hypervisor\n\ncpu MHz\t\t: 2596.140")
    machine = Machine(tmp_path)
    assert machine.cpu_mhz() == (2596.14, 2596.14)
    assert "virtual machine" in machine.limits().cpu_source


def test_events_are_counted_during_the_run_only() -> None:
    samples = [Sample(0.0, overcurrents=27390), Sample(1.0), Sample(2.0, overcurrents=27393, throttled=("gpu", "cpu"))]
    conditions = Conditions(samples=tuple(samples))
    assert (conditions.overcurrents, conditions.throttled) == (3, ("cpu", "gpu"))
    assert Conditions(samples=(Sample(0.0),)).overcurrents is None
