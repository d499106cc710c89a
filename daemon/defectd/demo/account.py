"""Whether every unit of the demo is accounted for, and the summary that says so. PURE."""

from __future__ import annotations

from collections import Counter
from typing import Sequence

from defectd.demo.truth import MIN_IOU, Score
from defectd.watch.tally import StationTally, quantile

_VERDICTS = ("passed", "failed", "error", "aborted", "skipped")


def problems(station: StationTally, units: int | None, first_trigger: int = 1) -> list[str]:
    """Why not every unit is accounted for; empty if all arrived exactly once, without a gap."""
    found = []
    if units is not None and station.units != units:
        found.append(f"{station.units} of {units} units arrived")
    if station.units and station.seq.first != 1:
        found.append(f"events begin with {station.seq.first}, expected 1")
    if station.lost:
        found.append(f"{station.lost} events were given up")
    found += [f"missing: seq {_range(hole)}" for hole in station.seq.holes]
    for camera, triggers in station.triggers.items():
        if triggers.first != first_trigger:
            found.append(f"camera {camera}: units begin with trigger {triggers.first}, expected {first_trigger}")
        found += [f"missing: camera {camera} trigger {_range(hole)}" for hole in triggers.holes]
        if triggers.duplicates:
            found.append(f"camera {camera}: {triggers.duplicates} triggers have more than one verdict")
    return found


def summary(station: StationTally, score: Score, errors: Counter[str], troubles: Sequence[str]) -> list[str]:
    """The demo's last words, a line for each thing that it shows."""
    verdicts = ", ".join(f"{station.verdicts[verdict]} {verdict}" for verdict in _VERDICTS
                         if station.verdicts[verdict] or verdict in ("passed", "failed", "error"))  # fmt: skip
    lines = [f"{station.units} units: {verdicts}"]
    if errors:
        reasons = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in errors.most_common())
        lines.append(f"no judgement because: {reasons}")
    lines.append(
        f"{score}: {score.defects} real defects, {score.findings} reported, {score.hits} right (IoU >= {MIN_IOU})"
    )
    lines.append(_latency(station))
    if not station.units:
        lines = ["no unit was inspected"]
    if troubles:
        lines += ["NOT every unit is accounted for:", *(f"  {trouble}" for trouble in troubles)]
    elif station.units:
        redelivered = f", {station.redelivered} delivered twice and counted once" if station.redelivered else ""
        triggers = " and ".join(f"triggers {one.first}-{one.last}" for one in station.triggers.values())
        lines.append(
            f"every unit accounted for: {triggers}, {station.units} verdicts, "
            f"events {station.seq.first}-{station.seq.last} without a gap{redelivered}"
        )
    return lines


def _latency(station: StationTally) -> str:
    p50_ms, p99_ms = quantile(station.latencies_ms, 0.5), quantile(station.latencies_ms, 0.99)
    if p50_ms is None or p99_ms is None:
        return "picture to verdict: no unit"
    limit = f", limit {station.birth.deadline_ms:.0f} ms" if station.birth else ""
    window = f" (last {len(station.latencies_ms)} units)" if len(station.latencies_ms) < station.units else ""
    return f"picture to verdict: p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms{limit}{window}"


def _range(hole: tuple[int, int]) -> str:
    return str(hole[0]) if hole[0] == hole[1] else f"{hole[0]} to {hole[1]}"
