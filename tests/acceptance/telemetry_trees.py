"""Each machine of support.trees through the sampler that the daemon has: what its tele/device says."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

from defectd.faults import Faults
from defectd.inspection.telemetry_wire import DeviceTelemetry
from defectd.settings import Settings
from defectd.telemetry.sample import Roots
from defectd.telemetry_parts import build_sampler
from support.proving import Proof, Setting, Short
from support.proving_ground import tiny_station
from support.station import merged
from support.trees import tree

_WITHIN_S = 20.0


@dataclass(frozen=True)
class _Machine:
    """What an engineer who knows the machine expects to read."""

    board: str
    l4t: str | None
    zones: str
    hottest_c: float
    gpu_mhz: float | None
    cpu_mhz: float
    rails: str
    power_w: float | None
    mode: str | None
    emc_mhz: float | None = None


_ORIN_ZONES = "cpu-thermal gpu-thermal soc0-thermal soc1-thermal soc2-thermal tj-thermal"
_AGX_RAILS = "VDDQ_VDD2_1V8AO VDD_CPU_CV VDD_GPU_SOC VIN_SYS_5V0"
_AGX = functools.partial(
    _Machine, "NVIDIA Jetson AGX Orin Developer Kit", zones=_ORIN_ZONES, hottest_c=45.3, gpu_mhz=306.0, cpu_mhz=729.6,
    rails=_AGX_RAILS, power_w=6.71, mode="MAXN",
)  # fmt: skip

_MACHINES: Mapping[str, _Machine] = {
    "agx-orin-jp5": _AGX(l4t="35.4.1"),
    "agx-orin-jp6": _AGX(l4t="36.4.3"),
    "agx-orin-jp7": _AGX(l4t="39.2"),
    "orin-nano": _Machine(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "36.4.3", _ORIN_ZONES, 45.3, 306.0, 729.6,
        "VDD_CPU_GPU_CV VDD_IN VDD_SOC", 4.57, "15W",
    ),
    "agx-xavier": _Machine(  # without PMIC-Die, which says 100 °C for ever
        "Jetson-AGX", "35.4.1", "AO-therm AUX-therm CPU-therm GPU-therm Tboard_tegra Tdiode_tegra thermal-fan-est",
        41.5, 114.8, 1190.4, "CPU CV GPU SOC SYS5V VDDRQ", 4.94, "MAXN",
    ),
    "thor": _Machine(
        "NVIDIA Jetson AGX Thor Developer Kit", "38.2.1", "cpu-thermal soc012-thermal soc345-thermal tj-thermal", 47.2,
        315.0, 2601.0, "VDD_CPU_SOC_MSS VDD_GPU VIN_SYS_5V0", 28.12, "MAXN", 665.6,
    ),
    "pc": _Machine("OptiPlex 7090", None, "acpitz x86_pkg_temp", 51.0, None, 4700.0, "", None, None),
}  # fmt: skip


def told(roots: Roots, directory: Path, **changes: Any) -> DeviceTelemetry:
    """The first message of a sampler on *roots*. Raises Short if there is none."""
    settings = Settings(
        **merged(tiny_station(1883, directory, directory, 1.0), {"telemetry": {"every_s": 1.0}, **changes})
    )
    messages: list[DeviceTelemetry] = []
    came = threading.Event()

    def publish(message: DeviceTelemetry) -> None:
        messages.append(message)
        came.set()

    sampler = build_sampler(
        settings, "boot", Faults(lambda *_: None), lambda *_: None, publish, lambda _: None, lambda: 0, dict, roots
    )
    sampler.start()
    try:
        if not came.wait(_WITHIN_S):
            raise Short(f"no tele/device within {_WITHIN_S:.0f} s")
    finally:
        sampler.stop(5.0)
    return messages[0]


def _machine(name: str) -> Callable[[Setting], str]:
    def prove(setting: Setting) -> str:
        message = told(tree(setting.directory / "machine", name), setting.directory)
        found = _Machine(
            message.board, message.l4t, " ".join(sorted(message.temps_c)), message.hottest_c or 0.0,
            message.gpu_clock_mhz, message.cpu_clock_mhz or 0.0, " ".join(sorted(message.rails_w)), message.power_w,
            message.power_mode, message.emc_clock_mhz,
        )  # fmt: skip
        if found != _MACHINES[name]:
            raise Short(f"tele/device says {found}, expected {_MACHINES[name]}")
        if message.throttled or message.thermal_level != "normal" or not message.mem_total_mb or not message.rss_mb:
            raise Short(f"{message}")
        gpu = "no GPU clock" if found.gpu_mhz is None else f"GPU {found.gpu_mhz:g} MHz"
        power = "no rails" if found.power_w is None else f"{len(message.rails_w)} rails, {found.power_w:.2f} W"
        return (
            f"{len(message.temps_c)} zones, hottest {found.hottest_c:g} °C, {gpu}, CPU {found.cpu_mhz:g} MHz, {power}, "
            f"mode {found.mode}, L4T {found.l4t}"
        )

    return prove


TREES = tuple(Proof(f"trees.{name}", "tele/device has its zones, clocks, rails and mode", _machine(name))
              for name in _MACHINES)  # fmt: skip
