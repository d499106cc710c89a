"""Several stations, several people."""

from __future__ import annotations

import re
import time

from acceptance.deploy_life import crash_after
from support.factory import Factory, Station, deployed, factory
from support.proving import Proof, Setting, Short


def second(here: Factory) -> Station:
    """orin02, booted and clean if it was not there."""
    here.orin01()
    return here.stations.get("orin02") or here.add("orin02", "10.77.0.12")


def _waves(setting: Setting) -> str:
    here = factory()
    two = second(here)
    good = deployed(here.controller.make("deploy", "orin01,orin02", VERSION=here.wheel("0.2.1")))
    one = here.stations["orin01"]
    two.inspects()
    before = {station.name: (station.release(), station.shows("InvocationID")) for station in (one, two)}
    bad = here.controller.make("deploy", "orin01,orin02", VERSION=here.wheel("0.3.3", crash_after(3)))
    if bad.code == 0:
        raise Short(f"make ended with 0: {bad.table}")
    for station in (one, two):
        station.settled()
        station.inspects()
    if one.release() != before["orin01"][0]:
        raise Short(f"the canary runs {one.release()}")
    if (two.release(), two.shows("InvocationID")) != before["orin02"]:
        raise Short("the second station was touched")
    ship = [line for line in bad.text.splitlines() if line.startswith(("changed: [orin02]", "ok: [orin02]"))]
    if ship or bad.table.get("orin02", [""] * 2)[1] != "not begun":
        raise Short(f"orin02: {ship[:3]}, table: {bad.table}")
    return (
        f"good: {_rows(good.table)} in {good.took_s:.0f} s; bad canary: {_rows(bad.table)}; "
        f"orin02 still the same process, not one task ran there"
    )


def _rows(table: dict[str, list[str]]) -> str:
    return "; ".join(
        f"{host} {' | '.join(cell[:70] for cell in cells[:2] + cells[4:])}" for host, cells in table.items()
    )


def _two_people(setting: Setting) -> str:
    here = factory()
    station, _ = here.on("0.2.1")
    wheels = here.wheel("0.4.0"), here.wheel("0.4.1")
    anna = here.controller.begin("deploy", "orin01", user="anna", VERSION=wheels[0])
    time.sleep(1)
    bert = here.controller.begin("deploy", "orin01", user="bert", VERSION=wheels[1])
    anna.wait(), bert.wait()
    codes = {"anna": anna.code, "bert": bert.code}
    if sorted(bool(code) for code in codes.values()) != [False, True]:
        raise Short(f"they ended with {codes}; {bert.message[-600:]}")
    winner, loser, version = (anna, bert, "0.4.0") if anna.code == 0 else (bert, anna, "0.4.1")
    told = re.search(r"(anna|bert)@\S+ is deploying here[^\"\n]*", loser.message)
    station.inspects()
    if told is None or not station.release().startswith(version) or station.stray():
        raise Short(f"{loser.message[-600:]}; {station.release()}; {station.stray()}")
    return f"the second reads: {told.group()}; the first: {winner.table['orin01'][1]}, {station.release()} inspects"


LINE = (
    Proof("line.waves", "one first, then the rest; the first failure stops it; a table", _waves),
    Proof("line.two-people", "two deploy at once: one does, the other is told who", _two_people),
)
