"""Where this machine keeps what; looked up once in a while, because looking takes longer than reading."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Mapping

from defectd.telemetry import platforms
from defectd.telemetry.files import Files
from defectd.telemetry.platforms import Platform
from defectd.telemetry.power_mode import PowerMode, read_power_modes
from defectd.telemetry.sample import Roots

_MAX_CLUSTERS = 16
"""A PC may have one for each of its hundred cores; the first ones have to do."""


@dataclass(frozen=True)
class GpuClock:
    """A directory of class/devfreq; frequencies in Hz."""

    directory: str
    node: str
    frequencies: tuple[int, ...]


@dataclass(frozen=True)
class CpuClock:
    """A cluster's cpufreq directory; frequencies in kHz."""

    directory: str
    core: int
    frequencies: tuple[int, ...]
    hardware_max_khz: int | None


@dataclass(frozen=True)
class Rail:
    """One channel of a power monitor; paths."""

    label: str
    millivolt: str
    milliampere: str
    crit_alarm: str | None


@dataclass(frozen=True)
class Layout:
    """Paths, as strings: they are opened once a second. None, or nothing: this machine does not have it."""

    platform: Platform
    zones: tuple[tuple[str, str], ...]
    """Type and path of each thermal zone that measures something."""
    alerts: tuple[tuple[str, str], ...]
    """Domain and path of each throttle alert's state."""
    oc_events: tuple[tuple[str, str], ...]
    rails: tuple[Rail, ...]
    gpu: GpuClock | None
    gpu_load: str | None
    cpus: tuple[CpuClock, ...]
    emc_rate: str | None
    fan_pwm: str | None
    fan_rpm: str | None
    modes: Mapping[int, PowerMode]
    life_time: str | None
    """Of the flash below the state directory."""


def find_layout(roots: Roots, state_directory: Path, platform: Platform, files: Files) -> Layout:
    """Look everywhere. Never raises for what is not there."""
    sys = str(roots.sys)
    chips = _hwmon(sys, files)
    gpu = _gpu(f"{sys}/class/devfreq", platform, files)
    return Layout(
        platform=platform,
        zones=tuple(
            (kind, f"{zone}/temp")
            for kind, zone in _thermal(sys, "thermal_zone", files)
            if kind not in platform.constant_zones and files.has(f"{zone}/temp")
        ),
        alerts=tuple(
            (kind[: -len(platforms.ALERT)], f"{device}/cur_state")
            for kind, device in _thermal(sys, "cooling_device", files)
            if kind.endswith(platforms.ALERT) and files.has(f"{device}/cur_state")
        ),
        oc_events=tuple(
            (name.partition("_")[0], f"{directory}/{name}")
            for chip, directory in chips
            if chip == platforms.OVER_CURRENT_CHIP
            for name in files.names(directory)
            if fnmatchcase(name, "oc*_event_cnt")
        ),
        rails=_rails(chips, files),
        gpu=gpu,
        gpu_load=_gpu_load(sys, platform, gpu, files),
        cpus=_cpus(f"{sys}/devices/system/cpu", files),
        emc_rate=_emc(sys, platform, files),
        fan_pwm=_first([f"{directory}/pwm1" for chip, directory in chips if chip in platforms.FAN_CHIPS], files),
        fan_rpm=_first([f"{directory}/{name}" for name in ("rpm", "fan1_input") for _, directory in chips], files),
        modes=read_power_modes(roots, files),
        life_time=_life_time(sys, state_directory, files),
    )


def _thermal(sys: str, prefix: str, files: Files) -> list[tuple[str, str]]:
    """Type and directory."""
    parent = f"{sys}/class/thermal"
    found = [f"{parent}/{name}" for name in files.names(parent) if name.startswith(prefix)]
    return [(kind, directory) for directory in found if (kind := files.text(f"{directory}/type"))]


def _hwmon(sys: str, files: Files) -> list[tuple[str, str]]:
    """Name and directory. The numbers of the directories change from boot to boot."""
    parent = f"{sys}/class/hwmon"
    found = [f"{parent}/{name}" for name in files.names(parent)]
    return [(chip, directory) for directory in found if (chip := files.text(f"{directory}/name"))]


def _rails(chips: list[tuple[str, str]], files: Files) -> tuple[Rail, ...]:
    rails: dict[str, Rail] = {}
    for chip, directory in chips:
        for channel in platforms.RAILS_OF_CHIP if chip in platforms.RAIL_CHIPS else ():
            label = files.text(f"{directory}/in{channel}_label")
            if not label or label in platforms.NO_RAIL:
                continue
            millivolt, milliampere = f"{directory}/in{channel}_input", f"{directory}/curr{channel}_input"
            alarm = f"{directory}/curr{channel}_crit_alarm"
            if files.has(millivolt) and files.has(milliampere):
                rails.setdefault(label, Rail(label, millivolt, milliampere, alarm if files.has(alarm) else None))
    return tuple(rails.values())


def _gpu(devfreq: str, platform: Platform, files: Files) -> GpuClock | None:
    nodes = files.names(devfreq)
    for pattern in platform.gpu_clocks:
        for node in nodes:
            if fnmatchcase(node, pattern):
                directory = f"{devfreq}/{node}"
                return GpuClock(directory, node, _numbers(files.text(f"{directory}/available_frequencies")))
    return None


def _gpu_load(sys: str, platform: Platform, gpu: GpuClock | None, files: Files) -> str | None:
    places = [f"{sys}/{place}" for place in platform.gpu_loads]
    return _first([*places, *([f"{gpu.directory}/device/load"] if gpu else [])], files)


def _cpus(parent: str, files: Files) -> tuple[CpuClock, ...]:
    """The cores of a cluster share one directory, by links, and the first one's number is the cluster's."""
    clocks: dict[str, CpuClock] = {}
    numbers = sorted(int(name[3:]) for name in files.names(parent) if name.startswith("cpu") and name[3:].isdigit())
    for core in numbers:
        directory = os.path.realpath(f"{parent}/cpu{core}/cpufreq")
        if directory in clocks or len(clocks) == _MAX_CLUSTERS or not files.has(f"{directory}/scaling_cur_freq"):
            continue
        frequencies = _numbers(files.text(f"{directory}/scaling_available_frequencies"))
        clocks[directory] = CpuClock(directory, core, frequencies, files.number(f"{directory}/cpuinfo_max_freq"))
    return tuple(clocks.values())


def _emc(sys: str, platform: Platform, files: Files) -> str | None:
    devfreq = f"{sys}/class/devfreq"
    nodes = [f"{devfreq}/{node}/cur_freq" for node in platform.emc_clocks]
    return _first([*nodes, f"{sys}/{platforms.EMC_RATE}"], files)


def _life_time(sys: str, state_directory: Path, files: Files) -> str | None:
    """From the number of the file system's device to its disk; only an eMMC has this file."""
    try:
        with files.asking(str(state_directory)):
            number = state_directory.stat().st_dev
    except OSError:
        return None
    disk = Path(os.path.realpath(f"{sys}/dev/block/{os.major(number)}:{os.minor(number)}"))
    slaves = files.names(f"{disk}/slaves")  # below a mapped or encrypted one
    if slaves:
        disk = Path(os.path.realpath(f"{disk}/slaves/{slaves[0]}"))
    return _first([f"{disk}/device/life_time", f"{disk.parent}/device/life_time"], files)


def _first(paths: list[str], files: Files) -> str | None:
    return next(filter(files.has, paths), None)


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(word) for word in (text or "").split() if word.isdigit())
