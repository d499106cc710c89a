"""The wall clock steps while the line runs, and begins in 1970: nothing is lost, ids stay in order, and it is told."""

from __future__ import annotations

import time
from itertools import groupby
from pathlib import Path

from acceptance.telemetry_line import closed, line
from support.collector import Event, wall_time_s
from support.heat import Heard
from support.proving import Proof, Setting, Short
from support.trees import tree

_CLOCK = """import datetime, time, types
def told():
    with open({file!r}) as file:
        ahead, synced = file.read().split()
    return float(ahead), synced == "synced"
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + told()[0]
time.time_ns = lambda: real_ns() + int(told()[0] * 1e9)
import defectd.clock as clock
clock.utc_now = lambda: datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=told()[0])
from defectd.telemetry import clock_sync
def adjtimex(timex):
    timex[40] = bytes([0 if told()[1] else 0x40])
    return 0
clock_sync._LIBRARY = types.SimpleNamespace(adjtimex=adjtimex)
"""
"""The clock that all code of the daemon and its workers looks at, and what the kernel says of it; both as the file
says. Its real one belongs to everybody on this machine."""

_HOUR_S = 3600.0
_UNITS = 100
_SILENCE_S = 4.0


def _set(clock: Path, ahead_s: float, synced: str) -> None:
    temporary = clock.with_suffix(".new")
    temporary.write_text(f"{ahead_s} {synced}")
    temporary.replace(clock)


def _steps(setting: Setting) -> str:
    """True time, an hour ahead, an hour behind, true again."""
    return _run(setting, [(0.0, "synced"), (_HOUR_S, "synced"), (-_HOUR_S, "unsynced"), (0.0, "synced")])


def _from_1970(setting: Setting) -> str:
    """A boot without a battery: 1970 until a time server answers."""
    return _run(setting, [(600 - time.time(), "unsynced"), (0.0, "synced")])


def _run(setting: Setting, plan: list[tuple[float, str]]) -> str:
    roots, clock = tree(setting.directory / "machine", "agx-orin-jp6"), setting.directory / "clock"
    _set(clock, *plan[0])
    with line(setting, roots, first=_CLOCK.format(file=str(clock))) as (here, heard):
        for ahead_s, synced in plan:
            _set(clock, ahead_s, synced)
            here.await_units(len(here.collector.inspections) + _UNITS)
        if heard.silence_s > _SILENCE_S:
            raise Short(f"tele/device was silent for {heard.silence_s:.1f} s around a step of the clock")
        figure = closed(here, heard)
        units = sorted(here.collector.inspections, key=lambda event: event["seq"])
        told = f"tele/device at least each {heard.silence_s:.1f} s"
        return f"{_told(heard, plan)}; {_order(units)}; {_times(units, plan)}; {told}; {figure}"


def _told(heard: Heard, plan: list[tuple[float, str]]) -> str:
    """Whether the clock can be believed, in telemetry and with each unit. Raises Short."""
    words = {"synced": "ntp-synced", "unsynced": "unsynced"}
    expected = [word for word, _ in groupby(words[synced] for _, synced in plan)]
    device = [word for word, _ in groupby(message["clock"] for message in heard.device)]
    units = [
        word for word, _ in groupby(
            event["conditions"]["clock"] for _, event in heard.of("evt/inspection") if event["conditions"]
        )
    ]  # fmt: skip
    if device != expected or units != expected:
        raise Short(f"clock is {device} in tele/device and {units} with the units, expected {expected}")
    return f"clock {' > '.join(expected)}"


def _order(units: list[Event]) -> str:
    """Ids rise as the seq does. Raises Short."""
    ids = [event["id"] for event in units]
    falls = [f"{before} > {after}" for before, after in zip(ids, ids[1:]) if before >= after]
    if falls:
        raise Short(f"{len(falls)} ids are not in the order of their seq: {falls[:3]}")
    return f"{len(ids)} ids in order"


def _times(units: list[Event], plan: list[tuple[float, str]]) -> str:
    """Wall times follow the clock, durations do not. Raises Short."""
    strange = [
        event["unit_id"] for event in units
        if not 0 < event["timing_ms"]["capture_to_verdict"] < 60_000
        or wall_time_s(event["ended_at"]) < wall_time_s(event["started_at"])
    ]  # fmt: skip
    if strange:
        raise Short(f"durations that cannot be: {strange[:5]}")
    times_s = [wall_time_s(event["started_at"]) for event in units]
    jumps_s = [after - before for before, after in zip(times_s, times_s[1:]) if abs(after - before) > _HOUR_S / 2]
    expected_s = [after[0] - before[0] for before, after in zip(plan, plan[1:])]
    if len(jumps_s) != len(expected_s) or any(abs(a - b) > 10 for a, b in zip(jumps_s, expected_s)):
        raise Short(f"wall times jump by {jumps_s} s, expected {expected_s}")
    return f"wall times jump by {', '.join(f'{jump:+.0f} s' for jump in jumps_s)}, and no duration does"


CLOCK = (
    Proof("clock.steps", "steps of an hour forth and back: nothing lost, ids in order, told", _steps),
    Proof("clock.1970", "a start in 1970, and the right time later: the same", _from_1970),
)
