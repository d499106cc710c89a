"""1, 2, 4 and 8 cameras on one engine: what each of them costs, and whether any of them waits for the others."""

from __future__ import annotations

import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

from defectd.bench.procfs import CoreTime
from support.coded_pictures import HEIGHT_PX, WIDTH_PX
from support.collector import Event
from support.proving import Proof, Setting, Short
from support.proving_ground import Ground, ground
from support.station import workers_of

_CAMERAS = (1, 2, 4, 8)
_LINE_RATE_HZ = 4.0  # 240 boards a minute
_FAIR = 0.8  # the camera that gets least, as a share of the one that gets most
_COST_GROWS = 1.5  # processor time of a unit with eight cameras, at most so many times that with one
_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Figures:
    """Of one run. `least_share`: units of the camera with the fewest, as a share of the one with the most."""

    cameras: int
    units_per_s: float
    p50_ms: float
    p99_ms: float
    least_share: float
    slowest_camera: float
    cpu_ms_per_unit: float
    memory_mb: float
    errors: int

    def line(self) -> str:
        """For the report."""
        return (
            f"{self.cameras}: {self.units_per_s:.0f}/s, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.0f} ms, "
            f"least/most {self.least_share:.2f}, {self.cpu_ms_per_unit:.1f} ms CPU a unit, {self.memory_mb:.0f} MB"
        )


def _run(setting: Setting, cameras: int, rate_hz: float, for_s: float) -> Figures:
    directory = setting.directory / f"{cameras}"
    directory.mkdir()
    camera = {"kind": "replay", "path": directory / "pictures", "rate_hz": rate_hz, "loop": True}
    named: list[dict[str, Any]] = [
        {**camera, "name": f"cam{index}", "max_pixels": WIDTH_PX * HEIGHT_PX} for index in range(cameras)
    ]
    settings = {"camera": named, "mqtt": {"backlog_rate_hz": 0.0}, "telemetry": {"every_s": 3600.0}}
    with ground(directory, 60, rate_hz, settings) as here:
        here.await_units(4 * cameras)
        pids = {"daemon": here.daemon.pid, **{str(pid): pid for pid in workers_of(here.daemon.pid)}}
        before, counted, started_s = CoreTime.now(pids), _decided(here), time.monotonic()
        time.sleep(for_s)
        used, units = CoreTime.now(pids).since(before), _decided(here) - counted
        took_s = time.monotonic() - started_s
        memory_mb = sum(_pss_mb(pid) for pid in pids.values())
        events = here.collector.inspections[counted : counted + units]
        here.terminate()
        here.report(once=False, coded=False)
    return _figures(cameras, events, units, took_s, sum(used.process_s.values()), memory_mb)


def _decided(here: Ground) -> int:
    return len(here.collector.inspections)


def _pss_mb(pid: int) -> float:
    """Resident memory, shared pages by their share. 10^6 bytes."""
    found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(found.group(1)) * 1024 / 1e6 if found else 0.0


def _figures(
    cameras: int, events: Sequence[Event], units: int, took_s: float, cpu_s: float, memory_mb: float
) -> Figures:
    took_ms = sorted(event["timing_ms"]["capture_to_verdict"] for event in events)
    by_camera = {f"cam{index}": [] for index in range(cameras)}
    for event in events:
        by_camera[event["frame"]["camera"]].append(event["timing_ms"]["capture_to_verdict"])
    counts = [len(each) for each in by_camera.values()]
    medians = [statistics.median(each) for each in by_camera.values() if each]
    return Figures(
        cameras, units / took_s, statistics.median(took_ms), took_ms[int(len(took_ms) * 0.99)],
        min(counts) / max(counts), max(medians) / min(medians), cpu_s * 1000 / units, memory_mb,
        sum(event["verdict"] == "error" for event in events),
    )  # fmt: skip


def _at_the_lines_speed(setting: Setting) -> str:
    """Four units a second and camera: what one more camera costs, and that none waits longer than another."""
    runs = [_run(setting, cameras, _LINE_RATE_HZ, 6.0 if setting.quick else 15.0) for cameras in _CAMERAS]
    one, most = runs[0], runs[-1]
    memory_mb = (most.memory_mb - one.memory_mb) / (most.cameras - one.cameras)
    ratio = most.cpu_ms_per_unit / one.cpu_ms_per_unit
    figure = "; ".join(run.line() for run in runs)
    figure += f"; CPU of a unit with 8 cameras / with 1: {ratio:.2f}; memory of one more camera {memory_mb:.0f} MB"
    if any(run.errors for run in runs) or min(run.least_share for run in runs) < _FAIR or ratio > _COST_GROWS:
        raise Short(f"expected no errors, least/most of {_FAIR} or more, a CPU ratio up to {_COST_GROWS}: {figure}")
    return figure


def _saturated(setting: Setting) -> str:
    """As fast as the engine takes them: it is shared evenly, and does not lose by being shared."""
    runs = [_run(setting, cameras, 1000.0, 4.0 if setting.quick else 10.0) for cameras in _CAMERAS]
    ratio = runs[-1].units_per_s / runs[0].units_per_s
    figure = "; ".join(run.line() for run in runs) + f"; units/s with 8 / with 1: {ratio:.2f}"
    if min(run.least_share for run in runs) < _FAIR:
        raise Short(f"expected least/most of {_FAIR} or more: {figure}")
    return figure


MANY = (
    Proof("many.line-speed", "1 to 8 cameras at 240 units a minute each: cost, fairness", _at_the_lines_speed),
    Proof("many.saturated", "1 to 8 cameras that are never short of units: the engine is shared evenly", _saturated),
)
