"""From a look at the machine and what the line felt to the message on `tele/device`."""

from __future__ import annotations

from typing import Sequence

from defectd.clock import utc_now
from defectd.inspection.telemetry_wire import DeviceTelemetry
from defectd.telemetry.felt import Interval
from defectd.telemetry.sample import Board, DeviceSample, Frequency
from defectd.telemetry.thermal import Level


def device_message(
    station: str,
    boot_id: str,
    board: Board,
    sample: DeviceSample,
    clock: str,
    causes: Sequence[str],
    level: Level,
    interval: Interval,
    outbox_pending: int,
) -> DeviceTelemetry:
    """Rounded as far as it is measured."""
    gpu, cpu = sample.gpu or Frequency(), sample.cpu or Frequency()
    return DeviceTelemetry.model_validate(
        {
            "station": station,
            "boot_id": boot_id,
            "ts": utc_now(),
            "source": sample.source,
            "board": board.model,
            "l4t": board.l4t,
            "clock": clock,
            "uptime_s": round(sample.uptime_s, 1),
            "power_mode": sample.power_mode,
            "throttled": bool(causes),
            "throttle_causes": list(causes),
            "thermal_level": level.word,
            "hottest_c": _rounded(sample.hottest_c, 1),
            "temps_c": {zone: round(celsius, 1) for zone, celsius in sample.temps_c.items()},
            "gpu_load": _rounded(sample.gpu_load, 3),
            "gpu_clock_mhz": _rounded(gpu.current_mhz, 1),
            "gpu_clock_max_mhz": _rounded(gpu.max_mhz, 1),
            "cpu_clock_mhz": _rounded(cpu.current_mhz, 1),
            "cpu_clock_max_mhz": _rounded(cpu.max_mhz, 1),
            "emc_clock_mhz": _rounded(sample.emc_mhz, 1),
            "power_w": _rounded(sample.total_power_w, 2),
            "rails_w": {rail: round(watts, 2) for rail, watts in sample.power_w.items()},
            "fan_rpm": _rounded(sample.fan_rpm, 0),
            "fan_share": _rounded(sample.fan_share, 2),
            "mem_available_mb": _rounded(sample.mem_available_mb, 0),
            "mem_total_mb": _rounded(sample.mem_total_mb, 0),
            "nvmap_mb": _rounded(sample.nvmap_mb, 0),
            "swap_used_mb": _rounded(sample.swap_used_mb, 0),
            "disk_free_mb": _rounded(sample.disk_free_mb, 0),
            "disk_total_mb": _rounded(sample.disk_total_mb, 0),
            "disk_wear": _rounded(sample.disk_wear, 2),
            "rss_mb": {name: round(megabytes, 1) for name, megabytes in sample.rss_mb.items()},
            "units": interval.units,
            "deadline_misses": interval.late,
            "dropped": interval.dropped,
            "queue_ms": _rounded(interval.queue_ms, 3),
            "outbox_pending": outbox_pending,
            "latency": interval.latency,
            "slow_units": interval.slow,
        }
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
