"""/sys, /proc, /etc and /var of machines that are not here: written from what their documentation and reports say.

`tree(directory, "agx-orin-jp6")` builds one; the `set_` functions change it while somebody reads it.
"""

from __future__ import annotations

import os
from pathlib import Path

from defectd.telemetry.sample import Roots
from support.tree_shapes import SHAPES, Shape

GPU = "devices/platform/17000000.gpu"


def tree(directory: Path, platform: str) -> Roots:
    """Build the machine *platform*, one of SHAPES, below *directory*: idle, cool, in its first power mode."""
    shape = SHAPES[platform]
    roots = Roots(*(directory / name for name in ("sys", "proc", "etc", "var")))
    for root in (roots.sys, roots.proc, roots.etc, roots.var):
        root.mkdir(parents=True)
    _identity(roots, shape)
    for zone, celsius in shape.zones.items():
        add_zone(roots, zone, celsius)
    for device in ("pwm-fan", *(f"{domain}-throttle-alert" for domain in shape.alerts)):
        _add(roots.sys / "class/thermal", "cooling_device", {"type": device, "cur_state": "0", "max_state": "2"})
    _gpu(roots, shape)
    _cpus(roots, shape)
    _hwmons(roots, shape)
    _modes(roots, shape)
    _flash(roots, directory)
    set_memory(roots, available_mb=shape.memory_mb // 2, total_mb=shape.memory_mb, nvmap_mb=312 if shape.l4t else None)
    _write(roots.proc / "uptime", "3605.12 14000.00")
    add_process(roots, os.getpid(), 1, "", 20.0)
    return roots


def _identity(roots: Roots, shape: Shape) -> None:
    if not shape.l4t:
        _write(roots.sys / "devices/virtual/dmi/id/product_name", "OptiPlex 7090")
        return
    _write(roots.proc / "device-tree/model", f"{shape.model}\0")
    _write(roots.proc / "device-tree/compatible", f"{shape.compatible}\0")
    release, _, revision = shape.l4t.partition(".")
    line = f"# R{release} (release), REVISION: {revision}, GCID: 38968081, BOARD: generic, EABI: aarch64"
    _write(roots.etc / "nv_tegra_release", line)


def _gpu(roots: Roots, shape: Shape) -> None:
    if not shape.gpu_node:
        return
    node = roots.sys / GPU / "devfreq" / shape.gpu_node
    _write(node / "available_frequencies", " ".join(map(str, shape.gpu_hz)))
    _write(node / "governor", "nvhost_podgov")
    _write(roots.sys / GPU / "of_node/name", "gpu")
    (node / "device").symlink_to(roots.sys / GPU)
    _link(roots.sys / "class/devfreq" / shape.gpu_node, node)
    set_gpu_clock(roots, current_mhz=shape.gpu_hz[0] / 1e6, min_mhz=shape.gpu_hz[0] / 1e6)
    if shape.has_load:
        _write(roots.sys / GPU / "load", "0")
        _link(roots.sys / "devices/platform/gpu.0", roots.sys / GPU)
    else:
        _write(roots.sys / "class/devfreq/bwmgr/cur_freq", "665600000")


def _cpus(roots: Roots, shape: Shape) -> None:
    parent = roots.sys / "devices/system/cpu"
    for cores in shape.clusters:
        policy = parent / f"cpufreq/policy{cores[0]}"
        _write(policy / "scaling_available_frequencies", " ".join(map(str, shape.cpu_khz)))
        _write(policy / "cpuinfo_max_freq", str(shape.cpu_khz[-1]))
        _write(policy / "scaling_min_freq", str(shape.cpu_khz[1]))
        _write(policy / "scaling_governor", "schedutil")
        for core in cores:
            _link(parent / f"cpu{core}/cpufreq", policy)
    set_cpu_clock(roots, current_mhz=shape.cpu_khz[1] / 1000)


def _hwmons(roots: Roots, shape: Shape) -> None:
    """The numbers are those of one boot."""
    _hwmon(roots, "nvme" if shape.l4t else "coretemp", {"temp1_input": "40850"})
    for first in range(0, len(shape.rails), 3):
        values = {"in7_label": "sum of shunt voltages", "in7_input": "3200", "in4_input": "1240", "curr4_input": "1600"}
        for channel, (label, millivolt, milliampere) in enumerate(shape.rails[first : first + 3], 1):
            values.update(_channel(channel, label, millivolt, milliampere))
        _hwmon(roots, "ina3221", values)
    if not shape.l4t:
        return
    if "AGX Orin" in shape.model:  # a second monitor; its first and third channel are not connected
        second = {**_channel(1, "NC", 5000, 100), **_channel(2, "VDDQ_VDD2_1V8AO", 5000, 60), **_channel(3, "NC", 0, 0)}
        _hwmon(roots, "ina3221", second)
    if shape.alerts:
        counters = {f"oc{number}_event_cnt": "0" for number in (1, 2, 3)}
        _hwmon(roots, "soctherm_oc", {**counters, **{f"oc{number}_throt_en": "1" for number in (1, 2, 3)}})
    _hwmon(roots, "pwmfan", {"pwm1": "77"})
    _hwmon(roots, "pwm_tach", {shape.tachometer: "1500"})


def _channel(number: int, label: str, millivolt: int, milliampere: int) -> dict[str, str]:
    return {
        f"in{number}_label": label,
        f"in{number}_input": str(millivolt),
        f"curr{number}_input": str(milliampere),
        f"curr{number}_crit_alarm": "0",
    }


def _modes(roots: Roots, shape: Shape) -> None:
    if not shape.modes:
        return
    lines = ["# FORMAT:", "# < PARAM TYPE=PARAM_TYPE NAME=PARAM_NAME >", "# ARG1_NAME ARG1_PATH_VAL"]
    for number, cores in enumerate(shape.clusters):
        directory = f"/sys/devices/system/cpu/cpu{cores[0]}/cpufreq"
        lines += ["", f"< PARAM TYPE=CLOCK NAME=CPU_{number} >", f"MAX_FREQ {directory}/scaling_max_freq"]
    node = f"/sys/devices/platform/17000000.gpu/devfreq/{shape.gpu_node}"
    lines += ["", "< PARAM TYPE=CLOCK NAME=GPU >", f"FREQ_TABLE {node}/available_frequencies"]
    lines += [f"MAX_FREQ {node}/max_freq", f"MIN_FREQ {node}/min_freq", ""]
    lines += ["< PARAM TYPE=FILE NAME=EMC >", "MAX_FREQ /sys/kernel/nvpmodel_emc_cap/emc_iso_cap", ""]
    for mode, (name, (gpu_hz, cpu_khz)) in enumerate(shape.modes.items()):
        lines += [f"< POWER_MODEL ID={mode} NAME={name} >", "CPU_ONLINE CORE_0 1", "GPU MIN_FREQ 0"]
        lines += [f"CPU_{number} MAX_FREQ {cpu_khz}" for number in range(len(shape.clusters))]
        lines += [f"GPU MAX_FREQ {gpu_hz}", "EMC MAX_FREQ 0", ""]
    _write(roots.etc / "nvpmodel.conf", "\n".join([*lines, "< PM_CONFIG DEFAULT=0 >"]))
    set_mode(roots, 0)
    gpu_hz, cpu_khz = next(iter(shape.modes.values()))
    if 0 < gpu_hz < max(shape.gpu_hz):
        set_gpu_clock(roots, max_mhz=gpu_hz / 1e6)
    if 0 < cpu_khz < max(shape.cpu_khz):
        set_cpu_clock(roots, max_mhz=cpu_khz / 1000)


def _flash(roots: Roots, directory: Path) -> None:
    """The file system of *directory* lies on an eMMC."""
    disk = roots.sys / "devices/platform/3460000.mmc/mmc_host/mmc0/mmc0:0001/block/mmcblk0"
    _write(disk.parent.parent / "life_time", "0x01 0x02")
    (disk / "mmcblk0p1").mkdir(parents=True)
    (disk / "device").symlink_to(disk.parent.parent)
    number = directory.stat().st_dev
    _link(roots.sys / f"dev/block/{os.major(number)}:{os.minor(number)}", disk / "mmcblk0p1")


def add_zone(roots: Roots, zone: str, celsius: float | None) -> None:
    """One more thermal zone. None: its file is there, and is empty."""
    _add(roots.sys / "class/thermal", "thermal_zone", {"type": zone, "temp": _milli(celsius)})


def set_temp(roots: Roots, zone: str, celsius: float | None) -> None:
    """Of an existing zone; None: it answers nothing."""
    _write(zone_file(roots, zone), _milli(celsius))


def zone_file(roots: Roots, zone: str) -> Path:
    """Where the kernel tells its temperature."""
    return _of_type(roots, "thermal_zone", zone) / "temp"


def set_throttle(roots: Roots, domain: str = "gpu", active: bool = True) -> None:
    """The domain's throttle alert."""
    _write(_of_type(roots, "cooling_device", f"{domain}-throttle-alert") / "cur_state", "1" if active else "0")


def set_over_current(roots: Roots, counter: str, count: int) -> None:
    """*counter* is "oc1", "oc2" or "oc3"."""
    _write(hwmon(roots, "soctherm_oc") / f"{counter}_event_cnt", str(count))


def set_crit_alarm(roots: Roots, rail: str, active: bool = True) -> None:
    """Of a rail of the power monitor."""
    label = next(file for file in roots.sys.glob("class/hwmon/*/in*_label") if file.read_text().strip() == rail)
    channel = label.name[len("in") : -len("_label")]
    _write(label.with_name(f"curr{channel}_crit_alarm"), "1" if active else "0")


def set_gpu_clock(
    roots: Roots, *, current_mhz: float | None = None, min_mhz: float | None = None, max_mhz: float | None = None
) -> None:
    """What is not given stays; at the first time, the maximum is the silicon's."""
    node = next(path for path in (roots.sys / "class/devfreq").iterdir() if path.name != "bwmgr")
    fastest = max(map(int, (node / "available_frequencies").read_text().split())) / 1e6
    if max_mhz is None and not (node / "max_freq").exists():
        max_mhz = fastest
    for name, mhz in (("cur_freq", current_mhz), ("min_freq", min_mhz), ("max_freq", max_mhz)):
        if mhz is not None:
            _write(node / name, str(round(mhz * 1e6)))


def set_cpu_clock(
    roots: Roots, cluster: int | None = None, *, current_mhz: float | None = None, max_mhz: float | None = None
) -> None:
    """Of one cluster, by its first core, or of all."""
    for policy in (roots.sys / "devices/system/cpu/cpufreq").glob("policy*" if cluster is None else f"policy{cluster}"):
        if max_mhz is None and not (policy / "scaling_max_freq").exists():
            max_mhz = int((policy / "cpuinfo_max_freq").read_text()) / 1000
        for name, mhz in (("scaling_cur_freq", current_mhz), ("scaling_max_freq", max_mhz)):
            if mhz is not None:
                _write(policy / name, str(round(mhz * 1000)))


def set_load(roots: Roots, share: float) -> None:
    """Of the GPU, 0..1."""
    _write(roots.sys / GPU / "load", str(round(share * 1000)))


def set_mode(roots: Roots, mode: int) -> None:
    """nvpmodel's mode, by id. The clocks stay as they are."""
    _write(roots.var / "lib/nvpmodel/status", f"pmode:{mode:04d}")


def set_memory(
    roots: Roots, *, available_mb: int, total_mb: int = 8192, nvmap_mb: int | None = None, swap_used_mb: int = 0
) -> None:
    """/proc/meminfo; the swap has 4096 MB."""
    kib = {"MemTotal": total_mb, "MemFree": available_mb // 2, "MemAvailable": available_mb, "SwapTotal": 4096}
    kib.update({"SwapFree": 4096 - swap_used_mb, **({} if nvmap_mb is None else {"NvMapMemUsed": nvmap_mb})})
    _write(roots.proc / "meminfo", "\n".join(f"{name}: {mb * 1024:>12} kB" for name, mb in kib.items()))


def add_process(roots: Roots, pid: int, parent: int, module: str, resident_mb: float) -> None:
    """`python -m module`, started by *parent*."""
    directory = roots.proc / str(pid)
    _write(directory / "stat", f"{pid} (py ) 0 (thon) S {parent} {pid} 0 0 -1")
    _write(directory / "cmdline", "\0".join(["/usr/bin/python3", "-m", module, "7", str(parent), ""]))
    pages = round(resident_mb * 2**20 / os.sysconf("SC_PAGE_SIZE"))
    _write(directory / "statm", f"{pages * 3} {pages} 100 1 0 50 0")


def hwmon(roots: Roots, chip: str) -> Path:
    """The directory of the first chip of this name."""
    return next(
        file.parent for file in sorted(roots.sys.glob("class/hwmon/*/name")) if file.read_text().strip() == chip
    )


def _hwmon(roots: Roots, chip: str, values: dict[str, str]) -> None:
    _add(roots.sys / "class/hwmon", "hwmon", {"name": chip, **values})


def _of_type(roots: Roots, prefix: str, kind: str) -> Path:
    files = (roots.sys / "class/thermal").glob(f"{prefix}*/type")
    return next(file.parent for file in files if file.read_text().strip() == kind)


def _add(parent: Path, prefix: str, values: dict[str, str]) -> None:
    number = len(list(parent.glob(f"{prefix}*")))
    for name, value in values.items():
        _write(parent / f"{prefix}{number}" / name, value)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def _milli(celsius: float | None) -> str:
    return "" if celsius is None else str(round(celsius * 1000))


def _write(path: Path, text: str) -> None:
    """In one step: somebody may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(f"{text}\n")
    temporary.replace(path)
