"""What telemetry costs: on and off in turns, in one process, on one line."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

from acceptance.telemetry_line import blocks_of, closed, line, ratio_of_p99
from support.brokers import free_port
from support.collector import wall_time_s
from support.proving import Proof, Setting, Short
from support.trees import tree

_OFF = """import os, sys
if b"run" in open("/proc/self/cmdline", "rb").read().split(bytes(1)):
    from defectd.telemetry.sampler import Sampler
    look, inspected, idle = Sampler._look, Sampler.inspected, []
    def look_if_on(self):
        while os.path.exists({off!r}) and not self._stop.is_set():
            idle[:] = [True]
            self._stop.wait(0.5)
        idle.clear()
        return look(self)
    Sampler._look = look_if_on
    Sampler.inspected = lambda self, event: None if idle else inspected(self, event)
"""
"""While the file is there, nobody looks, adds up, decides or publishes."""

_BLOCK_S, _SETTLES_S = 8.0, 2.0
_BLOCKS = 10  # of each kind
_MOST_OF_A_CORE = 0.01
_MOST_OF_P99 = 1.01


@dataclass
class _Spent:
    """Of one kind of block."""

    core: list[float] = field(default_factory=list)
    """Share of a core that the daemon's own process took, block by block."""
    spans: list[tuple[float, float]] = field(default_factory=list)


def _cost(setting: Setting) -> str:
    """The daemon's process on the kernel's clock for it, and the latencies, of many short turns."""
    roots = tree(setting.directory / "machine", "agx-orin-jp6")
    off = setting.directory / "off"
    spent = {"on": _Spent(), "off": _Spent()}
    changes = {"telemetry": {"every_s": 5.0}, "web": {"port": free_port()}}
    with line(setting, roots, changes, first=_OFF.format(off=str(off))) as (here, heard):
        here.await_units(100)
        for turn in range(2 * (3 if setting.quick else _BLOCKS)):
            kind = ("on", "off")[turn % 2]
            off.unlink() if kind == "on" and off.exists() else off.touch() if kind == "off" else None
            time.sleep(_SETTLES_S)
            _block(here.daemon.pid, spent[kind])
        figure = closed(here)
        points = [
            (wall_time_s(event["ended_at"]), float(event["timing_ms"]["capture_to_verdict"]))
            for event in here.collector.inspections
        ]
        told = len(heard.device)
    core = statistics.mean(spent["on"].core) - statistics.mean(spent["off"].core)
    ratio, low, high = ratio_of_p99(*(_within(points, spent[kind].spans) for kind in ("on", "off")))
    said = (
        f"{100 * core:.2f} % of a core ({100 * statistics.mean(spent['on'].core):.2f} on, "
        f"{100 * statistics.mean(spent['off'].core):.2f} off; {len(spent['on'].core)} turns each of {_BLOCK_S:.0f} s); "
        f"p99 on/off {ratio:.3f}, with 95 % confidence {low:.2f} to {high:.2f}; {told} tele/device; {figure}"
    )
    if core > _MOST_OF_A_CORE or low > _MOST_OF_P99:
        raise Short(said)
    return said


def _block(pid: int, spent: _Spent) -> None:
    clock = (~pid << 3) | 2  # CPUCLOCK_SCHED of that process, clock_getcpuclockid(3)
    begun_s, used_s = time.time(), time.clock_gettime(clock)
    time.sleep(_BLOCK_S)
    ended_s, total_s = time.time(), time.clock_gettime(clock)
    spent.core.append((total_s - used_s) / (ended_s - begun_s))
    spent.spans.append((begun_s, ended_s))


def _within(points: list[tuple[float, float]], spans: list[tuple[float, float]]) -> list[list[float]]:
    return blocks_of([point for point in points if any(begin <= point[0] < end for begin, end in spans)])


COST = (Proof("cost", "at most 1 % of a core; the p99 of the line does not move", _cost),)
