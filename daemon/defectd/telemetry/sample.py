"""What one look at the machine tells. What it does not tell is None or empty, never zero."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping

ROOT_VARIABLE = "DEFECTD_SYSFS_ROOT"


@dataclass(frozen=True)
class Roots:
    """Where the kernel and the system are looked for; a test, or a container, gives others."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    etc: Path = Path("/etc")
    var: Path = Path("/var")

    @staticmethod
    def of_environment() -> Roots:
        """The machine's own, but for those of sys, proc, etc and var that are below the folder DEFECTD_SYSFS_ROOT."""
        folder = os.environ.get(ROOT_VARIABLE, "")
        if not folder:
            return Roots()
        return Roots(**{name: path for name in ("sys", "proc", "etc", "var") if (path := Path(folder) / name).is_dir()})


@dataclass(frozen=True)
class Frequency:
    """One clock, in MHz. `min_mhz` and `max_mhz` are the limits in force, `hardware_max_mhz` is the silicon's."""

    current_mhz: float | None = None
    min_mhz: float | None = None
    max_mhz: float | None = None
    hardware_max_mhz: float | None = None
    governor: str | None = None


@dataclass(frozen=True)
class ThrottleSigns:
    """Evidence that the machine holds itself back, best first; empty: no sign of it."""

    alerts: tuple[str, ...] = ()
    """Domains whose `*-throttle-alert` cooling device is active: ("gpu",)."""
    oc_events: Mapping[str, int] = field(default_factory=dict)
    """soctherm_oc's counters, which only ever grow until the next boot: {"oc1": 3}."""
    capped: tuple[str, ...] = ()
    """Clocks whose limit in force lies below the power mode's cap: "gpu", "cpu"."""
    crit_alarms: tuple[str, ...] = ()
    """Rails of the INA3221 that are over their critical current."""


@dataclass(frozen=True)
class DeviceSample:
    """The machine at one moment. `source` is "sysfs" or "jtop"; MB are MiB, shares are 0..1."""

    at_ns: int
    """CLOCK_MONOTONIC."""
    source: str = "sysfs"
    temps_c: Mapping[str, float] = field(default_factory=dict)
    """By the type of the thermal zone."""
    hottest_c: float | None = None
    gpu_load: float | None = None
    """Several reads averaged: the register tells of the last moment only."""
    gpu: Frequency | None = None
    cpu: Frequency | None = None
    """The slowest cluster that is online."""
    emc_mhz: float | None = None
    power_w: Mapping[str, float] = field(default_factory=dict)
    """By the label of the rail."""
    total_power_w: float | None = None
    fan_rpm: float | None = None
    fan_share: float | None = None
    mem_available_mb: float | None = None
    """On a Jetson the GPU's, too."""
    mem_total_mb: float | None = None
    nvmap_mb: float | None = None
    """What the GPU holds of the memory; Jetson only."""
    swap_used_mb: float | None = None
    disk_free_mb: float | None = None
    """Where the state directory is, for a user who is not root."""
    disk_total_mb: float | None = None
    disk_wear: float | None = None
    """Share of the flash's rated life that was used up at boot; eMMC tells it without root, NVMe does not."""
    power_mode: str | None = None
    throttle: ThrottleSigns = field(default_factory=ThrottleSigns)
    clock_synced: bool | None = None
    """None: nobody tells."""
    uptime_s: float = 0.0
    rss_mb: Mapping[str, float] = field(default_factory=dict)
    """The daemon and its children, by name."""


@dataclass(frozen=True)
class Board:
    """Which machine this is; read once. `platform` is "orin", "xavier", "thor" or "pc"."""

    model: str
    l4t: str | None = None
    platform: str = "pc"
    power_mode: str | None = None
    """At the start; a sample tells the one in force."""
