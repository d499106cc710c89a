"""Bad days inside the host: the daemon frozen, memory at its limit, and what the sandbox scores there."""

from __future__ import annotations

import json
import time

from acceptance.deploy_life import start_time_s
from support.factory import Station, deployed, factory, unix_s
from support.proving import Proof, Setting, Short

_SCORE_LIMIT = 1.5
_MEMORY_MAX = "2G"
# Many small takers of memory inside the unit's cgroup, until the kernel has killed something there: each is smaller
# than a worker, so that it is not one of them.
_HOG = """
import glob, json, os, pathlib, signal, time
found = glob.glob("/sys/fs/cgroup/memory/**/defectd.service/cgroup.procs", recursive=True)
found += glob.glob("/sys/fs/cgroup/**/defectd.service/cgroup.procs", recursive=True)
group = pathlib.Path(found[0])
def names():
    named = {}
    for pid in group.read_text().split():
        try:
            named[pid] = pathlib.Path(f"/proc/{pid}/cmdline").read_text().replace(chr(0), " ").strip()
        except OSError:
            pass
    return named
before, takers, began = names(), [], time.monotonic()
limits = [group.with_name(name) for name in ("memory.limit_in_bytes", "memory.max")]
limit = next(one.read_text().strip() for one in limits if one.exists())
while set(before) <= set(group.read_text().split()) and time.monotonic() - began < 60:
    pid = os.fork()
    if pid == 0:
        group.write_text(str(os.getpid()))
        kept = bytearray(os.urandom(1 << 20) * 32)
        time.sleep(100)
        os._exit(0)
    takers.append(pid)
    time.sleep(0.1)
for pid in takers:
    os.kill(pid, signal.SIGKILL)
killed = [before[pid] for pid in before if pid not in group.read_text().split()]
print(json.dumps({"limit_mb": int(limit) >> 20, "taken_mb": len(takers) * 32, "killed": killed}))
"""


def _frozen(setting: Setting) -> str:
    station = factory().orin01()
    station.inspects()
    before, invocation, frozen_s = station.shows("NRestarts"), station.shows("InvocationID"), time.time()
    pid = station.shows("MainPID")
    station.host.run(f"kill -STOP {pid}")
    deadline_s = time.time() + 150
    while station.shows("NRestarts") == before:
        if time.time() > deadline_s:
            raise Short("the watchdog does not bite")
        time.sleep(0.5)
    noticed_s = time.time() - frozen_s
    station.inspects()
    told = station.host.run(
        f"journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID={invocation} + UNIT=defectd.service | tail -60"
    )
    if "atchdog" not in told:
        raise Short(f"it was not the watchdog: {told[-600:]}")
    if station.holes():
        raise Short(f"{station.holes()} numbers are missing")
    triggers = sorted(one["frame"]["trigger"] for one in station.events())
    return (
        f"watchdog restart noticed after {noticed_s:.0f} s, no inspection for {station.silence_s(frozen_s):.0f} s "
        f"(a start takes {start_time_s(station):.0f}); {len(triggers)} events, seq contiguous, none lost"
    )


def _memory(setting: Setting) -> str:
    here = factory()
    here.orin01()
    inventory = here.write_inventory("limited.yml", station_board=[f"--memory-max={_MEMORY_MAX}"])
    deployed(here.controller.make("deploy", "orin01", INVENTORY=inventory))
    station = here.orin01()
    station.inspects()
    if station.shows("MemoryMax") != str(2 << 30):
        raise Short(f"MemoryMax is {station.shows('MemoryMax')}")
    struck_s, main = time.time(), station.shows("MainPID")
    said = json.loads(station.host.run("python3 -", feed=_HOG.encode(), timeout_s=120).splitlines()[-1])
    station.inspects()
    if not said["killed"]:
        raise Short(f"nothing was killed: {said}")
    if station.shows("MainPID") != main or station.holes():
        raise Short(f"the daemon itself is another one, or {station.holes()} numbers are missing; {said}")
    faults = {
        f"{one['component']} {one['code']}"
        for one in here.network.events("orin01", "fault")
        if unix_s(one["created_at"]) > struck_s
    }
    errors = [one for one in station.events() if one["verdict"] == "error" and unix_s(one["started_at"]) > struck_s]
    silence_s = station.silence_s(struck_s)
    deployed(here.controller.make("deploy", "orin01"))
    return (
        f"limit {said['limit_mb']} MB; with {said['taken_mb']} MB taken beside it the kernel took "
        f"{', '.join(_short(one) for one in said['killed'])}; the daemon lived on "
        f"({', '.join(sorted(faults)) or 'no fault'}), {len(errors)} units with the verdict error, "
        f"next good one after {silence_s:.1f} s, seq contiguous"
    )


def _short(command: str) -> str:
    words = command.split()
    return " ".join(word.rpartition("/")[2] for word in words[1:4]) or command


def _score(setting: Setting) -> str:
    station = factory().orin01()
    last = station.host.run("systemd-analyze security --no-pager defectd.service").splitlines()[-1]
    score = float(last.partition("defectd.service: ")[2].split()[0])
    if score > _SCORE_LIMIT:
        raise Short(f"{score}")
    return f"{score} (limit {_SCORE_LIMIT}), in the running unit with the board's drop-in"


def _broker_away(setting: Setting) -> str:
    """The cable to the station is pulled for half a minute."""
    here, station = factory(), factory().orin01()
    station.inspects()
    begun_s = time.time()
    here.network.cut(station.port)
    try:
        time.sleep(30)
    finally:
        here.network.mend(station.port)
    station.inspects()
    _await_all(station)
    during = [one for one in station.events() if begun_s < unix_s(one["started_at"]) < begun_s + 30]
    if station.holes() or not during:
        raise Short(f"{station.holes()} numbers are missing, {len(during)} units of the time without cable")
    return f"{len(during)} units judged without a cable for 30 s, all of them arrived later; seq contiguous"


def _await_all(station: Station, within_s: float = 60) -> None:
    deadline_s = time.time() + within_s
    while station.holes() and time.time() < deadline_s:
        time.sleep(0.5)


DAYS = (
    Proof("day.frozen", "kill -STOP of the daemon: the watchdog restarts it, no event is lost", _frozen),
    Proof("day.memory", "MemoryMax hit: a worker goes, the daemon stays and inspects", _memory),
    Proof("day.cable", "no network for half a minute: nothing is lost", _broker_away),
    Proof("day.score", "systemd-analyze security in the running unit", _score),
)
