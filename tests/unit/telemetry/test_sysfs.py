"""One look at machines of every kind, and at what their files say when they do not tell the truth."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from defectd.telemetry.files import Files
from defectd.telemetry.sample import DeviceSample, Roots
from defectd.telemetry.sysfs import Surveyor
from support import trees
from support.tree_shapes import SHAPES
from support.trees import tree


class Machine:
    """A tree and who reads it; time does not pass."""

    def __init__(self, directory, platform):
        self.roots = tree(directory / "machine", platform)
        self.pauses = []
        self.surveyor = Surveyor(self.roots, directory, pause=self.pauses.append, ask_kernel=lambda: True)

    def read(self):
        return self.surveyor.read()


@pytest.fixture
def orin(tmp_path):
    return Machine(tmp_path, "agx-orin-jp6")


@pytest.fixture
def nano(tmp_path):
    return Machine(tmp_path, "orin-nano")


# -- every machine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", SHAPES)
def test_an_idle_machine_is_cool_unthrottled_and_tells_its_memory(tmp_path, platform):
    sample = Machine(tmp_path, platform).read()
    assert sample.source == "sysfs"
    assert 41 < sample.hottest_c < 52
    assert not any((sample.throttle.alerts, sample.throttle.capped, sample.throttle.crit_alarms))
    assert sample.mem_total_mb == SHAPES[platform].memory_mb
    assert sample.mem_available_mb == SHAPES[platform].memory_mb // 2
    assert sample.uptime_s == 3605.12
    assert sample.disk_total_mb >= sample.disk_free_mb > 0
    assert sample.disk_wear == 0.2
    assert sample.clock_synced is True
    assert sample.cpu.governor == "schedutil"
    assert sample.rss_mb == {"daemon": pytest.approx(20, abs=0.1)}


@pytest.mark.parametrize("platform", [platform for platform in SHAPES if platform != "pc"])
def test_a_jetson_tells_its_gpu_power_fan_and_mode(tmp_path, platform):
    shape, sample = SHAPES[platform], Machine(tmp_path, platform).read()
    assert sample.gpu.current_mhz == shape.gpu_hz[0] / 1e6
    assert sample.gpu.hardware_max_mhz == shape.gpu_hz[-1] / 1e6
    assert sample.gpu_load == (0.0 if shape.has_load else None)
    assert {label for label, _, _ in shape.rails} <= set(sample.power_w)
    assert sample.fan_rpm == 1500
    assert sample.fan_share == pytest.approx(0.302, abs=0.001)
    assert sample.nvmap_mb == 312
    assert sample.power_mode == next(iter(shape.modes))


def test_a_pc_tells_what_it_has_and_nothing_else(tmp_path):
    sample = Machine(tmp_path, "pc").read()
    assert sample.temps_c == {"acpitz": 27.8, "x86_pkg_temp": 51.0}
    assert sample.cpu.hardware_max_mhz == 4700
    nothing = DeviceSample(at_ns=0)
    for field in ("gpu", "gpu_load", "emc_mhz", "power_w", "total_power_w", "nvmap_mb", "power_mode", "throttle"):
        assert getattr(sample, field) == getattr(nothing, field)


def test_a_machine_that_tells_nothing_is_no_error(tmp_path):
    roots = Roots(*(tmp_path / name for name in ("sys", "proc", "etc", "var")))
    sample = Surveyor(roots, tmp_path / "gone", ask_kernel=lambda: None).read()
    assert sample == DeviceSample(at_ns=sample.at_ns)


def test_this_machine_is_read_without_an_error(tmp_path):
    sample = Surveyor(Roots(), tmp_path).read()
    assert sample.mem_available_mb > 0
    assert sample.rss_mb["daemon"] > 1


# -- heat --------------------------------------------------------------------------------------------------------


def test_the_hottest_zone_is_followed(orin):
    assert orin.read().hottest_c == 45.312
    trees.set_temp(orin.roots, "gpu-thermal", 96.5)
    sample = orin.read()
    assert sample.hottest_c == 96.5
    assert sample.temps_c["gpu-thermal"] == 96.5


@pytest.mark.parametrize("nonsense", [-256.0, 150.0, 2147483.647, -1000.0, None])
def test_a_zone_that_talks_nonsense_is_left_out(orin, nonsense):
    trees.set_temp(orin.roots, "tj-thermal", nonsense)
    assert "tj-thermal" not in orin.read().temps_c


def test_a_zone_that_answers_with_an_error_is_left_out_until_it_answers(orin):
    """As the zone of a GPU that is switched off."""
    temp = trees.zone_file(orin.roots, "gpu-thermal")
    orin.read()
    temp.unlink()
    temp.mkdir()
    assert "gpu-thermal" not in orin.read().temps_c
    temp.rmdir()
    trees.set_temp(orin.roots, "gpu-thermal", 50.0)
    assert orin.read().temps_c["gpu-thermal"] == 50.0


def test_the_zone_of_a_xavier_that_always_has_100_degrees_is_left_out(tmp_path):
    sample = Machine(tmp_path, "agx-xavier").read()
    assert "PMIC-Die" not in sample.temps_c
    assert sample.hottest_c == 41.5


def test_of_two_zones_of_the_same_type_the_hotter_one_counts(orin):
    trees.add_zone(orin.roots, "tj-thermal", 60.0)
    assert orin.read().temps_c["tj-thermal"] == 60.0


def test_where_all_zones_are_off_the_temperature_is_unknown(orin):
    for zone in SHAPES["agx-orin-jp6"].zones:
        trees.set_temp(orin.roots, zone, None)
    assert orin.read().hottest_c is None


# -- throttling --------------------------------------------------------------------------------------------------


def test_an_active_alert_names_its_domain_and_the_fan_is_none(orin):
    trees.set_throttle(orin.roots, "gpu")
    trees.set_throttle(orin.roots, "soc2")
    (orin.roots.sys / "class/thermal/cooling_device0/cur_state").write_text("2\n")  # pwm-fan
    assert orin.read().throttle.alerts == ("gpu", "soc2")
    trees.set_throttle(orin.roots, "gpu", False)
    assert orin.read().throttle.alerts == ("soc2",)


def test_over_current_events_are_counters_and_enabled_is_no_event(orin):
    assert orin.read().throttle.oc_events == {"oc1": 0, "oc2": 0, "oc3": 0}
    trees.set_over_current(orin.roots, "oc3", 27390)
    assert orin.read().throttle.oc_events["oc3"] == 27390


def test_a_rail_over_its_critical_current_is_named(orin):
    trees.set_crit_alarm(orin.roots, "VDD_GPU_SOC")
    assert orin.read().throttle.crit_alarms == ("VDD_GPU_SOC",)


def test_a_clock_below_what_the_power_mode_allows_is_capped(orin):
    trees.set_gpu_clock(orin.roots, max_mhz=816)
    assert orin.read().throttle.capped == ("gpu",)
    trees.set_cpu_clock(orin.roots, 8, max_mhz=1728)
    assert orin.read().throttle.capped == ("gpu", "cpu")


def test_a_clock_at_its_power_modes_limit_is_not_capped(orin):
    trees.set_mode(orin.roots, 1)
    trees.set_gpu_clock(orin.roots, max_mhz=306)  # the step below the 408 MHz that the mode writes
    trees.set_cpu_clock(orin.roots, max_mhz=1113.6)
    sample = orin.read()
    assert sample.power_mode == "MODE_15W"
    assert sample.throttle.capped == ()
    assert sample.gpu.max_mhz == 306


def test_in_a_mode_that_the_configuration_does_not_know_nothing_is_capped(orin):
    trees.set_mode(orin.roots, 9)
    trees.set_gpu_clock(orin.roots, max_mhz=306)
    sample = orin.read()
    assert sample.power_mode == "mode 9"
    assert sample.throttle.capped == ()


def test_without_a_power_mode_nothing_is_capped(tmp_path):
    pc = Machine(tmp_path, "pc")
    trees.set_cpu_clock(pc.roots, max_mhz=800)
    assert pc.read().throttle.capped == ()


# -- clocks, load, power -----------------------------------------------------------------------------------------


def test_the_cpu_is_its_slowest_cluster(orin):
    trees.set_cpu_clock(orin.roots, current_mhz=2201.6)
    trees.set_cpu_clock(orin.roots, 4, current_mhz=115.2, max_mhz=1728)
    cpu = orin.read().cpu
    assert (cpu.current_mhz, cpu.max_mhz, cpu.hardware_max_mhz) == (115.2, 1728, 2201.6)


def test_a_cluster_that_is_switched_off_is_not_the_slowest(orin):
    (orin.roots.sys / "devices/system/cpu/cpufreq/policy8/scaling_cur_freq").write_text("<unknown>\n")
    assert orin.read().cpu.current_mhz == 729.6


def test_the_gpus_load_is_averaged_because_it_jumps(orin):
    loads = iter([0.0, 1.0, 0.5, 1.0])
    trees.set_load(orin.roots, 1.0)
    orin.surveyor._pause = lambda seconds: trees.set_load(orin.roots, next(loads))
    assert orin.read().gpu_load == pytest.approx(0.7)


def test_without_a_load_nobody_waits_for_it(tmp_path):
    pc = Machine(tmp_path, "pc")
    pc.read()
    assert pc.pauses == []


def test_power_is_by_rail_and_channels_that_are_no_rails_are_left_out(orin):
    sample = orin.read()
    assert sample.power_w == pytest.approx(
        {"VDD_GPU_SOC": 2.39, "VDD_CPU_CV": 0.8, "VIN_SYS_5V0": 3.52, "VDDQ_VDD2_1V8AO": 0.3}
    )


def test_the_total_counts_each_part_once(orin):
    """VIN_SYS_5V0 feeds VDDQ_VDD2_1V8AO."""
    assert orin.read().total_power_w == pytest.approx(2.39 + 0.8 + 3.52)


def test_the_total_of_a_nano_is_its_input(nano):
    assert nano.read().total_power_w == pytest.approx(5.08 * 0.9)


def test_a_total_without_one_of_its_parts_is_unknown(orin):
    (trees.hwmon(orin.roots, "ina3221") / "curr2_input").write_text("\n")
    sample = orin.read()
    assert "VDD_CPU_CV" not in sample.power_w
    assert sample.total_power_w is None


def test_the_numbers_of_hwmon_may_change(orin):
    before = orin.read()
    hwmon = orin.roots.sys / "class/hwmon"
    for number in reversed(range(len(list(hwmon.iterdir())))):
        (hwmon / f"hwmon{number}").rename(hwmon / f"hwmon{number + 7}")
    assert orin.read().power_w == {}
    orin.surveyor._looked_ns = 0  # as a few seconds later
    after = orin.read()
    assert replace(after, at_ns=0, disk_free_mb=0) == replace(before, at_ns=0, disk_free_mb=0)


def test_what_is_not_there_is_not_looked_for_at_every_sample(orin):
    (orin.roots.var / "lib/nvpmodel/status").unlink()
    orin.read()
    assert orin.read().power_mode is None
    assert not orin.surveyor.files.vanished


def test_a_sample_opens_few_files_once_it_is_known_where_they_are(orin):
    class Counting(Files):
        opened = 0

        def text(self, path):
            self.opened += 1
            return super().text(path)

    files = orin.surveyor.files = Counting()
    orin.read()
    files.opened = 0
    orin.read()
    assert files.opened < 60


# -- memory, flash -----------------------------------------------------------------------------------------------


def test_memory_that_a_new_process_could_have_and_swap_in_use(nano):
    trees.set_memory(nano.roots, available_mb=900, total_mb=7620, nvmap_mb=2048, swap_used_mb=700)
    sample = nano.read()
    assert (sample.mem_available_mb, sample.nvmap_mb, sample.swap_used_mb) == (900, 2048, 700)


@pytest.mark.parametrize(
    ("life_time", "wear"),
    [("0x01 0x01", 0.1), ("0x03 0x0a", 1.0), ("0x0b 0x01", 1.1), ("0x00 0x00", None), ("", None), ("worn", None)],
)
def test_the_wear_of_an_emmc_is_the_worse_of_its_two_kinds_of_cells(orin, life_time, wear):
    next(orin.roots.sys.glob("devices/platform/*.mmc/**/life_time")).write_text(f"{life_time}\n")
    assert orin.read().disk_wear == wear


def test_the_wear_of_another_disk_is_not_told(orin):
    for link in (orin.roots.sys / "dev/block").iterdir():
        link.unlink()
    assert orin.read().disk_wear is None


def test_below_an_encrypted_file_system_is_the_disk(orin):
    (link,) = (orin.roots.sys / "dev/block").iterdir()
    partition = os.readlink(link)
    link.unlink()
    mapped = orin.roots.sys / "devices/virtual/block/dm-0"
    (mapped / "slaves").mkdir(parents=True)
    (mapped / "slaves/mmcblk0p1").symlink_to(partition)
    link.symlink_to(mapped)
    assert orin.read().disk_wear == 0.2
