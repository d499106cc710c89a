"""What differs between modules and releases, in one table; and which of them this machine is."""

from __future__ import annotations

import platform as python_platform
import re
from dataclasses import dataclass
from typing import Mapping

from defectd.telemetry.files import Files
from defectd.telemetry.power_mode import read_power_mode
from defectd.telemetry.sample import Board, Roots


@dataclass(frozen=True)
class Platform:
    """Where one family of machines keeps things; patterns are those of `fnmatch`, the first that is there counts."""

    name: str
    chip: str
    """As the device tree's `compatible` says it."""
    gpu_clocks: tuple[str, ...] = ()
    """In class/devfreq. The suffix changes from one release to the next."""
    gpu_loads: tuple[str, ...] = ()
    """Below /sys, in tenths of a percent; then the GPU clock's own `device/load` is looked for."""
    emc_clocks: tuple[str, ...] = ()
    """In class/devfreq, readable for all; else debugfs has it for root."""
    constant_zones: tuple[str, ...] = ()
    """Thermal zones that measure nothing."""
    total_rails: tuple[tuple[str, ...], ...] = ()
    """Rails that add up to what the module takes, each part once; the first set that is complete counts."""


_LOADS = ("devices/platform/gpu.0/load", "devices/gpu.0/load")
_VDD_IN = ("VDD_IN",)

PLATFORMS: Mapping[str, Platform] = {
    each.name: each
    for each in (
        Platform(
            "orin",
            "tegra234",
            gpu_clocks=("17000000.ga10b", "17000000.gpu", "17000000.*"),
            gpu_loads=_LOADS,
            # VDDQ_VDD2_1V8AO, which an AGX also has, is fed from VIN_SYS_5V0
            total_rails=(_VDD_IN, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),
        ),
        Platform(
            "xavier",
            "tegra194",
            gpu_clocks=("17000000.gv11b", "17000000.gpu", "17000000.*"),
            gpu_loads=_LOADS,
            constant_zones=("PMIC-Die",),  # always 100 °C
            total_rails=(_VDD_IN, ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")),
        ),
        Platform(
            "thor",
            "tegra264",
            gpu_clocks=("gpu-gpc-0",),  # its load is told by NVML only
            emc_clocks=("bwmgr",),
            total_rails=(_VDD_IN, ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")),
        ),
        Platform("pc", ""),
    )
}

ALERT = "-throttle-alert"
"""How the types of the cooling devices end that act when a domain is too hot: "gpu-throttle-alert"."""
RAIL_CHIPS = ("ina3221",)
RAILS_OF_CHIP = (1, 2, 3)
"""in4 to in7 are shunt voltages and their sum."""
NO_RAIL = ("NC", "sum of shunt voltages")
OVER_CURRENT_CHIP = "soctherm_oc"
FAN_CHIPS = ("pwmfan", "pwm-fan")
EMC_RATE = "kernel/debug/bpmp/debug/clk/emc/rate"
"""Below /sys, for root."""

_RELEASE = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")


def read_board(roots: Roots | None = None, files: Files | None = None) -> Board:
    """Which machine this is. Never raises; what it does not tell is None."""
    roots, files = roots or Roots(), files or Files()
    mode = read_power_mode(roots, files)
    return Board(
        model=_model(roots, files),
        l4t=_l4t(roots, files),
        platform=platform_of(roots, files).name,
        power_mode=None if mode is None else mode.name,
    )


def platform_of(roots: Roots, files: Files) -> Platform:
    """By the chip in the device tree, else by the model's name. A container may hide the tree: then by the GPU's
    node. A machine with none of them is a "pc"."""
    for directory in _device_trees(roots):
        chips = files.text(f"{directory}/compatible") or ""
        model = (files.text(f"{directory}/model") or "").lower()
        for platform in PLATFORMS.values():
            if platform.chip and (platform.chip in chips or f" {platform.name}" in model):
                return platform
    nodes = files.names(f"{roots.sys}/class/devfreq")
    for platform in PLATFORMS.values():
        if any(node in platform.gpu_clocks for node in nodes):
            return platform
    return PLATFORMS["pc"]


def _model(roots: Roots, files: Files) -> str:
    places = [f"{directory}/model" for directory in _device_trees(roots)]
    places += [f"{roots.sys}/devices/virtual/dmi/id/{name}" for name in ("product_name", "board_name")]
    return next(filter(None, map(files.text, places)), f"unknown ({python_platform.machine()})")


def _l4t(roots: Roots, files: Files) -> str | None:
    found = _RELEASE.search(files.text(f"{roots.etc}/nv_tegra_release") or "")
    return f"{found[1]}.{found[2]}" if found else None


def _device_trees(roots: Roots) -> tuple[str, ...]:
    return f"{roots.proc}/device-tree", f"{roots.sys}/firmware/devicetree/base"
