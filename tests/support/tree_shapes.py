"""What differs between the machines that `support.trees` builds; from documentation and reports."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shape:
    """What differs from machine to machine."""

    model: str
    compatible: str
    l4t: str
    zones: dict[str, float | None]
    """None: the zone answers nothing."""
    rails: tuple[tuple[str, int, int], ...]
    """Label, mV, mA of each channel of the power monitor."""
    gpu_node: str = ""
    gpu_hz: tuple[int, ...] = ()
    alerts: tuple[str, ...] = ()
    clusters: tuple[tuple[int, ...], ...] = ()
    cpu_khz: tuple[int, ...] = ()
    modes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """GPU's Hz and CPU's kHz of each power mode, in the order of their ids; -1: no limit."""
    tachometer: str = "fan1_input"
    has_load: bool = True
    memory_mb: int = 8192


_ORIN_ALERTS = ("cpu", "gpu", "cv0", "cv1", "cv2", "soc0", "soc1", "soc2")
_ORIN_KHZ = (115200, 729600, 1113600, 1510400, 1728000, 2201600)
_AGX_GPU = (306000000, 612000000, 816000000, 1300500000)
_AGX_ORIN_ZONES = {
    "cpu-thermal": 45.312,
    "gpu-thermal": 43.281,
    "cv0-thermal": -256.0,
    "cv1-thermal": None,
    "cv2-thermal": -256.0,
    "soc0-thermal": 44.0,
    "soc1-thermal": 44.1,
    "soc2-thermal": 44.2,
    "tj-thermal": 45.312,
}
_AGX_ORIN_RAILS = (("VDD_GPU_SOC", 5000, 478), ("VDD_CPU_CV", 5000, 160), ("VIN_SYS_5V0", 5000, 704))
_AGX_ORIN_MODES = {"MAXN": (-1, -1), "MODE_15W": (408000000, 1113600), "MODE_30W": (612000000, 1728000)}
_THREE_CLUSTERS = ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11))


def _agx_orin(release: str, node: str, tachometer: str = "rpm") -> Shape:
    return Shape(
        model="NVIDIA Jetson AGX Orin Developer Kit",
        compatible="nvidia,p3737-0000+p3701-0000\0nvidia,tegra234",
        l4t=release,
        zones=_AGX_ORIN_ZONES,
        rails=_AGX_ORIN_RAILS,
        gpu_node=node,
        gpu_hz=_AGX_GPU,
        alerts=_ORIN_ALERTS,
        clusters=_THREE_CLUSTERS,
        cpu_khz=_ORIN_KHZ,
        modes=_AGX_ORIN_MODES,
        tachometer=tachometer,
        memory_mb=30536,
    )


SHAPES = {
    "agx-orin-jp5": _agx_orin("35.4.1", "17000000.ga10b"),
    "agx-orin-jp6": _agx_orin("36.4.3", "17000000.gpu"),
    "agx-orin-jp7": _agx_orin("39.2", "17000000.gpu", "fan1_input"),
    "orin-nano": Shape(
        model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        compatible="nvidia,p3768-0000+p3767-0005\0nvidia,tegra234",
        l4t="36.4.3",
        zones={**_AGX_ORIN_ZONES, "cv0-thermal": None},
        rails=(("VDD_IN", 5080, 900), ("VDD_CPU_GPU_CV", 5080, 200), ("VDD_SOC", 5080, 280)),
        gpu_node="17000000.gpu",
        gpu_hz=(306000000, 612000000, 1020000000),
        alerts=_ORIN_ALERTS,
        clusters=((0, 1, 2, 3), (4, 5)),
        cpu_khz=(115200, 729600, 1344000, 1728000),
        modes={"15W": (612000000, 1344000), "25W": (918000000, 1344000), "MAXN_SUPER": (-1, -1)},
        memory_mb=7620,
    ),
    "agx-xavier": Shape(
        model="Jetson-AGX",
        compatible="nvidia,p2972-0000\0nvidia,tegra194",
        l4t="35.4.1",
        zones={
            "CPU-therm": 41.5,
            "GPU-therm": 40.0,
            "AUX-therm": 39.5,
            "AO-therm": 40.5,
            "PMIC-Die": 100.0,
            "Tboard_tegra": 38.0,
            "Tdiode_tegra": 39.25,
            "thermal-fan-est": 40.8,
        },
        rails=(
            ("GPU", 19000, 20),
            ("CPU", 19000, 40),
            ("SOC", 19000, 60),
            ("CV", 19000, 0),
            ("VDDRQ", 19000, 20),
            ("SYS5V", 19000, 120),
        ),
        gpu_node="17000000.gv11b",
        gpu_hz=(114750000, 318750000, 905250000, 1377000000),
        clusters=((0, 1), (2, 3), (4, 5), (6, 7)),
        cpu_khz=(115200, 1190400, 2265600),
        modes={"MAXN": (2147483647, 2265600), "MODE_10W": (520000000, 1200000), "MODE_15W": (670000000, 1200000)},
        memory_mb=31918,
    ),
    "thor": Shape(
        model="NVIDIA Jetson AGX Thor Developer Kit",
        compatible="nvidia,p3971-0089+p3834-0008\0nvidia,tegra264",
        l4t="38.2.1",
        zones={
            "cpu-thermal": 47.0,
            "gpu-thermal": None,
            "soc012-thermal": 46.0,
            "soc345-thermal": 45.5,
            "tj-thermal": 47.2,
        },
        rails=(("VDD_GPU", 12040, 640), ("VDD_CPU_SOC_MSS", 12040, 960), ("VIN_SYS_5V0", 5088, 1740)),
        gpu_node="gpu-gpc-0",
        gpu_hz=(315000000, 1575000000),
        alerts=("cpu", "gpu", "soc012", "soc345"),
        clusters=tuple((core,) for core in range(14)),
        cpu_khz=(972000, 2601000),
        modes={"MAXN": (-1, -1), "120W": (1386000000, 2601000)},
        has_load=False,
        memory_mb=125771,
    ),
    "pc": Shape(
        model="",
        compatible="",
        l4t="",
        zones={"acpitz": 27.8, "x86_pkg_temp": 51.0},
        rails=(),
        clusters=tuple((core,) for core in range(8)),
        cpu_khz=(800000, 4700000),
        memory_mb=31800,
    ),
}
