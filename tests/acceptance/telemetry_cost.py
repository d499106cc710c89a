"""What telemetry costs: on and off in turns, in one process, on one line."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

from acceptance.telemetry_line import blocks_of, closed, line, ratio_of
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
_PERCENT_OF_A_CORE = 1.0
_MOST_OF_LATENCY = 1.01


@dataclass
class _Spent:
    """Of one kind of block."""

    core: list[float] = field(default_factory=list)
    """Share of a core that the daemon's own process took, block by block."""
    spans: list[tuple[float, float]] = field(default_factory=list)


def _cost(setting: Setting) -> str:
    """The daemon's process on the kernel's clock for it, and the latencies, of many short turns."""
    roots = tree(setting.directory / "machine", "agx-orin-jp6")
    switch = setting.directory / "off"
    spent = {"on": _Spent(), "off": _Spent()}
    changes = {"telemetry": {"every_s": 5.0}, "web": {"port": free_port()}}
    with line(setting, roots, changes, first=_OFF.format(off=str(switch))) as (here, heard):
        here.await_units(100)
        for turn in range(2 * (6 if setting.quick else _BLOCKS)):
            kind = ("on", "off")[turn % 2]
            if kind == "off":
                switch.touch()
            elif switch.exists():
                switch.unlink()
            time.sleep(_SETTLES_S)
            _block(here.daemon.pid, spent[kind])
        switch.unlink()
        figure = closed(here, heard)
        points = [
            (wall_time_s(event["ended_at"]), float(event["timing_ms"]["capture_to_verdict"]))
            for event in here.collector.inspections
        ]
        told = len(heard.device)
    on, off = spent["on"], spent["off"]
    differences = [100 * (with_it - without) for with_it, without in zip(on.core, off.core)]
    core, doubt = statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    blocks = [_within(points, one.spans) for one in (on, off)]
    p50, p99 = ratio_of(*blocks, 0.5), ratio_of(*blocks, 0.99)
    said = (
        f"{core:.2f} ± {doubt:.2f} % of a core (daemon: {100 * statistics.mean(on.core):.1f} on, "
        f"{100 * statistics.mean(off.core):.1f} off; {len(differences)} turns each of {_BLOCK_S:.0f} s); on/off p50 "
        f"{p50}, p99 {p99} at 95 % confidence; {told} tele/device; {figure}"
    )
    if core + 2 * doubt > _PERCENT_OF_A_CORE or max(p50.low, p99.low) > _MOST_OF_LATENCY:
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
