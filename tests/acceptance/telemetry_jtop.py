"""The real jtop service beside a line: its values, and what happens when it freezes, dies, or is of another version."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from acceptance.telemetry_line import blocks_of, calm, line, ratio_of
from defectd.telemetry.jtop_source import JtopReading, JtopSource
from defectd.telemetry.sample import DeviceSample, Roots
from defectd.telemetry.sysfs import Sysfs
from support.bundle_line import accounted
from support.collector import Event, wall_time_s
from support.heat import Heard
from support.jetson import Jetson, another_version, jetson
from support.proving import Proof, Setting, Short
from support.station import CHECKOUT, wait_until

_ENTER = """import os
words = open("/proc/self/cmdline", "rb").read().split(bytes(1))[:-1]
if b"defectd.telemetry.jtop_child" in words and "ENTERED" not in os.environ:
    os.environ["ENTERED"] = "yes"
    if os.path.exists({other!r}):
        os.environ["PYTHONPATH"] = {other!r} + os.pathsep + os.environ["PYTHONPATH"]
    os.execvp({inside!r}[0], [*{inside!r}, *words])
"""
"""The process that reads jtop begins anew inside the simulated Jetson; on a real one it is there already."""

_PHASE_S = 30.0
_RETRY_S = 120.0  # the daemon tries again after 30 to 50 s
_SILENCE_S = 4.0
_EQUAL = 0.02  # jtop reads power and clocks at another moment, and rounds
_MOST_OF_P99 = 1.05


def _values(setting: Setting) -> str:
    """Each value that both tell is the same."""
    with jetson(setting.directory) as machine:
        child = ("env", f"PYTHONPATH={CHECKOUT / 'daemon'}", sys.executable, "-m", "defectd.telemetry.jtop_child")
        source = JtopSource(0.5, command=(*machine.inside, *child))
        try:
            readings: list[JtopReading] = []

            def read() -> bool:
                reading = source.latest()
                readings.extend([reading] if reading else [])
                return bool(readings)

            wait_until(read, 60, "a reading of jtop", every_s=0.1)
        finally:
            source.stop()
        mine = Sysfs(Roots(sys=machine.tree / "sys", etc=machine.tree / "etc"), setting.directory).read()
        return _compared(readings[-1].sample, mine)


def _compared(theirs: DeviceSample, mine: DeviceSample) -> str:
    pairs: dict[str, tuple[Any, Any]] = {
        f"temps_c {zone}": (theirs.temps_c.get(zone.split("-")[0]), value) for zone, value in mine.temps_c.items()
    }
    pairs.update({f"power_w {rail}": (theirs.power_w.get(rail), value) for rail, value in mine.power_w.items()})
    for name in ("hottest_c", "gpu_load", "emc_mhz", "total_power_w", "fan_rpm", "mem_total_mb", "swap_used_mb"):
        pairs[name] = getattr(theirs, name), getattr(mine, name)
    for clock in ("gpu", "cpu"):
        for name in ("current_mhz", "min_mhz", "max_mhz", "governor"):
            pairs[f"{clock} {name}"] = getattr(getattr(theirs, clock), name), getattr(getattr(mine, clock), name)
    other = {name: pair for name, pair in pairs.items() if not _equal(*pair)}
    if other or len(mine.temps_c) != 6 or len(mine.power_w) != 3:
        raise Short(f"jtop and sysfs differ: {other} (of {len(pairs)} values)")
    return f"{len(pairs)} values of jtop are sysfs's (6 zones, 3 rails, clocks, limits, load, fan, memory)"


def _equal(theirs: Any, mine: Any) -> bool:
    if isinstance(theirs, float) and isinstance(mine, (int, float)):
        return abs(theirs - mine) <= _EQUAL * max(abs(mine), 1.0)
    return bool(theirs == mine)


@dataclass
class _Phases:
    """From when to when, by what the service did."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def stay(self, name: str, for_s: float) -> None:
        """That is how it is for so long."""
        begun_s = time.time()
        time.sleep(for_s)
        self.spans.setdefault(name, []).append((begun_s, time.time()))

    def blocks(self, name: str, units: list[Event]) -> list[list[float]]:
        """The latencies of that time."""
        points = [(wall_time_s(unit["ended_at"]), float(unit["timing_ms"]["capture_to_verdict"])) for unit in units]
        return blocks_of([point for point in points if any(a <= point[0] < b for a, b in self.spans[name])])


def _troubles(setting: Setting) -> str:
    """The daemon uses jtop; then the service freezes, dies, and meets a client of another version."""
    with jetson(setting.directory) as machine:
        # What a user who is not root sees: the memory's clock is jtop's to tell.
        shutil.copytree(machine.tree / "sys", setting.directory / "seen" / "sys", symlinks=True,
                        ignore=shutil.ignore_patterns("debug"))  # fmt: skip
        shutil.copytree(machine.tree / "etc", setting.directory / "seen" / "etc")
        other = setting.directory / "other"
        first = _ENTER.format(other=str(other), inside=list(machine.inside))
        roots = Roots(sys=setting.directory / "seen" / "sys")
        changes = {"telemetry": {"jtop": True}}
        phases = _Phases()
        with line(setting, roots, changes, first=first) as (here, heard):
            wait_until(lambda: _emc(heard) == 2133.0, 60, "a value in tele/device that only jtop knows", every_s=0.2)
            phases.stay("with", _PHASE_S)
            told = [_frozen(machine, heard, phases), _killed(machine, heard, phases)]
            told.append(_mismatched(machine, heard, setting))
            phases.stay("without", _PHASE_S)
            silence_s = heard.silence_s
            calm(heard)
            here.terminate()
            figure = accounted(here, errors_allowed=False)  # the last trouble lasts
            units = here.collector.inspections
    with_it, frozen = (ratio_of(phases.blocks(name, units), phases.blocks("without", units))
                       for name in ("with", "frozen"))  # fmt: skip
    said = (
        f"{'; '.join(told)}; tele/device at least each {silence_s:.1f} s; p99 of the line with jtop / without "
        f"{with_it}, while it is frozen / without {frozen}; {figure}"
    )
    if silence_s > _SILENCE_S or max(with_it.low, frozen.low) > _MOST_OF_P99:
        raise Short(said)
    return said


def _frozen(machine: Jetson, heard: Heard, phases: _Phases) -> str:
    begun_s = time.time()
    machine.signal(signal.SIGSTOP)
    _trouble(heard, "nothing new")
    phases.stay("frozen", _PHASE_S / 2)
    machine.signal(signal.SIGCONT)
    return f"frozen: told after {_raised_after_s(heard, begun_s):.0f} s, {_back(heard)}"


def _killed(machine: Jetson, heard: Heard, phases: _Phases) -> str:
    begun_s = time.time()
    machine.kill()
    _trouble(heard, "jtop service")
    phases.stay("without", _PHASE_S / 2)
    machine.start()
    return f"killed: told after {_raised_after_s(heard, begun_s):.0f} s, {_back(heard)}"


def _mismatched(machine: Jetson, heard: Heard, setting: Setting) -> str:
    version = another_version(setting.directory / "other")
    machine.kill()
    machine.start()
    wait_until(lambda: version in _last(heard).get("detail", ""), _RETRY_S, "a mismatch of versions is told", 0.5)
    return f"other version: {_last(heard)['detail'].partition(';')[0]!r}"


def _emc(heard: Heard) -> float | None:
    device = heard.device
    return device[-1]["emc_clock_mhz"] if device else None


def _last(heard: Heard) -> Event:
    """What was said last of jtop; empty before."""
    mine = [fault for _, fault in heard.faults("telemetry") if fault["code"] == "jtop"]
    return mine[-1] if mine else {}


def _trouble(heard: Heard, words: str) -> None:
    """Raises TimeoutError."""

    def raised() -> bool:
        fault = _last(heard)
        return fault.get("state") == "raised" and words in fault["detail"]

    wait_until(raised, 30, f"a fault telemetry/jtop with {words!r}", 0.1)


def _raised_after_s(heard: Heard, begun_s: float) -> float:
    times_s = [at_s for at_s, fault in heard.faults("telemetry") if fault["state"] == "raised" and at_s > begun_s]
    return times_s[0] - begun_s


def _back(heard: Heard) -> str:
    """It answers, and the fault is over."""
    took_s = wait_until(
        lambda: _last(heard).get("state") == "cleared" and _emc(heard) == 2133.0, _RETRY_S, "jtop is back", 0.2
    )
    return f"back {took_s:.0f} s after the service"


JTOP = (
    Proof("jtop.values", "what jtop tells of a simulated Jetson is what sysfs tells", _values),
    Proof(
        "jtop.troubles", "it freezes, dies, mismatches: told, telemetry goes on, the line does not feel it", _troubles
    ),
)
