"""Which machine this is, and which power mode it is in."""

from __future__ import annotations

import shutil

import pytest

from defectd.telemetry.files import Files
from defectd.telemetry.platforms import platform_of, read_board
from defectd.telemetry.power_mode import NO_LIMIT, PowerMode, parse_power_modes
from defectd.telemetry.sample import Board, Roots
from support import trees
from support.tree_shapes import SHAPES
from support.trees import tree

PLATFORM = {
    "agx-orin-jp5": "orin",
    "agx-orin-jp6": "orin",
    "agx-orin-jp7": "orin",
    "orin-nano": "orin",
    "agx-xavier": "xavier",
    "thor": "thor",
    "pc": "pc",
}


@pytest.mark.parametrize("platform", SHAPES)
def test_a_machine_is_known_by_its_chip(tmp_path, platform):
    assert read_board(tree(tmp_path / "machine", platform)).platform == PLATFORM[platform]


@pytest.mark.parametrize("platform", SHAPES)
def test_in_a_container_that_hides_the_device_tree_it_is_known_by_its_gpu(tmp_path, platform):
    roots = tree(tmp_path / "machine", platform)
    shutil.rmtree(roots.proc / "device-tree", ignore_errors=True)
    assert platform_of(roots, Files()).name == PLATFORM[platform]


def test_a_board_is_its_model_release_and_mode(tmp_path):
    board = read_board(tree(tmp_path / "machine", "agx-orin-jp6"))
    assert board == Board("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3", "orin", "MAXN")


def test_a_pc_is_called_what_its_firmware_calls_it(tmp_path):
    assert read_board(tree(tmp_path / "machine", "pc")) == Board("OptiPlex 7090")


def test_a_machine_that_does_not_tell_its_model_is_unknown(tmp_path):
    board = read_board(Roots(*(tmp_path / name for name in ("sys", "proc", "etc", "var"))))
    assert board.model.startswith("unknown (")
    assert (board.platform, board.l4t, board.power_mode) == ("pc", None, None)


def test_the_power_mode_is_the_one_in_force(tmp_path):
    roots = tree(tmp_path / "machine", "orin-nano")
    trees.set_mode(roots, 2)
    assert read_board(roots).power_mode == "MAXN_SUPER"


def test_modes_are_read_with_their_limits():
    modes = parse_power_modes(
        """
# < POWER_MODEL ID=7 NAME=COMMENT >
< PARAM TYPE=CLOCK NAME=CPU_A78_0 >
MAX_FREQ /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq
MIN_FREQ /sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq
< PARAM TYPE=CLOCK NAME=CPU_A78_1 >
MAX_FREQ /sys/devices/system/cpu/cpu4/cpufreq/scaling_max_freq
< PARAM TYPE=CLOCK NAME=GPU >
MAX_FREQ /sys/devices/17000000.ga10b/devfreq/17000000.ga10b/max_freq
MAX_FREQ_KNEXT /sys/devices/17000000.ga10b/devfreq_dev/max_freq

< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
CPU_A78_0 MIN_FREQ 729600
CPU_A78_0 MAX_FREQ -1
GPU MAX_FREQ -1
EMC MAX_FREQ 0
< POWER_MODEL NAME=15W ID=1 >
CPU_A78_0 MAX_FREQ 1113600
CPU_A78_1 MAX_FREQ 729600
GPU MAX_FREQ 420750000
nonsense
< PM_CONFIG DEFAULT=1 >
"""
    )
    assert modes == {
        0: PowerMode("MAXN", {"17000000.ga10b": NO_LIMIT}, {0: NO_LIMIT}),
        1: PowerMode("15W", {"17000000.ga10b": 420750000}, {0: 1113600, 4: 729600}),
    }


@pytest.mark.parametrize("nonsense", ["", "<", "< POWER_MODEL >", "< POWER_MODEL ID=x NAME=y >", "GPU MAX_FREQ 1"])
def test_a_configuration_that_makes_no_sense_has_no_modes(nonsense):
    assert parse_power_modes(nonsense) == {}
