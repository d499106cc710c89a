"""What jtop says, in our units; what it says wrongly or not at all is left out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.telemetry.jtop_source import filled_in, reading_of, trouble_of
from defectd.telemetry.sample import DeviceSample, Frequency

ORIN = {
    "uptime_s": 25219.55,
    "temperature": {
        "cpu": {"temp": 45.312, "online": True},
        "cv0": {"temp": -256, "online": False},
        "gpu": {"temp": 43.281, "online": True},
        "nvme Composite": {"temp": 61.85, "online": True},
        "tj": {"temp": 45.812, "online": True},
    },
    "power": {
        "rail": {
            "VDD_CPU_CV": {"volt": 5000, "curr": 160, "power": 800, "online": True, "avg": 800},
            "VDD_GPU_SOC": {"volt": 5000, "curr": 478, "power": 2390, "online": True, "avg": 2390},
        },
        "tot": {"power": 3190, "avg": 3190},
    },
    "gpu": {
        "ga10b": {
            "type": "integrated",
            "status": {"railgate": False, "load": 52.3},
            "freq": {"governor": "nvhost_podgov", "cur": 612000, "max": 1300500, "min": 306000},
        }
    },
    "cpu": [
        {
            "online": True,
            "governor": "schedutil",
            "freq": {"min": 729600, "max": 2201600, "cur": 2201600},
            "info_freq": {"min": 115200, "max": 2201600, "cur": 2201600},
        },
        {
            "online": True,
            "governor": "schedutil",
            "freq": {"min": 729600, "max": 1190400, "cur": 1036800},
            "info_freq": {"min": 115200, "max": 2201600, "cur": 1036800},
        },
        {"online": False},
    ],
    "memory": {
        "RAM": {"tot": 31457280, "used": 2800188},
        "SWAP": {"tot": 4194304, "used": 2048},
        "EMC": {"cur": 2133000, "max": 3199000},
    },
    "fan": {"pwmfan": {"speed": [30.0], "rpm": [1500], "profile": "quiet"}},
    "power_mode": "MODE_30W",
    "jetson_clocks": False,
}


def sample_of(**changes):
    return reading_of({**ORIN, **changes}, 7, 1.0).sample


def test_a_reading_is_told_in_the_units_of_a_sample():
    reading = reading_of(ORIN, 7, 0.5)
    assert reading.interval_s == 0.5 and reading.jetson_clocks is False
    assert reading.sample == DeviceSample(
        at_ns=7,
        source="jtop",
        temps_c={"cpu": 45.312, "gpu": 43.281, "nvme Composite": 61.85, "tj": 45.812},
        hottest_c=45.812,
        gpu_load=0.523,
        gpu=Frequency(612.0, 306.0, 1300.5, None, "nvhost_podgov"),
        cpu=Frequency(1036.8, 729.6, 1190.4, 2201.6, "schedutil"),
        emc_mhz=2133.0,
        power_w={"VDD_CPU_CV": 0.8, "VDD_GPU_SOC": 2.39},
        total_power_w=3.19,
        fan_rpm=1500.0,
        fan_share=0.3,
        mem_total_mb=30720.0,
        swap_used_mb=2.0,
        power_mode="MODE_30W",
        uptime_s=25219.55,
    )


@pytest.mark.parametrize("celsius", [-256, -256.0, 150.0, 2147483.647, math.nan, None, "45", True])
def test_a_sensor_that_is_off_or_talks_nonsense_is_left_out(celsius):
    sample = sample_of(temperature={"gpu": {"temp": 43.0}, "cv0": {"temp": celsius, "online": False}})
    assert sample.temps_c == {"gpu": 43.0} and sample.hottest_c == 43.0


def test_the_rail_that_measures_the_total_is_a_rail_and_the_total():
    sample = sample_of(
        power={
            "rail": {"VDD_SOC": {"power": 1500, "online": True}},
            "tot": {"power": 5200, "online": True, "name": "VDD_IN"},
        }
    )
    assert sample.power_w == {"VDD_SOC": 1.5, "VDD_IN": 5.2} and sample.total_power_w == 5.2


def test_without_sensors_the_power_is_unknown_and_not_zero():
    sample = sample_of(power={"rail": {}, "tot": {"power": 0, "avg": 0}})
    assert sample.power_w == {} and sample.total_power_w is None


def test_cores_that_are_off_do_not_count_as_slow():
    assert sample_of(cpu=[{"online": False, "freq": {"cur": 100}}]).cpu is None
    assert sample_of(cpu=[{"online": True}]).cpu is None


def test_an_empty_record_is_a_sample_that_knows_nothing():
    assert reading_of({}, 7, 1.0).sample == DeviceSample(at_ns=7, source="jtop")


WORDS = st.sampled_from(sorted({*ORIN, "RAM", "EMC", "cur", "tot", "power", "rail", "temp", "online", "load", "freq"}))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(sorted(ORIN)), JSON))
def test_whatever_jtop_says_nothing_is_raised_and_no_number_is_wild(record):
    sample = reading_of({**ORIN, **record}, 7, 1.0).sample
    assert all(-60 < celsius < 150 for celsius in sample.temps_c.values())
    assert sample.gpu_load is None or 0 <= sample.gpu_load <= 1
    assert all(math.isfinite(watts) and watts >= 0 for watts in sample.power_w.values())


def test_jtop_fills_in_what_only_root_can_read_and_changes_nothing_else():
    own = DeviceSample(at_ns=9, temps_c={"gpu-thermal": 50.0}, hottest_c=50.0, gpu_load=0.0)
    whole = filled_in(own, reading_of(ORIN, 7, 1.0))
    assert whole.emc_mhz == 2133.0 and whole.power_mode == "MODE_30W" and whole.power_w["VDD_GPU_SOC"] == 2.39
    assert (whole.at_ns, whole.source, whole.temps_c, whole.gpu_load) == (9, "sysfs", {"gpu-thermal": 50.0}, 0.0)
    assert whole.throttle == own.throttle


def test_a_sample_without_any_temperature_of_its_own_is_jtops():
    assert filled_in(DeviceSample(at_ns=9), reading_of(ORIN, 7, 1.0)).source == "jtop"
    assert filled_in(DeviceSample(at_ns=9), replace(reading_of({}, 7, 1.0))).temps_c == {}


NOT_ACTIVE = "The jtop.service is not active. Please run:\nsudo jtop --install-service"
NO_ACCESS = "I can't access jtop.service.\nPlease logout or reboot this board."
MISMATCH = "Mismatch version jtop service: [4.3.2] and client: [7.2.2]. Please run:\n\nsudo jtop --install-service"


@pytest.mark.parametrize(
    ("error", "context", "detail", "code", "remedy"),
    [
        ("ModuleNotFoundError", "", "No module named 'jtop'", "not_installed", "pip install 'defectd[jtop]'"),
        ("ModuleNotFoundError", "", "No module named 'smbus2'", "not_installed", "'smbus2'"),
        ("JtopException", "FileNotFoundError", NOT_ACTIVE, "no_service", "sudo systemctl start jtop"),
        ("JtopException", "ConnectionRefusedError", NOT_ACTIVE, "no_service", "sudo systemctl start jtop"),
        ("JtopException", "PermissionError", NO_ACCESS, "no_permission", "usermod -aG jtop"),
        ("JtopException", "", MISMATCH, "version_mismatch", "[4.3.2] and client: [7.2.2]: the first two numbers"),
        ("JtopException", "ValueError", "Mismatch of Python versions between", "refused", "same jetson-stats"),
        ("JtopException", "AuthenticationError", "Authentication with jetson-stats", "refused", "same jetson-stats"),
        ("JtopException", "EOFError", "Lost connection with jtop server", "lost", "systemctl status jtop"),
        ("ConnectionResetError", "", "[Errno 104] Connection reset by peer", "lost", "systemctl status jtop"),
        ("KeyError", "", "'idle'", "failed", "KeyError: 'idle'"),
        ("", "", "", "frozen", "nothing new for 3 s: sudo systemctl restart jtop"),
    ],
)
def test_every_trouble_has_its_name_and_its_remedy(error, context, detail, code, remedy):
    trouble = trouble_of({"error": error, "context": context, "detail": detail}, patience_s=3.0)
    assert trouble.code == code and remedy in trouble.detail and "\n" not in trouble.detail
