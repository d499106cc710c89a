"""Bad days: disks, clocks, servers and brokers, crashes and stops in the middle, and what a person does about it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Iterator

from acceptance.rollout_refusals import A_WHILE, ENDLESS, answer, closed, ends, moment, refused, serves
from defectd.rollout.starts import TOLERATED_STARTS
from support.bundle_server import (
    BundleServer,
    claims,
    closes_after,
    flips,
    make_certificates,
    stalls_after,
    status,
    whole_to_a_range,
)
from support.proving import Proof, Setting, Short
from support.refused import file_system
from support.rolling import QUICK, Rolling, command, rolling
from support.signed import tiny_bundle
from support.station import RESTART_S, DaemonProcess, wait_until

_DAY_S, _FULL_S = 86_400, 8.0
_COMMIT_S = 180.0
_CLOCK = """import time, datetime, defectd.clock as clock
ahead, real = datetime.timedelta(seconds={seconds}), time.time
clock.utc_now = lambda: datetime.datetime.now(datetime.timezone.utc) + ahead
time.time = lambda: real() + ahead.total_seconds()
"""
"""A sitecustomize: the clock that the daemon's own code looks at."""


def _start(station: Rolling) -> float:
    """READY; the seconds that took."""
    station.here.struck_at_s = time.time()
    station.here.daemon.start()
    return station.here.daemon.wait_ready()


# -- servers and disks -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _depot(setting: Setting) -> Iterator[tuple[Rolling, BundleServer, dict[str, Any], Path]]:
    """A station with a web server, which has one bundle; its `target`."""
    tls = setting.directory / "tls"
    tls.mkdir()
    make_certificates(tls)
    with BundleServer(tls / "server.crt") as server:
        sources = [{"alias": "depot", "url": server.url, "ca": tls / "ca.crt"}]
        changes = {"rollout": {"source": sources, "download_s": 25}}
        with rolling(setting.directory, changes=changes) as station:
            bundle = tiny_bundle(station.usb / "good", seq=2, version="2")
            server.offer(bundle, "pcb/2")
            target = {**command(bundle, 1)["target"], "source": "depot", "path": "pcb/2"}
            yield station, server, target, bundle


def _server(setting: Setting) -> str:
    """Every lie ends the rollout with its reason, and the line does not notice; what passes is waited for."""
    network = "model.torchscript"
    with _depot(setting) as (station, server, target, bundle):
        size = (bundle / network).stat().st_size
        told = []
        for name, behaviours, codes in (
            ("says there is more", (claims(size + 5), claims(size + 5)), ("wrong_bytes",)),
            ("says there is less", (claims(size - 5), claims(size - 5)), ("wrong_bytes",)),
            ("other bytes", (flips(100), flips(100)), ("wrong_bytes",)),
            ("redirects", (status(302, Location=f"{server.url}/pcb/2/{network}"),), ("redirect",)),
            ("not there", (status(404),), ("not_found",)),
            ("stalls", (stalls_after(50), stalls_after(50), stalls_after(50)), ("stalled", "timed_out")),
        ):
            server.script(network, *behaviours)
            begun_s = time.monotonic()
            end = ends(station, station.send(bundle, target=target), "failed", *codes)
            told.append(f"{name}: {end['code']} after {time.monotonic() - begun_s:.0f} s")
        server.script(network, closes_after(50), status(503), whole_to_a_range)
        server.asked.clear()
        ends(station, station.send(bundle, target=target), "committed")
        ranges = [asked.range for asked in server.asked if asked.name == network]
        told.append(f"closes early, sends all to a range, is busy: committed, asked for {ranges}")
        return f"{'; '.join(told)}; {closed(station, '1', '2')}"


def _small_disk(setting: Setting) -> str:
    """There is no room for the download; later there is."""
    with rolling(setting.directory, started=False) as station:
        incoming = setting.directory / "state" / "incoming"
        bundle = tiny_bundle(station.usb / "good", seq=2, version="2")
        with file_system(incoming, "size=20m"):
            _start(station)
            end = ends(station, station.send(bundle), "failed", "disk_full")
            serves(station, "1")
        ends(station, station.send(bundle), "committed")
        return f"{end['detail'][-150:]}; with room: committed; {closed(station, '1', '2')}"


def _full_disk(setting: Setting) -> str:
    """The disk is full when an approval comes: the line goes on; with room, so does the rollout."""
    with rolling(setting.directory, started=False) as station, \
            file_system(setting.directory / "state", "size=120m") as state:  # fmt: skip
        _start(station)
        bundle = tiny_bundle(station.usb / "good", seq=2, version="2")
        request = station.send(bundle, policy={**QUICK, "approval": True})
        station.reaches(request, "staged")
        with contextlib.suppress(OSError), (state / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        wait_until(lambda: "disk_full" in station.here.daemon.log(), 60, "evt/fault outbox disk_full")
        told = answer(station, lambda: station.send(action="approve", of=request))
        time.sleep(_FULL_S)
        (state / "filler").unlink()
        if not told["accepted"]:
            station.send(action="approve", of=request)
        end = station.ended(request)
        figure = f"approved on a full disk: {told['code']}; after {_FULL_S:.0f} s there is room: {end['state']}"
        if end["state"] != "committed":
            if (end["state"], end["code"]) != ("failed", "disk"):
                raise Short(f"{figure}: {json.dumps(end)}")
            ends(station, station.send(bundle), "committed")
            figure += f" ({end['detail'][:100]}), sent again: committed"
        return f"{figure}; {closed(station, '1', '2')}"


# -- clocks and states -------------------------------------------------------------------------------------------


def _with_clock(station: Rolling, seconds: float) -> None:
    """From its next start on, the daemon's clock is so many seconds ahead."""
    directory = station.here.directory / f"clock{seconds:.0f}"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_CLOCK.format(seconds=seconds))
    checkout = [str(directory), str(Path(__file__).resolve().parents[2] / "daemon")]
    station.here.daemon = DaemonProcess(station.here.daemon.config, PYTHONPATH=os.pathsep.join(checkout))


def _wrong_clock(setting: Setting, seconds: float, code: str) -> str:
    """A command that is refused for the time's sake is obeyed when the clock is right again: it is still retained."""
    keep = {"state": {"keep_delivered_h": 1e6}}
    with rolling(setting.directory, changes=keep, started=False) as station:
        usual = station.here.daemon
        bundle = tiny_bundle(station.usb / "good", seq=2, version="2")
        _with_clock(station, seconds)
        station.here.daemon.start()
        station.here.daemon.wait_ready()
        station.here.await_units(20)
        requests: list[str] = []
        refused(station, code, "clock", lambda: requests.append(station.send(bundle)))
        told = station.reported["last_command"]["detail"]
        station.here.await_units(40)
        station.here.terminate()
        station.here.daemon = usual
        _start(station)
        station.here.struck_at_s = 0.0  # how long it was without a unit, no clock could tell
        ends(station, requests[0], "committed")
        return f"{told[:150]}; with the right clock: committed; {closed(station, '1', '2')}"


def _clock_1970(setting: Setting) -> str:
    return _wrong_clock(setting, -time.time() + 600, "not_yet")


def _clock_ahead(setting: Setting) -> str:
    return _wrong_clock(setting, 366 * _DAY_S, "expired")


def _corrupt_state(setting: Setting) -> str:
    """The database of models is garbage at a start: the factory model serves, and no command is taken until a person
    has seen to it."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        ends(station, station.send(good), "committed")
        station.here.terminate()
        database = setting.directory / "state" / "models" / "models.db"
        database.write_bytes(b"garbage" * 2000)
        for extra in ("-wal", "-shm"):
            database.with_name(database.name + extra).unlink(missing_ok=True)
        _start(station)
        station.here.await_units(len(station.here.collector.inspections) + 20)
        serves(station, "1")
        code = refused(station, "state_lost", "", lambda: station.send(good))
        (setting.directory / "state" / "models.lost").unlink()
        ends(station, station.send(good), "committed")
        station.here.terminate()  # the warning stands until the next start
        _start(station)
        return f"factory model, {code}; without the marker: committed; {closed(station, '1', '2', '1', '2')}"


def _ghost(setting: Setting) -> str:
    """A factory reset forgets everything, and the broker still has the command: one that is still good is obeyed
    again, one that is not is refused; the station cannot know more. The outbox stays: the units are counted by it."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        request = station.send(good)
        ends(station, request, "committed")
        station.here.terminate()
        models, figures = setting.directory / "state" / "models", []
        shutil.rmtree(models)
        _start(station)
        wait_until(lambda: (station.reported.get("current") or {}).get("version") == "1", 60, "the factory model")
        ends(station, request, "committed")
        figures.append("still good: committed once more")
        station.send(good, expires=moment(3))
        station.here.terminate()
        time.sleep(3)
        shutil.rmtree(models)
        refused(station, "expired", "", lambda: _start(station))
        figures.append("no longer good: expired")
        return f"{'; '.join(figures)}; {closed(station, '1', '2', '1', '2', '1')}"


# -- crashes and stops -------------------------------------------------------------------------------------------


def _broker_gone(setting: Setting) -> str:
    """The broker dies while the rollout is young, and comes back when it is over: nothing is asked of it, and all is
    told afterwards."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        request = station.send(good, policy={**QUICK, "shadow_units": 100, "probation_units": 100})
        station.here.kill_broker()
        if "-> switching" in station.here.daemon.log():
            raise Short("it was too fast for this proof: the broker was still there when it switched")
        wait_until(lambda: "probation -> committed" in station.here.daemon.log(), _COMMIT_S, "the commit")
        gone_s = time.time() - station.here.struck_at_s
        station.here.broker.start()
        ends(station, request, "committed")
        return f"committed without a broker, which was away for {gone_s:.0f} s; {closed(station, '1', '2')}"


def _clean_stop(setting: Setting) -> str:
    """Stopped in probation, as for an update of the system: it builds and proves again after the start, and commits;
    until then the old model serves."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        request = station.send(good, policy=A_WHILE)
        station.reaches(request, "probation")
        station.here.await_units(len(station.here.collector.inspections) + 20)
        station.here.terminate()
        _start(station)
        end = ends(station, request, "committed")
        if end["attempts"] != 1:
            raise Short(f"a clean stop cost an attempt: {end}")
        if "probation -> building" not in station.here.daemon.log():
            raise Short("it did not go on from building")
        return f"committed at attempt {end['attempts']}; {closed(station, '1', '2', '1', '2')}"


def _power_cut(setting: Setting) -> str:
    """SIGKILL in probation: the old model serves after the start, and the retained command does not begin it again."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        request = station.send(good, policy=ENDLESS)
        station.reaches(request, "probation")
        station.here.await_units(len(station.here.collector.inspections) + 20)
        station.here.kill_daemon()
        station.here.restart_daemon()
        ends(station, request, "rolled_back", "crash")
        again = station.answered(request)
        if again["code"] != "again":
            raise Short(f"the retained command after the crash: {again}")
        serves(station, "1")
        return f"rolled_back (crash), the retained command: {again['code']}; {closed(station, '1', '2', '1', errors=2)}"


def _boot_loop(setting: Setting) -> str:
    """A committed model with which the station dies soon after each start: the one before serves then."""
    with rolling(setting.directory) as station:
        good = tiny_bundle(station.usb / "good", seq=2, version="2")
        ends(station, station.send(good), "committed")
        station.here.terminate()
        for _ in range(TOLERATED_STARTS):
            _start(station)
            station.here.await_units(len(station.here.collector.inspections) + 3)
            station.here.kill_daemon()
            time.sleep(RESTART_S)
        _start(station)
        station.here.await_units(len(station.here.collector.inspections) + 20)
        serves(station, "1")
        refused(station, "quarantined", "boot_loop", lambda: station.send(good))
        faults = [event for event in station.here.collector.events.values() if event.get("code") == "boot_loop"]
        if not faults:
            raise Short("nobody was told: no evt/fault boot_loop")
        return (
            f"{faults[0]['detail'][:150]}; quarantined; {closed(station, '1', '2', '1', errors=2 * TOLERATED_STARTS)}"
        )


BAD_DAYS = (
    Proof("bad.server", "a server that lies, redirects, stalls, closes early: each ends as it should", _server),
    Proof("bad.disk-small", "no room for a download: it says so, and the line goes on", _small_disk),
    Proof("bad.disk-full", "the disk is full while a rollout waits: nothing is lost", _full_disk),
    Proof("bad.clock-1970", "the clock says 1970: refused as not yet, and obeyed with the right clock", _clock_1970),
    Proof(
        "bad.clock-ahead", "the clock is a year ahead: refused as expired, obeyed with the right clock", _clock_ahead
    ),
    Proof(
        "bad.state-corrupt", "models.db is garbage: factory model, no rollouts until a person says so", _corrupt_state
    ),
    Proof("bad.ghost", "a command that is still retained after a factory reset", _ghost),
    Proof("bad.broker-gone", "the broker is gone for the whole rollout: committed, and told later", _broker_gone),
    Proof("bad.clean-stop", "stopped in probation: it goes on from building, and commits", _clean_stop),
    Proof("bad.power-cut", "SIGKILL in probation: rolled back", _power_cut),
    Proof("bad.boot-loop", "three starts that die: the model before serves", _boot_loop),
)
