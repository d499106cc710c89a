"""An upgrade that is struck in each of its phases: the laptop is carried off, or the host reboots. In a loop."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Callable

from support.controller import Run
from support.factory import Factory, Station, deployed, factory
from support.proving import Proof, Setting, Short

OFF_S = 3.0
REBOOTED_RUN_S = 900.0


@dataclass(frozen=True)
class Moment:
    """*after_s* after the task *task* has begun."""

    task: str
    after_s: float = 0.0


# What comes before the lock changes nothing there; a switch whose laptop is gone waits two minutes for its word.
MOMENTS = (
    Moment("what kind of machine it is"),
    Moment("one deployment at a time"),
    Moment("ship the wheels", 0.5),
    Moment("install them beside what runs", 0.5),
    Moment("install them beside what runs", 5.0),
    Moment("describe the board"),
    Moment("the doctor of the new release", 2.0),
    Moment("stop the old one, start the new one", 0.5),
    Moment("stop the old one, start the new one", 1.0),
    Moment("stop the old one, start the new one", 4.0),
    Moment("wait for its verdict", 3.0),
    Moment("keep few"),
)
_QUICK = ("ship the wheels", "install them beside what runs", "stop the old one, start the new one")


def _carried_off(here: Factory, station: Station, run: Run) -> None:
    """Power and cable at once: the station sees neither an end of the connection nor an answer."""
    here.network.cut(station.port)
    run.kill()
    time.sleep(OFF_S)
    here.network.mend(station.port)


def _rebooted(here: Factory, station: Station, run: Run) -> None:
    """The laptop stays, and says what it makes of it."""
    station.reboot()
    run.wait(REBOOTED_RUN_S)


def _struck(setting: Setting, strike: Callable[[Factory, Station, Run], None], series: int) -> str:
    here = factory()
    station, _ = here.on("0.2.1")
    moments = [one for one in MOMENTS if not setting.quick or (one.task in _QUICK and one.after_s == 0.5)]
    outcomes: Counter[str] = Counter()
    problems, worst_s, missed = [], 0.0, []
    for number, moment in enumerate(moments):
        before, version = station.release(), f"1.{series}.{number}"
        began_s = time.time()
        run = here.controller.begin("deploy", "orin01", VERSION=here.wheel(version))
        where = f"{moment.task} +{moment.after_s:g} s"
        if not run.reaches(moment.task):
            missed.append(where)
            run.wait()
            continue
        time.sleep(moment.after_s)
        strike(here, station, run)
        try:
            outcomes[_afterwards(here, station, before, version)] += 1
        except Short as short:
            problems.append(f"{where}: {short}")
        worst_s = max(worst_s, station.silence_s(began_s))
    if problems or missed:
        raise Short(f"{len(problems)} of {len(moments)} moments: {'; '.join(problems)}; not reached: {missed}")
    return (
        f"{len(moments)} moments of an upgrade: "
        f"{', '.join(f'{count} times {what}' for what, count in sorted(outcomes.items()))}; the same command again: "
        f"{len(moments)} times the new release, nothing left over; longest time without inspection {worst_s:.0f} s, "
        f"{station.holes()} numbers missing"
    )


def _afterwards(here: Factory, station: Station, before: str, version: str) -> str:
    """What the station does by itself, and after the same command again."""
    station.settled()
    station.inspects()
    alone = station.release()
    if alone != before and not alone.startswith(f"{version}+"):
        raise Short(f"it runs {alone}")
    deployed(here.controller.make("deploy", "orin01", VERSION=here.wheel(version)))
    station.inspects()
    if not station.release().startswith(f"{version}+") or station.stray() or station.holes():
        raise Short(f"{station.release()}, {station.stray()}, {station.holes()} numbers missing")
    return f"on {'the old' if alone == before else 'the new'} release"


def _cut(setting: Setting) -> str:
    return _struck(setting, _carried_off, 0)


def _reboots(setting: Setting) -> str:
    return _struck(setting, _rebooted, 1)


def _cable(setting: Setting) -> str:
    """The cable alone, in the middle of what takes longest: what the engineer reads, and that it can go on."""
    here = factory()
    station, _ = here.on("0.2.1")
    before = station.release()
    run = here.controller.begin("deploy", "orin01", VERSION=here.wheel("1.2.0"))
    run.reaches("ship the wheels")
    here.network.cut(station.port)
    try:
        run.wait()
    finally:
        here.network.mend(station.port)
    if run.code == 0 or "run the same command again" not in run.message:
        raise Short(run.message[-800:])
    station.inspects()
    if station.release() != before:
        raise Short(f"it runs {station.release()}")
    again = deployed(here.controller.make("deploy", "orin01", VERSION=here.wheel("1.2.0")))
    if station.stray():
        raise Short(f"left: {station.stray()}")
    told = next(line for line in run.message.splitlines() if "run the same command again" in line)
    return f"after {run.took_s:.0f} s: …{told[told.index('If the connection') :]}; again: {again.table['orin01'][1]}"


INTERRUPTED = (
    Proof("struck.cable", "the cable is pulled while wheels are sent, and stays out", _cable),
    Proof("struck.carried-off", "laptop and cable gone in each phase: it inspects, and the next run repairs", _cut),
    Proof("struck.reboot", "the host reboots in each phase: it inspects, and the next run repairs", _reboots),
)
