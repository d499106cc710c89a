"""Under which clocks it was measured: a thread reads them beside the trials. What cannot be read is said.

Linux kernel documentation: PSI. On a Jetson, `*-throttle-alert` cooling
devices are the state of throttling and `soctherm_oc` counts over-current events; temperatures alone prove neither.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.telemetry import readings
from defectd.telemetry.files import Files
from defectd.telemetry.layout import find_layout
from defectd.telemetry.platforms import platform_of
from defectd.telemetry.power_mode import read_power_mode
from defectd.telemetry.sample import Roots

_EVERY_S = 0.5
_COUNTERS_EVERY_S = 1.0  # each reading of soctherm_oc is a call to another processor


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
    """What telemetry's readers find below *root*, which is / but in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._roots, self._files = Roots(*(root / name for name in ("sys", "proc", "etc", "var"))), Files()
        self._layout = find_layout(self._roots, root, platform_of(self._roots, self._files), self._files)
        cores = self._files.names(f"{self._roots.sys}/devices/system/cpu")
        self._cores = max(1, sum(re.fullmatch(r"cpu[0-9]+", name) is not None for name in cores))

    def limits(self) -> Limits:
        """What does not change during a run, one hopes."""
        layout, files = self._layout, self._files
        caps = [clock.max_mhz for _, clock in readings.cpu_frequencies(layout, files) if clock.max_mhz is not None]
        virtual = " hypervisor" in self._proc("cpuinfo")
        source = "cpufreq" if layout.cpus else "/proc/cpuinfo"
        mode = read_power_mode(self._roots, files, layout.modes)
        return Limits(
            cpu_mhz=max(caps, default=None),
            gpu_mhz=None if layout.gpu is None else readings.gpu_frequency(layout.gpu, files).max_mhz,
            alerts=len(layout.alerts),
            cpu_source=f"{source}, nominal: a virtual machine" if virtual and not layout.cpus else source,
            power_mode=None if mode is None else mode.name,
            cores=self._cores,
        )

    def cpu_mhz(self) -> tuple[float, ...]:
        """One per cluster of cores that share a clock, or per core."""
        if self._layout.cpus:
            clocks = readings.cpu_frequencies(self._layout, self._files)
            return tuple(clock.current_mhz for _, clock in clocks if clock.current_mhz is not None)
        return tuple(float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([0-9.]+)", self._proc("cpuinfo"), re.MULTILINE))

    def gpu_mhz(self) -> float | None:
        """Of the integrated GPU; the driver of a plugged one does not use devfreq."""
        return None if self._layout.gpu is None else readings.gpu_frequency(self._layout.gpu, self._files).current_mhz

    def hottest_c(self) -> float | None:
        """Of the zones that can be read just now."""
        return max(readings.temperatures_c(self._layout, self._files).values(), default=None)

    def throttled(self) -> tuple[str, ...]:
        """cpu, gpu, soc0, …"""
        return readings.active_alerts(self._layout, self._files)

    def overcurrents(self) -> int | None:
        """Since boot; None if there is no counter."""
        counts = readings.over_current_events(self._layout, self._files)
        return sum(counts.values()) if counts else None

    def core_time(self) -> tuple[float, float, float]:
        """Ticks of all cores since boot: busy, stolen, all."""
        ticks = [float(tick) for tick in self._proc("stat").partition("\n")[0].split()[1:9]]
        if len(ticks) < 8:
            return 0.0, 0.0, 0.0
        idle = ticks[3] + ticks[4]
        return sum(ticks) - idle - ticks[7], ticks[7], sum(ticks)

    def waited_us(self) -> float | None:
        """Microseconds since boot in which some thread waited for a core; None: a kernel without PSI."""
        found = re.search(r"^some .*total=(\d+)", self._proc("pressure/cpu"), re.MULTILINE)
        return None if found is None else float(found.group(1))

    def _proc(self, name: str) -> str:
        return self._files.text(f"{self._roots.proc}/{name}") or ""


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
