"""Why one unit was slow, in one sentence with its numbers, or nothing. Pure.

A wrong explanation is worse than none: what held just as well while units were fast explains no slow one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Callable, Iterator, Mapping, Sequence

from defectd.clock import NS_PER_MS, NS_PER_S
from defectd.telemetry.latency import Figures
from defectd.telemetry.sample import DeviceSample, Frequency
from defectd.telemetry.throttle import oc_in_words

QUEUE = "queue"
"""The stage of the unit that waits for the engine."""

_REACH_NS = round(2.5 * NS_PER_S)  # of a sample: they come about once a second
_SLOWER = 1.25
_MOST_OF = 0.5
_COLD_SHARE, _COLD_FALL = 0.7, 0.8
_IDLE_S = 1.0
_SWAPPED_MB = 1.0
_STALLED_SHARE = 0.2
_BUSY_LOAD = 1.5
_FULL_SHARE, _FULL_MB = 0.01, 64.0
_UNUSUAL = 2.0
_CLOCKS: tuple[tuple[str, Callable[[DeviceSample], Frequency | None]], ...] = (
    ("GPU", lambda sample: sample.gpu),
    ("CPU", lambda sample: sample.cpu),
)


@dataclass(frozen=True)
class SlowUnit:
    """`at_ns` is CLOCK_MONOTONIC of the verdict; `stages_ms` the stages that were reached; `idle_s` how long the line
    had been idle before it, where that is known."""

    capture_to_verdict_ms: float
    at_ns: int
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    idle_s: float | None = None


@dataclass(frozen=True)
class Pressure:
    """/proc/pressure and /proc/loadavg at one moment: how long some task has waited since the boot (the `total` of
    `some`, µs), and the tasks that are ready per core. None: the kernel does not tell, as that of JetPack 5."""

    at_ns: int
    cpu_us: int | None = None
    io_us: int | None = None
    memory_us: int | None = None
    load_per_core: float | None = None

    @classmethod
    def of(cls, at_ns: int, cpu: str, io: str, memory: str, loadavg: str, cores: int) -> Pressure:
        """From the files' text, empty where there is no such file."""
        words = loadavg.split()
        try:
            load_per_core = float(words[0]) / cores if words else None
        except ValueError:
            load_per_core = None
        return cls(at_ns, _some_total_us(cpu), _some_total_us(io), _some_total_us(memory), load_per_core)


def explain(
    unit: SlowUnit, samples: Sequence[DeviceSample], usual: Figures | None, pressures: Sequence[Pressure] = ()
) -> str | None:
    """One sentence; None if it was not slow, or nothing explains it. *samples* and *pressures* are those of the last
    minute or so, in order, best with one from after the unit (a counter tells only of the time between two); *usual*
    is of capture to verdict, None if that is not known yet."""
    usual_ms = 0.0 if usual is None else usual.p50_ms
    extra_ms = unit.capture_to_verdict_ms - usual_ms
    if extra_ms <= 0 or unit.capture_to_verdict_ms < _SLOWER * usual_ms:
        return None
    queue_ms = unit.stages_ms.get(QUEUE, 0.0)
    queued = queue_ms > 0 and queue_ms >= _MOST_OF * extra_ms
    around = _Around(unit)
    cause = next(_causes(unit, samples, pressures, around, queued), None)
    if cause is None:
        return None
    instead = "" if usual is None else f" instead of the usual {usual_ms:.0f} ms"
    return f"{unit.capture_to_verdict_ms:.0f} ms{instead}: {cause}"


class _Around:
    """Which samples tell of the unit's own time."""

    def __init__(self, unit: SlowUnit) -> None:
        self._end_ns = unit.at_ns
        self.start_ns = unit.at_ns - round(unit.capture_to_verdict_ms * NS_PER_MS)

    def near(self, at_ns: int) -> bool:
        return self.start_ns - _REACH_NS <= at_ns <= self._end_ns + _REACH_NS

    def overlaps(self, from_ns: int, to_ns: int) -> bool:
        """Of an interval between two samples; one across a pause of the sampler tells of no moment in it."""
        return from_ns < self._end_ns and self.start_ns < to_ns and to_ns - from_ns <= 4 * _REACH_NS


def _causes(
    unit: SlowUnit, samples: Sequence[DeviceSample], pressures: Sequence[Pressure], around: _Around, queued: bool
) -> Iterator[str]:
    """The best evidence first; the queue last, for something had made those before it slow."""
    yield from _throttle(samples, around)
    yield from _swap(samples, pressures, around)
    if not queued:
        yield from _cold_clocks(unit, samples, around)
    yield from _disk(samples, pressures, around)
    yield from _another_process(pressures, around)
    if queued:
        yield f"it waited {unit.stages_ms[QUEUE]:.0f} ms for the engine, behind other units"


def _throttle(samples: Sequence[DeviceSample], around: _Around) -> Iterator[str]:
    near = [sample for sample in samples if around.near(sample.at_ns)]
    for sample in near:
        if sample.throttle.alerts:
            heat = "" if sample.hottest_c is None else f" at {sample.hottest_c:.1f} °C"
            yield f"the heat slowed {_listed(sample.throttle.alerts)} down{heat}{_gpu_clock(sample)}"
    for before, after in zip(samples, samples[1:]):
        if around.overlaps(before.at_ns, after.at_ns):
            counted = _counted(before.throttle.oc_events, after.throttle.oc_events)
            if counted:
                yield f"the power supply could not follow: {oc_in_words(counted)}{_gpu_clock(after)}"
    always_capped = len(samples) > len(near) and all(sample.throttle.capped for sample in samples)
    for sample in near:
        if sample.throttle.capped and not always_capped:
            yield f"the limit of {_listed(sample.throttle.capped)} was below the power mode's{_gpu_clock(sample)}"
        if sample.throttle.crit_alarms:
            yield f"{_listed(sample.throttle.crit_alarms)} drew more than its critical current{_gpu_clock(sample)}"


def _swap(samples: Sequence[DeviceSample], pressures: Sequence[Pressure], around: _Around) -> Iterator[str]:
    for before, after in zip(samples, samples[1:]):
        if before.swap_used_mb is None or after.swap_used_mb is None or not around.overlaps(before.at_ns, after.at_ns):
            continue
        if after.swap_used_mb - before.swap_used_mb >= _SWAPPED_MB:
            left = (
                "" if after.mem_available_mb is None else f"; {after.mem_available_mb:.0f} MB of memory were available"
            )
            yield f"{after.swap_used_mb - before.swap_used_mb:.0f} MB were swapped out meanwhile{left}"
    stalled = _stalled(pressures, around, lambda pressure: pressure.memory_us)
    if stalled is not None:
        yield f"tasks waited for memory {stalled:.0%} of that time (swap, or pages read again from the disk)"


def _cold_clocks(unit: SlowUnit, samples: Sequence[DeviceSample], around: _Around) -> Iterator[str]:
    """It began at a low clock, which was higher before, or had a reason to sink: the line was idle."""
    before = [sample for sample in samples if sample.at_ns <= around.start_ns and around.near(sample.at_ns)]
    for name, clock_of in _CLOCKS:
        clock = clock_of(before[-1]) if before else None
        if clock is None or clock.current_mhz is None or clock.max_mhz is None:
            continue
        most_mhz = max((_current_mhz(clock_of(sample)) for sample in samples), default=0.0)
        idle = unit.idle_s is not None and unit.idle_s >= _IDLE_S
        sunk = clock.current_mhz <= _COLD_FALL * most_mhz
        if clock.current_mhz <= _COLD_SHARE * clock.max_mhz and (idle or sunk):
            pause = f" after {unit.idle_s:.1f} s of idleness" if idle else ""
            yield f"the clocks were cold{pause}: the {name} was at {clock.current_mhz:.0f} of {clock.max_mhz:.0f} MHz"
        return  # without a GPU's clock, and only then, the CPU's counts


def _disk(samples: Sequence[DeviceSample], pressures: Sequence[Pressure], around: _Around) -> Iterator[str]:
    stalled = _stalled(pressures, around, lambda pressure: pressure.io_us)
    if stalled is not None:
        yield f"the disk was busy: tasks waited for it {stalled:.0%} of that time"
    full = [sample for sample in samples if _is_full(sample)]
    filled = [sample for sample in full if around.near(sample.at_ns)]
    if filled and len(full) < len(samples):  # full all the time: then it was, too, when units were fast
        yield f"the disk ran full: {filled[0].disk_free_mb:.0f} MB were free"


def _another_process(pressures: Sequence[Pressure], around: _Around) -> Iterator[str]:
    stalled = _stalled(pressures, around, lambda pressure: pressure.cpu_us)
    if stalled is not None:
        yield f"the CPU was busy with other work: tasks waited for a core {stalled:.0%} of that time"
    loads = [(pressure.at_ns, pressure.load_per_core) for pressure in pressures if pressure.load_per_core is not None]
    near = max((load for at_ns, load in loads if around.near(at_ns)), default=0.0)
    if _is_unusual(near, [load for at_ns, load in loads if not around.near(at_ns)], _BUSY_LOAD):
        yield f"the CPU was busy with other work: {near:.1f} tasks per core were ready to run"


def _stalled(
    pressures: Sequence[Pressure], around: _Around, total_us: Callable[[Pressure], int | None]
) -> float | None:
    """Which share of the unit's time some task waited; None if it is small, or usual."""
    near: list[float] = []
    others: list[float] = []
    for before, after in zip(pressures, pressures[1:]):
        from_us, to_us = total_us(before), total_us(after)
        if from_us is None or to_us is None or after.at_ns <= before.at_ns or to_us < from_us:
            continue
        share = min(1.0, (to_us - from_us) * 1000 / (after.at_ns - before.at_ns))
        (near if around.overlaps(before.at_ns, after.at_ns) else others).append(share)
    worst = max(near, default=0.0)
    return worst if _is_unusual(worst, others, _STALLED_SHARE) else None


def _is_unusual(value: float, others: Sequence[float], least: float) -> bool:
    return value >= least and (not others or value >= _UNUSUAL * median(others))


def _is_full(sample: DeviceSample) -> bool:
    if sample.disk_free_mb is None:
        return False
    return sample.disk_free_mb < max(_FULL_MB, _FULL_SHARE * (sample.disk_total_mb or 0.0))


def _counted(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in after.items() if count > before.get(name, count)}


def _some_total_us(text: str) -> int | None:
    """Of `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`."""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        total = rest.rpartition("total=")[2]
        if kind == "some" and total.isdigit():
            return int(total)
    return None


def _current_mhz(clock: Frequency | None) -> float:
    return 0.0 if clock is None else clock.current_mhz or 0.0


def _gpu_clock(sample: DeviceSample) -> str:
    return f"; the GPU was at {_current_mhz(sample.gpu):.0f} MHz" if _current_mhz(sample.gpu) else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
