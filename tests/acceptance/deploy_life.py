"""The life of one station: first deployment, the same again, upgrade, bad releases, back, reboot, out."""

from __future__ import annotations

import json
import re
import time

from support.controller import Run
from support.factory import TARGET, Station, deployed, factory, unix_s
from support.proving import Proof, Setting, Short

_SHIP = (
    "ship the wheels", "ship certificates", "ship the model", "ship the configuration, not in effect yet",
    "the program that works there",
)  # fmt: skip
_WAIT = (
    "stop the old one, start the new one", "look for it at the broker, from here", "wait for its verdict",
    "and from the station, where this machine cannot",
)  # fmt: skip
_INSTALL = ("install them beside what runs",)
_NEVER_READY = {"daemon.py": ('notify("READY=1")', 'raise SystemExit("a release that cannot start")')}


def crash_after(seconds: float) -> dict[str, tuple[str, str]]:
    """Becomes READY and dies that much later."""
    dies = f'notify("READY=1"); threading.Timer({seconds}, __import__("os")._exit, (70,)).start()'
    return {"daemon.py": ('notify("READY=1")', dies)}


def shares(run: Run) -> str:
    """Where the time of a deployment went."""
    pip_s, ship_s, wait_s = run.spent_s(*_INSTALL), run.spent_s(*_SHIP), run.spent_s(*_WAIT)
    doctor_s = run.spent_s("the doctor of the new release")
    rest_s = run.took_s - pip_s - ship_s - wait_s - doctor_s
    return (
        f"{run.took_s:.0f} s (pip and compiling {pip_s:.0f}, transfer {ship_s:.0f}, doctor {doctor_s:.0f}, "
        f"start and watching {wait_s:.0f}, the rest {rest_s:.0f})"
    )


def _first(setting: Setting) -> str:
    """Nothing is there but systemd, sshd, Python and torch. The laptop has no internet any more."""
    here = factory()
    if "orin01" in here.stations:
        here.remove("orin01")
    here.wheels_for(TARGET)
    station = here.add("orin01", "10.77.0.11")
    would = deployed(here.controller.make("deploy", "orin01", CHECK="1")).table["orin01"]
    if station.host.run("ls -d /opt/defectd /etc/defectd /var/lib/defectd 2>/dev/null || true").strip():
        raise Short("CHECK=1 has changed something")
    run = deployed(here.controller.make("deploy", "orin01"))
    arrived_s = station.inspects()
    known = re.findall(r"New client connected .*\bu'orin01'", (here.directory / "mosquitto.log").read_text())
    if not known:
        raise Short("the broker's log does not know the station by its certificate")
    return (
        f"{shares(run)}; set-up of the laptop and wheels before: {here.fetch_s[TARGET]:.0f} s; CHECK=1: "
        f"{would[1]}: {would[4]}; table: {' | '.join(run.table['orin01'])}; next unit at the MES, by certificate, "
        f"{arrived_s:.1f} s later"
    )


def _again(setting: Setting) -> str:
    here, station = factory(), factory().orin01()
    deployed(here.controller.make("deploy", "orin01"))
    before_s = time.time()
    run = deployed(here.controller.make("deploy", "orin01"))
    if run.changed("orin01") != 0:
        raise Short(f"changed={run.changed('orin01')}")
    silence_s = station.silence_s(before_s)
    would = deployed(here.controller.make("deploy", "orin01", CHECK="1"))
    if would.changed("orin01") != 0 or "nothing" not in would.table["orin01"][4]:
        raise Short(f"CHECK=1 would change something: {would.table['orin01']}")
    return f"changed=0 in {run.took_s:.0f} s, longest time between two units {silence_s:.1f} s; CHECK=1: nothing"


def _status_line(setting: Setting) -> str:
    here, station = factory(), factory().orin01()
    station.inspects()
    time.sleep(6)
    shown = station.host.run("systemctl status --no-pager -n 0 defectd.service")
    line = next((one.strip() for one in shown.splitlines() if one.strip().startswith("Status:")), "")
    if " units: " not in line or "broker connected" not in line:
        raise Short(f"systemctl status says: {line or shown}")
    row = deployed(here.controller.make("status", "orin01")).table["orin01"]
    return f"systemctl: {line}; make status: {' | '.join(row)}"


# A release that has not run for weeks is not in memory any more.
_FORGET = """
import os, pathlib
size = 0
for path in pathlib.Path("/opt/defectd/releases/{}").rglob("*"):
    if path.is_file() and not path.is_symlink():
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
        size += path.stat().st_size
print(size >> 20)
"""
# When the engine's worker was begun, and what the journal says of this start of the daemon; Unix seconds.
_TIMES = """
import json, os, pathlib, subprocess, time
booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
def begun(pid):
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return booted + int(stat[19]) / os.sysconf("SC_CLK_TCK")
def told(*command):
    return subprocess.run(command, stdout=subprocess.PIPE).stdout.decode()
main = told("systemctl", "show", "-p", "MainPID", "--value", "defectd").strip()
(worker,) = [one.parent.name for one in pathlib.Path("/proc").glob("[0-9]*/cmdline")
             if b"defectd.engine.worker" in one.read_bytes().split(chr(0).encode())]
times = {"daemon": begun(main), "worker": begun(worker)}
for line in told("journalctl", "-o", "json", "--no-pager", f"_PID={main}").splitlines():
    entry = json.loads(line)
    for name, words in (("warm", " is warm: "), ("ready", "READY: inspecting")):
        if words in str(entry["MESSAGE"]):
            times[name] = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
print(json.dumps(times))
"""


def downtime(station: Station, since_s: float) -> str:
    """Without inspection, beside what one start of the engine's worker takes, and where the time went."""
    time.sleep(2)
    units = sorted((unix_s(one["started_at"]), unix_s(one["ended_at"])) for one in station.judged_since(since_s - 5))
    times = json.loads(station.host.run("python3 -", feed=_TIMES.encode()))
    last_s = max(ended for _, ended in units if ended < times["daemon"])
    first_s = min(ended for _, ended in units if ended > times["daemon"])
    worker_s = times["warm"] - times["worker"]
    down_s, stop_s, begin_s = first_s - last_s, times["daemon"] - last_s, times["worker"] - times["daemon"]
    return (
        f"no inspection for {down_s:.1f} s = {down_s / worker_s:.2f} starts of the engine's worker: {stop_s:.1f} until "
        f"the new daemon's first step, {begin_s:.1f} until its worker's, {worker_s:.1f} torch, model and warm-up, "
        f"{first_s - times['warm']:.1f} until the first unit"
    )


def start_time_s(station: Station) -> float:
    """From the start of the unit to READY, the last time."""
    told = station.host.run(
        "systemctl show defectd.service -p ExecMainStartTimestampMonotonic -p ActiveEnterTimestampMonotonic"
    )
    found = dict(line.split("=") for line in told.split())
    return (int(found["ActiveEnterTimestampMonotonic"]) - int(found["ExecMainStartTimestampMonotonic"])) / 1e6


def _upgrade(setting: Setting) -> str:
    here = factory()
    station, _ = here.on("0.2.0")
    state = station.host.run("stat -c %i /var/lib/defectd/outbox.db")
    before_s = time.time()
    run = deployed(here.controller.make("deploy", "orin01", VERSION=here.wheel("0.2.1")))
    station.inspects()
    if not station.release().startswith("0.2.1+"):
        raise Short(f"it runs {station.release()}")
    if station.holes() or state != station.host.run("stat -c %i /var/lib/defectd/outbox.db"):
        raise Short(f"{station.holes()} numbers are missing, or the outbox is another one")
    return f"{shares(run)}; {downtime(station, before_s)}; seq contiguous over both releases"


def _failed(setting: Setting, version: str, changes: dict[str, tuple[str, str]], word: str, **variables: str) -> str:
    here = factory()
    station, _ = here.on("0.2.1")
    before, before_s = station.release(), time.time()
    run = here.controller.make("deploy", "orin01", VERSION=here.wheel(version, changes), **variables)
    if run.code == 0:
        raise Short(f"make ended with 0: {run.table}")
    station.settled()
    station.inspects()
    if station.release() != before or word not in run.message or before not in run.message:
        raise Short(f"it runs {station.release()}; the report: {run.message[-1200:]}")
    report = next(line for line in run.message.splitlines() if "was not kept" in line)
    journal = sum(line.startswith("  20") for line in run.message.splitlines())
    return (
        f"{report[report.index(version) :].strip()}; back on {before} with {journal} lines of journal in the report; "
        f"no inspection for {station.silence_s(before_s):.0f} s, {station.holes()} numbers missing"
    )


def _never_ready(setting: Setting) -> str:
    return _failed(setting, "0.3.0", _NEVER_READY, "before it was READY")


def _crashes_in_a_minute(setting: Setting) -> str:
    here = factory()
    here.orin01()
    inventory = here.write_inventory("watched.yml", station_watch_s=90)
    return _failed(setting, "0.3.1", crash_after(60), "READY and then ended", INVENTORY=inventory)


def _crashes_later(setting: Setting) -> str:
    """After the watch nobody takes it back: systemd starts it again and again, and says how often."""
    here = factory()
    station, _ = here.on("0.2.1")
    bad = deployed(here.controller.make("deploy", "orin01", VERSION=here.wheel("0.3.2", crash_after(25))))
    since_s = time.time()
    deadline_s = since_s + 240
    while int(station.shows("NRestarts") or 0) < 2:
        if time.time() > deadline_s:
            raise Short(f"{station.shows('NRestarts')} restarts")
        time.sleep(1)
    row = deployed(here.controller.make("status", "orin01")).table["orin01"]
    units, missing = len(station.judged_since(since_s)), station.holes()
    back = deployed(here.controller.make("rollback", "orin01"))
    station.inspects()
    if not station.release().startswith("0.2.1+") or missing:
        raise Short(f"it runs {station.release()}, {missing} numbers missing")
    return (
        f"accepted ({bad.table['orin01'][1]}), then make status says: {row[4].split(', ')[0]}; {units} units between "
        f"the crashes, {missing} numbers missing; make rollback: {back.table['orin01'][4]}"
    )


def _rollback(setting: Setting) -> str:
    here = factory()
    old = here.on("0.2.0")[0].release()
    station, _ = here.on("0.2.1")
    dropped = station.host.run("python3 -", feed=_FORGET.replace("{}", old).encode()).strip()
    before_s = time.time()
    run = deployed(here.controller.make("rollback", "orin01"))
    station.inspects()
    if not station.release().startswith("0.2.0+"):
        raise Short(f"it runs {station.release()}")
    if station.holes():
        raise Short(f"{station.holes()} numbers are missing")
    return f"{dropped} MB of it dropped from memory; {' | '.join(run.table['orin01'])}; {downtime(station, before_s)}"


def _reboot(setting: Setting) -> str:
    station = factory().orin01()
    station.inspects()
    begun_s = time.time()
    station.reboot()
    station.inspects()
    first = min(
        unix_s(one["started_at"]) for one in station.judged_since(begun_s) if unix_s(one["started_at"]) > begun_s + 1
    )
    if station.holes():
        raise Short(f"{station.holes()} numbers are missing")
    return f"inspects again {first - begun_s:.1f} s after systemctl reboot, seq contiguous"


def _undeploy(setting: Setting) -> str:
    here, station = factory(), factory().orin01()
    ask = (
        "find / -xdev \\( -name '*defectd*' -o -path '/etc/defectd/*' -o -path '/var/lib/defectd/*' \\) | "
        "grep -vE '^/(proc|sys|run)/' | sort; getent passwd defectd || true; "
        "systemctl list-units --all --no-legend 'defectd*'"
    )
    run = deployed(here.controller.make("undeploy", "orin01"))
    left = station.host.run(ask).splitlines()
    others = [one for one in left if not one.startswith(("/etc/defectd", "/var/lib/defectd", "defectd:"))]
    again = deployed(here.controller.make("undeploy", "orin01"))
    kept = run.table["orin01"][4]
    numbers = max(one["seq"] for one in station.events())
    deployed(here.controller.make("deploy", "orin01"))
    station.inspects()
    if station.holes() or max(one["seq"] for one in station.events()) <= numbers:
        raise Short("the events do not go on where they ended")
    purged = deployed(here.controller.make("undeploy", "orin01", PURGE="1"))
    last = station.host.run(ask).splitlines()
    if others or last:
        raise Short(f"left: {others}; after PURGE=1: {last}")
    return (
        f"{kept}; a second time: {again.table['orin01'][1]}; deployed anew, seq goes on; "
        f"PURGE=1: {purged.table['orin01'][4]}, found on the whole disk: {len(last)} paths"
    )


LIFE = (
    Proof("first", "a clean host, a fresh clone without internet: it inspects, and the MES has it over TLS", _first),
    Proof("again", "a second run changes nothing", _again),
    Proof("status", "systemctl status and make status tell a technician what is going on", _status_line),
    Proof("upgrade", "the new release inspects; how long nobody did", _upgrade),
    Proof("bad.never-ready", "a release that does not become READY: back, with a report why", _never_ready),
    Proof("bad.crashes-watched", "READY, and dead after a minute: back, with a report why", _crashes_in_a_minute),
    Proof("bad.crashes-later", "dead after the watch: counted restarts, and make rollback", _crashes_later),
    Proof("rollback", "back by hand", _rollback),
    Proof("reboot", "the host reboots: it inspects again", _reboot),
)
LAST = (Proof("undeploy", "nothing is left but what it says; PURGE=1: nothing at all", _undeploy),)
