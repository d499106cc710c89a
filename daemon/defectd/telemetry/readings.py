"""The values behind a layout's paths. What does not answer, or answers nonsense, is left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Mapping

from defectd.telemetry.files import Files
from defectd.telemetry.layout import CpuClock, GpuClock, Layout, Rail
from defectd.telemetry.power_mode import NO_LIMIT, PowerMode
from defectd.telemetry.sample import Frequency, Roots

_PLAUSIBLE_C = (-60.0, 150.0)
"""Zones that are off say -256, or 2^31 / 1000, or the like."""
_PLAUSIBLE_HZ = 10_000_000_000
"""devfreq says "no limit" with the largest number there is."""
_LOADS = 5
_LOAD_EVERY_S = 0.005
_ROUNDED = 0.99
"""A limit is rounded to what the clock's source can; a cap that matters is further away."""
_MIB = 1 << 20


def temperatures_c(layout: Layout, files: Files) -> Mapping[str, float]:
    """By type; of several zones of one type the hottest."""
    low, high = _PLAUSIBLE_C
    found: dict[str, float] = {}
    for kind, path in layout.zones:
        celsius = _scaled(files.number(path), 1000)
        if celsius is not None and low < celsius < high:
            found[kind] = max(celsius, found.get(kind, low))
    return found


def active_alerts(layout: Layout, files: Files) -> tuple[str, ...]:
    """Domains that are slowed down because they are too hot."""
    return tuple(domain for domain, path in layout.alerts if (files.number(path) or 0) > 0)


def over_current_events(layout: Layout, files: Files) -> Mapping[str, int]:
    """The counters that can be read."""
    return _found({name: files.number(path) for name, path in layout.oc_events})


def power_w(layout: Layout, files: Files) -> Mapping[str, float]:
    """By rail."""
    return _found({rail.label: _rail_w(rail, files) for rail in layout.rails})


def _rail_w(rail: Rail, files: Files) -> float | None:
    millivolt, milliampere = files.number(rail.millivolt), files.number(rail.milliampere)
    return None if millivolt is None or milliampere is None else max(0.0, millivolt * milliampere / 1e6)


def total_power_w(layout: Layout, power: Mapping[str, float]) -> float | None:
    """What the module takes; None while one of its parts is not known."""
    for rails in layout.platform.total_rails:
        if all(rail in power for rail in rails):
            return sum(power[rail] for rail in rails)
    return None


def crit_alarms(layout: Layout, files: Files) -> tuple[str, ...]:
    """Rails over their critical current."""
    return tuple(rail.label for rail in layout.rails if rail.crit_alarm and files.number(rail.crit_alarm) == 1)


def gpu_load(layout: Layout, files: Files, pause: Callable[[float], None]) -> float | None:
    """Averaged over 20 ms: the register tells of the last moment, and the next one may say the opposite."""
    if layout.gpu_load is None:
        return None
    loads = []
    for attempt in range(_LOADS):
        if attempt:
            pause(_LOAD_EVERY_S)
        permille = files.number(layout.gpu_load)
        if permille is None:  # off: it will not be on in a moment
            break
        if 0 <= permille <= 1000:
            loads.append(permille / 1000)
    return sum(loads) / len(loads) if loads else None


def gpu_frequency(clock: GpuClock, files: Files) -> Frequency:
    """Of the graphics clock."""
    return Frequency(
        current_mhz=_mhz(files.number(f"{clock.directory}/cur_freq")),
        min_mhz=_mhz(files.number(f"{clock.directory}/min_freq")),
        max_mhz=_mhz(files.number(f"{clock.directory}/max_freq")),
        hardware_max_mhz=_mhz(max(clock.frequencies, default=None)),
        governor=files.text(f"{clock.directory}/governor"),
    )


def cpu_frequencies(layout: Layout, files: Files) -> list[tuple[CpuClock, Frequency]]:
    """Of each cluster that is online; one that is not has no frequency. Without what `cpu_details` adds."""
    found = []
    for clock in layout.cpus:
        current_mhz = _scaled(files.number(f"{clock.directory}/scaling_cur_freq"), 1000)
        if current_mhz:
            max_mhz = _scaled(files.number(f"{clock.directory}/scaling_max_freq"), 1000)
            found.append((clock, Frequency(current_mhz=current_mhz, max_mhz=max_mhz)))
    return found


def slowest(cpus: list[tuple[CpuClock, Frequency]], files: Files) -> Frequency | None:
    """The cluster with the lowest frequency, in full."""
    if not cpus:
        return None
    clock, frequency = min(cpus, key=lambda cpu: cpu[1].current_mhz or 0)
    return Frequency(
        current_mhz=frequency.current_mhz,
        min_mhz=_scaled(files.number(f"{clock.directory}/scaling_min_freq"), 1000),
        max_mhz=frequency.max_mhz,
        hardware_max_mhz=_scaled(clock.hardware_max_khz, 1000),
        governor=files.text(f"{clock.directory}/scaling_governor"),
    )


def capped(
    mode: PowerMode | None, layout: Layout, gpu: Frequency | None, cpus: list[tuple[CpuClock, Frequency]]
) -> tuple[str, ...]:
    """Clocks that are limited to less than the power mode allows; none where the mode is not known."""
    if mode is None:
        return ()
    found = []
    if gpu is not None and layout.gpu is not None and mode.gpu_hz:
        limit_hz = mode.gpu_hz.get(layout.gpu.node, min(mode.gpu_hz.values()))
        if _is_below(gpu.max_mhz, _possible(limit_hz, layout.gpu.frequencies, None), 1e6):
            found.append("gpu")
    for clock, frequency in cpus:
        limit_khz = mode.cpu_khz.get(clock.core)
        if limit_khz is not None:
            possible_khz = _possible(limit_khz, clock.frequencies, clock.hardware_max_khz)
            if "cpu" not in found and _is_below(frequency.max_mhz, possible_khz, 1e3):
                found.append("cpu")
    return tuple(found)


def _possible(limit: int, frequencies: tuple[int, ...], hardware_max: int | None) -> int | None:
    """The clock's step that *limit* comes to; None if it is no limit and the silicon's is not known."""
    steps = [frequency for frequency in frequencies if frequency <= limit]
    if steps:
        return max(steps)
    if limit == NO_LIMIT:
        return hardware_max
    return limit if hardware_max is None else min(limit, hardware_max)


def _is_below(max_mhz: float | None, limit: int | None, per_mhz: float) -> bool:
    return max_mhz is not None and limit is not None and max_mhz < _ROUNDED * limit / per_mhz


def emc_mhz(layout: Layout, files: Files) -> float | None:
    """The memory's clock; without root only a Thor tells it."""
    return None if layout.emc_rate is None else _mhz(files.number(layout.emc_rate))


def fan_rpm(layout: Layout, files: Files) -> float | None:
    """Measured."""
    return None if layout.fan_rpm is None else _scaled(files.number(layout.fan_rpm), 1)


def fan_share(layout: Layout, files: Files) -> float | None:
    """Asked for, 0..1."""
    return None if layout.fan_pwm is None else _scaled(files.number(layout.fan_pwm), 255)


def memory(roots: Roots, files: Files) -> Mapping[str, Any]:
    """The fields of a sample that /proc/meminfo has."""
    kib: dict[str, int] = {}
    for line in (files.text(f"{roots.proc}/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            kib[name] = int(words[0])
    swap = (kib["SwapTotal"] - kib["SwapFree"]) if {"SwapTotal", "SwapFree"} <= kib.keys() else None
    return {
        "mem_available_mb": _scaled(kib.get("MemAvailable"), 1024),
        "mem_total_mb": _scaled(kib.get("MemTotal"), 1024),
        "nvmap_mb": _scaled(kib.get("NvMapMemUsed"), 1024),
        "swap_used_mb": _scaled(swap, 1024),
    }


def disk(state_directory: Path, files: Files) -> Mapping[str, Any]:
    """The fields of a sample about the state directory's file system."""
    try:
        with files.asking(str(state_directory)):
            status = os.statvfs(state_directory)
    except OSError:
        return {}
    return {
        "disk_free_mb": status.f_bavail * status.f_frsize / _MIB,
        "disk_total_mb": status.f_blocks * status.f_frsize / _MIB,
    }


def disk_wear(layout: Layout, files: Files) -> float | None:
    """An eMMC tells in steps of a tenth, for its two kinds of cells: 0x03 is between 0.2 and 0.3; the upper end
    counts, and above 1 it has outlived its rating."""
    if layout.life_time is None:
        return None
    try:
        tenths = [int(word, 16) for word in (files.text(layout.life_time) or "").split()]
    except ValueError:
        return None
    return min(max(tenths, default=0), 11) / 10 or None  # 0: not defined


def uptime_s(roots: Roots, files: Files) -> float:
    """0 if it cannot be read."""
    try:
        return float((files.text(f"{roots.proc}/uptime") or "0").split()[0])
    except (ValueError, IndexError):
        return 0.0


def _mhz(hertz: int | None) -> float | None:
    return hertz / 1e6 if hertz is not None and 0 <= hertz < _PLAUSIBLE_HZ else None


def _scaled(number: int | None, divisor: float) -> float | None:
    return None if number is None else number / divisor


def _found(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
