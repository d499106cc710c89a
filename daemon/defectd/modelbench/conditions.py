"""Under which clocks it was measured: a thread reads sysfs and procfs beside the trials. What cannot be read is said.

Linux kernel documentation: cpufreq, devfreq, thermal cooling devices, PSI. On a Jetson, `*-throttle-alert` cooling
devices are the state of throttling and `soctherm_oc` counts over-current events; temperatures alone prove neither.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

from defectd.clock import NS_PER_S, monotonic_ns

_EVERY_S = 0.5
_COUNTERS_EVERY_S = 1.0  # each reading of soctherm_oc is a call to another processor
_GPU = re.compile(r"gpu|gv11b|ga10b|gp10b")
_CONSTANT_ZONES = ("PMIC-Die",)


@dataclass(frozen=True)
class Sample:
    """One moment. None or empty: not readable, or not readable just then. Shares are of the time since the sample
    before: `busy` of all cores, `stolen` by the hypervisor, `waiting` with a runnable thread that had no core."""

    at_s: float
    cpu_mhz: tuple[float, ...] = ()
    gpu_mhz: float | None = None
    hottest_c: float | None = None
    throttled: tuple[str, ...] = ()
    overcurrents: int | None = None
    busy: float | None = None
    stolen: float | None = None
    waiting: float | None = None


@dataclass(frozen=True)
class Limits:
    """What the machine could do, and what it can say. None: not readable."""

    cpu_mhz: float | None = None
    gpu_mhz: float | None = None
    alerts: int = 0
    """How many `*-throttle-alert` there are to read."""
    cpu_source: str = ""
    power_mode: str | None = None
    cores: int = 1


@dataclass(frozen=True)
class Conditions:
    """Of the whole run."""

    limits: Limits = field(default_factory=Limits)
    samples: tuple[Sample, ...] = ()

    def between(self, began_s: float, ended_s: float) -> tuple[Sample, ...]:
        """The samples of that time."""
        return tuple(sample for sample in self.samples if began_s <= sample.at_s <= ended_s)

    @property
    def throttled(self) -> tuple[str, ...]:
        """Whatever throttled at any time, in alphabetical order."""
        return tuple(sorted({name for sample in self.samples for name in sample.throttled}))

    @property
    def overcurrents(self) -> int | None:
        """Events during the run; None: not readable."""
        counts = [sample.overcurrents for sample in self.samples if sample.overcurrents is not None]
        return counts[-1] - counts[0] if counts else None


class Machine:
    """The files that tell; *root* is / but in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        sys = root / "sys"
        cores = sorted(sys.glob("devices/system/cpu/cpu[0-9]*"), key=lambda core: int(core.name[3:]))
        self._clocks = [path for core in cores for path in [core / "cpufreq/scaling_cur_freq"] if path.exists()]
        self._gpu = next((one for one in sorted(sys.glob("class/devfreq/*")) if _GPU.search(one.name)), None)
        zones = sorted(sys.glob("class/thermal/thermal_zone*"))
        self._zones = [zone / "temp" for zone in zones if _text(zone / "type") not in (None, *_CONSTANT_ZONES)]
        coolers = [(_text(one / "type") or "", one) for one in sorted(sys.glob("class/thermal/cooling_device*"))]
        self._alerts = {
            kind[: -len("-throttle-alert")]: one for kind, one in coolers if kind.endswith("-throttle-alert")
        }
        self._counters = [
            path
            for device in sorted(sys.glob("class/hwmon/hwmon*"))
            if _text(device / "name") == "soctherm_oc"
            for path in sorted(device.glob("oc*_event_cnt"))
        ]
        self._cores = max(1, len(cores))

    def limits(self) -> Limits:
        """What does not change during a run, one hopes."""
        caps = [_number(path.with_name("scaling_max_freq")) for path in self._clocks]
        gpu_hz = None if self._gpu is None else _number(self._gpu / "max_freq")
        virtual = " hypervisor" in (_text(self._root / "proc/cpuinfo") or "")
        source = "cpufreq" if self._clocks else "/proc/cpuinfo"
        mode = _text(self._root / "var/lib/nvpmodel/status")
        return Limits(
            cpu_mhz=max((cap / 1e3 for cap in caps if cap is not None), default=None),
            gpu_mhz=None if gpu_hz is None else gpu_hz / 1e6,
            alerts=len(self._alerts),
            cpu_source=f"{source}, nominal: a virtual machine" if virtual and not self._clocks else source,
            power_mode=None if mode is None else mode.partition(":")[2] or mode,
            cores=self._cores,
        )

    def cpu_mhz(self) -> tuple[float, ...]:
        """One per core."""
        if self._clocks:
            return tuple(khz / 1e3 for khz in map(_number, self._clocks) if khz is not None)
        text = _text(self._root / "proc/cpuinfo") or ""
        return tuple(float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([0-9.]+)", text, re.MULTILINE))

    def gpu_mhz(self) -> float | None:
        """Of the integrated GPU; the driver of a plugged one does not use devfreq."""
        hz = None if self._gpu is None else _number(self._gpu / "cur_freq")
        return None if hz is None else hz / 1e6

    def hottest_c(self) -> float | None:
        """A power-gated zone cannot be read: one attempt each."""
        return max((milli / 1e3 for milli in map(_number, self._zones) if milli is not None), default=None)

    def throttled(self) -> tuple[str, ...]:
        """cpu, gpu, soc0, …"""
        return tuple(name for name, one in self._alerts.items() if (_number(one / "cur_state") or 0) > 0)

    def overcurrents(self) -> int | None:
        """Since boot; None if there is no counter."""
        counts = [count for count in map(_number, self._counters) if count is not None]
        return int(sum(counts)) if counts else None

    def core_time(self) -> tuple[float, float, float]:
        """Ticks of all cores since boot: busy, stolen, all."""
        text = _text(self._root / "proc/stat") or ""
        ticks = [float(tick) for tick in text.partition("\n")[0].split()[1:9]]
        if len(ticks) < 8:
            return 0.0, 0.0, 0.0
        idle = ticks[3] + ticks[4]
        return sum(ticks) - idle - ticks[7], ticks[7], sum(ticks)

    def waited_us(self) -> float | None:
        """Microseconds since boot in which some thread waited for a core; None: a kernel without PSI."""
        found = re.search(r"^some .*total=(\d+)", _text(self._root / "proc/pressure/cpu") or "", re.MULTILINE)
        return None if found is None else float(found.group(1))


def samples_of(machine: Machine, now_s: Callable[[], float]) -> Iterator[Sample]:
    """Endless; each next one looks at the machine. *now_s* is the bench's clock."""
    before_s, core_before, waited_before = now_s(), machine.core_time(), machine.waited_us()
    overcurrents, counted_s = machine.overcurrents(), before_s
    while True:
        at_s, core, waited = now_s(), machine.core_time(), machine.waited_us()
        busy, stolen, total = (now - then for now, then in zip(core, core_before))
        passed_us = (at_s - before_s) * 1e6
        if at_s - counted_s >= _COUNTERS_EVERY_S:
            overcurrents, counted_s = machine.overcurrents(), at_s
        yield Sample(
            at_s=at_s,
            cpu_mhz=machine.cpu_mhz(),
            gpu_mhz=machine.gpu_mhz(),
            hottest_c=machine.hottest_c(),
            throttled=machine.throttled(),
            overcurrents=overcurrents,
            busy=busy / total if total > 0 else None,
            stolen=stolen / total if total > 0 else None,
            waiting=min(1.0, (waited - waited_before) / passed_us)
            if waited is not None and waited_before is not None and passed_us > 0 else None,
        )  # fmt: skip
        before_s, core_before, waited_before = at_s, core, waited


class Watch:
    """Samples *machine* from `with` to its end, in a thread of its own."""

    def __init__(self, machine: Machine, every_s: float = _EVERY_S) -> None:
        self._machine, self._every_s = machine, every_s
        self._began_ns = monotonic_ns()
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="conditions", daemon=False)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def now_s(self) -> float:
        """Seconds since the bench began."""
        return (monotonic_ns() - self._began_ns) / NS_PER_S

    def conditions(self) -> Conditions:
        """So far."""
        return Conditions(self._machine.limits(), tuple(self._samples))

    def _look(self) -> None:
        samples = samples_of(self._machine, self.now_s)
        next(samples)  # shares begin to count here
        while not self._stop.wait(self._every_s):
            self._samples.append(next(samples))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except (OSError, TypeError):  # TypeError: buffered reading of a file that answers EAGAIN, as a GPU that is off does
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
