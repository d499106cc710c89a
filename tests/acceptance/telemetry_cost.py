"""What telemetry costs, in one run: many times a second a coin decides whether the daemon looks at its machine now, or
sleeps for as long as a look lasts. What differs between the two is due to the look, whatever else the machine does."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Sequence

import numpy as np

from acceptance.telemetry_line import closed, line
from support.brokers import free_port
from support.collector import wall_time_s
from support.proving import Proof, Setting, Short
from support.trees import tree

_COINS = """import json, os, random, sys, time
if b"run" in open("/proc/self/cmdline", "rb").read().split(bytes(1)):
    from defectd.telemetry.sampler import Sampler
    dice, slots, told_ns = random.Random(7), [], []

    class Coins:
        "In the place of the event that the sampler waits for, one second before each look."

        def __init__(self, event):
            self.set, self.is_set, self._event, self._begun, self._lasts_s = event.set, event.is_set, event, None, 0.0

        def wait(self, timeout_s):
            if self._begun is not None:
                self._lasts_s = time.time() - self._begun[0]
                slots.append((1, *self._begun, time.time()))
            while True:
                if self._event.wait(dice.uniform(0.06, 0.1)):
                    with open({file!r}, "w") as file:
                        json.dump({{"slots": slots, "told_ns": told_ns}}, file)
                    return True
                self._begun = time.time(), time.process_time()
                if dice.random() < 0.5 or not self._lasts_s:
                    return False
                self._event.wait(self._lasts_s)
                slots.append((0, *self._begun, time.time()))

    def init(self, *args, **more):
        original(self, *args, **more)
        self._stop = Coins(self._stop)

    def inspected(self, event):
        begun_ns = time.perf_counter_ns()
        hear(self, event)
        told_ns.append(time.perf_counter_ns() - begun_ns)

    original, hear = Sampler.__init__, Sampler.inspected
    Sampler.__init__, Sampler.inspected = init, inspected
"""

_AUTOGROUP = Path("/proc/self/autogroup")
"""sched(7): the session, which the kernel treats as one; its niceness counts before that of a process."""
_NICE = -15
_RATE_HZ = 40.0
_RUN_S, _QUICK_S = 170.0, 60.0
_LOOKS_HZ = 1.0  # the product's
_MESSAGE_EVERY_S = 1.0  # to some five looks, as five seconds are
_LINGERS_S = 0.01
"""A unit that begins so soon after a look may still feel it: the message is being sent."""
_PERCENT_OF_A_CORE = 1.0
_PERCENT_OF_LATENCY = 1.0
_COARSEST_PERCENT = 2.0
"""A p99 that is not known any better says nothing: this machine is too busy."""
_BLOCK_S = 2.0
_DRAWS = 1000


@dataclass(frozen=True)
class Slot:
    """From one throw of the coin on: a look, or a sleep of the same length. Wall and CPU time of the daemon."""

    looks: bool
    begun_s: float
    cpu_s: float
    ended_s: float


@dataclass(frozen=True)
class Units:
    """Latencies in milliseconds, the block of time each is of, and what it met: 1 a look, 0 a sleep, -1 neither."""

    latency_ms: Any
    block: Any
    met: Any


def units_of(points: Sequence[tuple[float, float]], slots: Sequence[Slot]) -> Units:
    """*points*: when a unit was captured (s), and what it took (ms)."""
    begun = np.array([slot.begun_s for slot in slots])
    ended = np.array([slot.ended_s + _LINGERS_S for slot in slots])
    looks = np.array([slot.looks for slot in slots], dtype=int)
    captured, took = np.array(sorted(points)).T
    last = np.searchsorted(begun, captured + took / 1e3) - 1  # the last slot that began before the verdict
    met = np.where((last >= 0) & (ended[last] > captured), looks[last], -1)
    inside = (captured > begun[0]) & (captured < begun[-1])
    return Units(took[inside], ((captured - begun[0]) // _BLOCK_S).astype(int)[inside], met[inside])


def share_met(units: Units, slots: Sequence[Slot]) -> float:
    """Of all units, those that meet a look when there is one each second."""
    per_look = (units.met == 1).sum() / sum(slot.looks for slot in slots)
    rate_hz = len(units.met) / (slots[-1].begun_s - slots[0].begun_s)
    return float(per_look * _LOOKS_HZ / rate_hz)


@dataclass(frozen=True)
class Shift:
    """Of a percentile, in percent of it, and the range in which it lies with 95 % confidence."""

    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.percent:+.2f} % ({self.low:+.2f} to {self.high:+.2f})"

    @property
    def resolution(self) -> float:
        """A smaller one cannot be told from none."""
        return (self.high - self.low) / 2


def shift_of(units: Units, share: float, quantile: float) -> Shift:
    """How far one look each second moves a percentile. Looks move units over the percentile's threshold; by how many
    more than sleeps do is counted, and what that is worth in milliseconds is the slope of the tail around it (of its
    logarithm over that of the share, between half the share and twice). Confidence from drawing blocks of time."""
    order = np.argsort(units.latency_ms)
    latency, block, met = units.latency_ms[order], units.block[order], units.met[order]
    blocks, above = int(block.max()) + 1, 1 - quantile
    dice = np.random.default_rng(7)  # the same figure for the same run

    def shift(counts: Any) -> float:
        weight = np.where(met == -1, counts * (1 - share) / max(counts[met == -1].sum(), 1), 0.0)
        weight = np.where(met == 0, counts * share / max(counts[met == 0].sum(), 1), weight)
        reached = np.cumsum(weight) / weight.sum()
        threshold, lower, upper = (
            latency[np.searchsorted(reached, 1 - part)] for part in (above, 2 * above, above / 2)
        )
        late = [counts[(met == kind) & (latency > threshold)].sum() / counts[met == kind].sum() for kind in (0, 1)]
        return float(100 * np.log(upper / lower) / np.log(4) * share * (late[1] - late[0]) / above)

    drawn = [np.bincount(dice.integers(blocks, size=blocks), minlength=blocks)[block] for _ in range(_DRAWS)]
    shifts = sorted(map(shift, drawn))
    return Shift(shift(np.ones(len(latency))), shifts[_DRAWS // 40], shifts[-_DRAWS // 40])


def cpu_of_a_look_s(slots: Sequence[Slot]) -> tuple[float, float]:
    """Of the whole process, and its standard error: what slots with a look took above those without. A slot lasts
    until the next one."""
    took: dict[bool, list[float]] = {True: [], False: []}
    for slot, after in zip(slots, slots[1:]):
        took[slot.looks].append(after.cpu_s - slot.cpu_s)
    doubt = sum(statistics.variance(one) / len(one) for one in took.values()) ** 0.5
    return statistics.mean(took[True]) - statistics.mean(took[False]), doubt


@contextlib.contextmanager
def ahead_of_others() -> Iterator[None]:
    """What else runs on this machine shall not be measured; needs root, and does nothing without."""
    try:
        before = _AUTOGROUP.read_text().split()[-1]
        _AUTOGROUP.write_text(str(_NICE))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        _AUTOGROUP.write_text(before)


def _cost(setting: Setting) -> str:
    roots = tree(setting.directory / "machine", "agx-orin-jp6")
    told = setting.directory / "slots.json"
    changes = {"telemetry": {"every_s": _MESSAGE_EVERY_S}, "web": {"port": free_port()}}
    coins = _COINS.format(file=str(told))
    with ahead_of_others(), line(setting, roots, changes, rate_hz=_RATE_HZ, first=coins) as (here, heard):
        here.await_units(200)
        time.sleep(_QUICK_S if setting.quick else _RUN_S)
        figure = closed(here, heard)
        points = [
            (wall_time_s(event["started_at"]), float(event["timing_ms"]["capture_to_verdict"]))
            for event in here.collector.inspections
        ]
    return judged(told, points, figure)


def judged(told: Path, points: Sequence[tuple[float, float]], figure: str) -> str:
    """The figure of what the coins in *told* did to *points*. Raises Short."""
    kept = json.loads(told.read_text())
    slots = [Slot(bool(looks), *times) for looks, *times in kept["slots"]]
    per_unit_s = statistics.mean(kept["told_ns"]) / 1e9
    units = units_of(points, slots)
    share, looks = share_met(units, slots), sum(slot.looks for slot in slots)
    p50, p99 = (shift_of(units, share, quantile) for quantile in (0.5, 0.99))
    look_s, doubt_s = cpu_of_a_look_s(slots)
    rate_hz = len(points) / (points[-1][0] - points[0][0])
    core, doubt = 100 * (look_s * _LOOKS_HZ + per_unit_s * rate_hz), 200 * doubt_s * _LOOKS_HZ
    p99_ms = float(np.quantile(units.latency_ms[units.met != 1], 0.99))
    said = (
        f"{core:.2f} ± {doubt:.2f} % of a core ({1e3 * look_s:.1f} ms a look, {1e6 * per_unit_s:.0f} µs a unit after "
        f"its verdict); p50 {p50}, p99 {p99} of {p99_ms:.1f} ms, at 95 % confidence: less than {p99.resolution:.1f} % "
        f"could not be told; {looks} looks against {len(slots) - looks} sleeps of their length by tossing a coin in "
        f"one run, reckoned at one look a second, which {100 * share:.1f} % of units meet ({(units.met == 1).sum()} "
        f"here); {figure}"
    )
    if core + doubt > _PERCENT_OF_A_CORE or p50.high > _PERCENT_OF_LATENCY or p99.low > _PERCENT_OF_LATENCY:
        raise Short(said)
    if p99.resolution > _COARSEST_PERCENT:
        raise Short(f"the machine is too busy to tell a p99: {said}")
    return said


COST = (Proof("cost", "at most 1 % of a core; p50 moves by less than 1 %, p99 not provably by more", _cost),)
