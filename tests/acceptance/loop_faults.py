"""Whatever is killed or stopped during a run, every unit is accounted for and inspection goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from functools import partial
from typing import Callable

from support.audit import PENDING, outage_s, read_outbox
from support.coded_pictures import HEIGHT_PX, WIDTH_PX
from support.proving import Proof, Setting, Short
from support.proving_ground import DRAIN_LIMIT_S, PATIENCE_S, Ground, ground
from support.station import RESTART_S, wait_until, workers_of

_RATE_HZ = 10.0
_BEFORE = 15  # units judged before the fault


def _units(setting: Setting) -> int:
    return 120 if setting.quick else 200


def _engine_stalls(setting: Setting) -> str:
    """An engine that stands still for less than `hang_s` keeps its place: late units are errors, no answer is lost
    or given to another unit."""
    settings = {"inspection": {"deadline_ms": 500}}
    with ground(setting.directory, _units(setting), _RATE_HZ, settings) as here:
        here.await_units(_BEFORE)
        before = here.daemon.workers("engine")
        here.stall("engine", 3.0)
        here.await_good_units()
        if here.daemon.workers("engine") != before:
            raise Short("the engine was replaced, though it stood still for less than hang_s")
        here.finish()
        late = sum(event["error"] == "deadline_exceeded" for event in here.collector.inspections)
        if not late:
            raise Short("no unit was late, though the engine stood still for six deadlines")
        return here.report()


def _free_run_stall(setting: Setting) -> str:
    """Free-run: frames = inspected + dropped, event by event, while the engine stands still."""
    camera = {"name": "top", "kind": "simulated", "mode": "free_run", "rate_hz": 20.0, "units": 300}
    settings = {"camera": [{**camera, "width_px": WIDTH_PX * 3, "height_px": HEIGHT_PX * 3}]}
    with ground(setting.directory, 1, _RATE_HZ, settings) as here:
        here.await_units(_BEFORE)
        here.stall("engine", 1.5)
        here.await_good_units()
        wait_until(lambda: "no more units" in here.daemon.log(), 120, "the end of the simulated line", 0.2)
        here.terminate()
        events = here.collector.inspections
        triggers = [event["frame"]["trigger"] for event in events]
        dropped = [event["frame"]["dropped_before"] for event in events]
        holes = [later - earlier - 1 for earlier, later in zip([0, *triggers], triggers)]
        if holes != dropped:
            raise Short(f"holes between the triggers {holes} are not the drops {dropped} that were told")
        if not sum(dropped):
            raise Short("nothing was dropped, though the engine stood still for 30 frames")
        here.notes.append(f"{triggers[-1]} frames = {len(events)} inspected + {sum(dropped)} dropped")
        return here.report(once=False, coded=False, free_run=True)


def _worker_dies(
    kind: str, how: signal.Signals, component: str, fault: str, times: int = 1
) -> Callable[[Setting], str]:
    """The proof that the death or the silence of a worker costs at most the units that it had in hand."""

    def prove(setting: Setting) -> str:
        strikes = 1 if setting.quick else times
        rate_hz = 30.0 if times > 1 else _RATE_HZ  # a busy worker has a unit in hand
        with ground(setting.directory, int(rate_hz * 8 * max(strikes, 1.5)), rate_hz) as here:
            here.await_units(_BEFORE)
            for _ in range(strikes):
                here.strike(kind, how)
                here.await_good_units()
            here.finish()
            here.expect_fault(component, fault)
            return here.report()

    return prove


def _one_of_two_cameras(setting: Setting) -> str:
    """Of two cameras one stands still: the other one's units do not wait for it."""
    camera = {"kind": "replay", "path": setting.directory / "pictures", "rate_hz": _RATE_HZ / 2}
    settings = {"camera": [{**camera, "name": name, "max_pixels": WIDTH_PX * HEIGHT_PX} for name in ("left", "right")]}
    with ground(setting.directory, _units(setting) // 2, _RATE_HZ, settings) as here:
        here.await_units(_BEFORE)
        here.strike("camera", signal.SIGSTOP)
        here.await_good_units()
        here.finish()
        outages_s = []
        for name in ("left", "right"):
            mine = [event for event in here.collector.inspections if event["frame"]["camera"] == name]
            outages_s.append(outage_s(mine, here.struck_at_s - 1))
        here.notes.append(f"longest pause of the one {max(outages_s):.1f} s, of the other {min(outages_s):.1f} s")
        if min(outages_s) > max(outages_s) / 2:
            raise Short("; ".join(here.notes))
        return here.report()


def _line_camera_killed(setting: Setting) -> str:
    """A line does not wait: what passes while its camera is dead is counted, trigger by trigger."""
    camera = {"name": "top", "kind": "simulated", "rate_hz": 5.0, "units": 60, "width_px": WIDTH_PX * 4}
    settings = {"camera": [{**camera, "height_px": HEIGHT_PX * 4}]}
    with ground(setting.directory, 1, _RATE_HZ, settings) as here:
        here.units = 60
        here.await_units(_BEFORE)
        here.strike("camera", signal.SIGKILL)
        here.await_good_units()
        here.finish()
        here.expect_fault("camera/top", "camera_worker_down")
        return here.report(once=False, coded=False)


def _daemon_killed(setting: Setting) -> str:
    with ground(setting.directory, _units(setting), _RATE_HZ) as here:
        here.await_units(_BEFORE)
        gone_s = here.kill_daemon()
        here.notes.append(f"workers gone {gone_s * 1000:.0f} ms after the daemon")
        here.restart_daemon()
        here.await_good_units()
        here.finish()
        return here.report()


def _daemon_killed_often(setting: Setting) -> str:
    """SIGKILL at ten random moments, start-up included, in one folder run."""
    kills, seed = (4 if setting.quick else 10), random.randrange(1 << 16)
    moments = random.Random(seed)
    with ground(setting.directory, 40 * kills, _RATE_HZ) as here:
        here.await_units(5)
        gone_s = []
        for _ in range(kills):
            gone_s.append(here.kill_daemon())
            time.sleep(RESTART_S)
            here.daemon.start()
            time.sleep(moments.uniform(0.1, 9.0))
        here.daemon.wait_ready()
        here.finish()
        here.notes.append(f"{kills} kills (seed {seed}), workers gone within {max(gone_s) * 1000:.0f} ms of each")
        return here.report()


def _broker_killed(setting: Setting) -> str:
    """60 s without a broker at 20 units/s: nothing waits for it, nothing is lost."""
    away_s, rate_hz = (10 if setting.quick else 60), 20.0
    with ground(setting.directory, int(rate_hz * (away_s + 25)), rate_hz) as here:
        here.await_units(_BEFORE)
        here.kill_broker()
        time.sleep(away_s)
        pending = sum(row.state == PENDING for row in read_outbox(here.outbox))
        if pending < 0.5 * away_s * rate_hz:
            raise Short(f"only {pending} events after {away_s} s at {rate_hz:.0f} units/s: it did not inspect")
        here.broker.start()
        back_s = time.monotonic()
        wait_until(lambda: not _pending(here, pending), 120, f"the backlog of {pending} events is published", 0.2)
        here.notes.append(f"{pending} events waited, published {time.monotonic() - back_s:.1f} s after its return")
        here.finish()
        here.expect_fault("mqtt", "disconnected")
        return here.report()


def _pending(here: Ground, backlog: int) -> bool:
    """True while any of the first *backlog* undelivered events of the outage waits."""
    rows = read_outbox(here.outbox)
    waiting = [row for row in rows if row.state == PENDING]
    return len(waiting) > min(20, backlog)


def _broker_frozen(setting: Setting) -> str:
    """A broker that keeps the connection and says nothing is noticed, and costs nothing."""
    away_s = 20 if setting.quick else 45
    with ground(setting.directory, int(_RATE_HZ * (away_s + 20)), _RATE_HZ) as here:
        here.await_units(_BEFORE)
        here.broker.freeze()
        here.struck_at_s = time.time()
        time.sleep(away_s)
        noticed = "has not answered for" in here.daemon.log()
        here.broker.thaw()
        here.finish()
        here.notes.append(f"silent for {away_s} s, {'noticed' if noticed else 'not noticed'}")
        if not noticed and not setting.quick:  # it waits 30 s for an answer
            raise Short("; ".join(here.notes))
        return here.report()


def _both_killed(setting: Setting) -> str:
    """The daemon comes back before its broker does, and inspects."""
    with ground(setting.directory, _units(setting), _RATE_HZ) as here:
        here.await_units(_BEFORE)
        here.kill_broker()
        time.sleep(2)
        here.kill_daemon()
        here.restart_daemon()
        before = len(read_outbox(here.outbox))
        wait_until(lambda: len(read_outbox(here.outbox)) > before + 10, 30, "it inspects without a broker", 0.2)
        here.broker.start()
        here.await_good_units()
        here.finish()
        return here.report()


def _drained(setting: Setting) -> str:
    """SIGTERM in full swing: what was triggered is judged and published before the end; the next start goes on."""
    with ground(setting.directory, _units(setting), 20.0) as here:
        here.await_units(40)
        started_s = time.monotonic()
        here.terminate()
        took_s = time.monotonic() - started_s - 0.5
        waiting = sum(row.state == PENDING for row in read_outbox(here.outbox))
        if waiting:
            raise Short(f"{waiting} events were not published before the end")
        last_words = here.collector.retained["status"]
        if (last_words["state"], last_words["condition"]) != ("offline", "stopped"):
            raise Short(f"its last status is {last_words['state']}, {last_words['condition']}")
        here.notes.append(f"ended {took_s:.1f} s after SIGTERM (limit {DRAIN_LIMIT_S:.0f})")
        before = len(here.collector.inspections)
        here.daemon.start()
        here.daemon.wait_ready()
        here.await_units(before + _BEFORE)
        here.terminate()
        return here.report(once=False)


def _drained_without_broker(setting: Setting) -> str:
    """SIGTERM while the broker answers nothing: it ends in time, and the next start publishes what waits."""
    with ground(setting.directory, _units(setting), 20.0) as here:
        here.await_units(40)
        here.broker.freeze()
        time.sleep(3)
        try:
            took_s = here.daemon.terminate(timeout_s=60)
        except subprocess.TimeoutExpired as error:
            raise Short("it did not end within 60 s of SIGTERM") from error
        waiting = sum(row.state == PENDING for row in read_outbox(here.outbox))
        here.broker.thaw()
        here.daemon.start()
        here.daemon.wait_ready()
        here.await_units(40 + waiting)
        here.terminate()
        here.notes.append(f"ended {took_s:.1f} s after SIGTERM (limit {DRAIN_LIMIT_S:.0f}), {waiting} events waited")
        if took_s > DRAIN_LIMIT_S:
            raise Short("; ".join(here.notes))
        return here.report(once=False)


def _killed_while_starting(setting: Setting) -> str:
    """The first engine and the first camera die before they are ready: the station becomes READY all the same."""
    with ground(setting.directory, 60, _RATE_HZ, started=False) as here:
        here.daemon.start()
        for kind in ("engine", "camera"):
            wait_until(partial(here.daemon.workers, kind), PATIENCE_S, f"a first {kind} worker", 0.01)
            here.strike(kind, signal.SIGKILL)
        here.notes.append(f"READY {here.daemon.wait_ready():.1f} s after the last kill")
        here.finish()
        return here.report()


def _daemon_stopped(setting: Setting) -> str:
    """The daemon itself stands still, as on a machine that is suspended: afterwards it blames no worker for it."""
    with ground(setting.directory, _units(setting), _RATE_HZ) as here:
        here.await_units(_BEFORE)
        before = workers_of(here.daemon.pid)
        here.struck_at_s = time.time()
        os.kill(here.daemon.pid, signal.SIGSTOP)
        time.sleep(12)
        os.kill(here.daemon.pid, signal.SIGCONT)
        here.await_good_units()
        if workers_of(here.daemon.pid) != before:
            raise Short(f"workers were replaced: {before}, then {workers_of(here.daemon.pid)}")
        here.finish()
        return here.report()


def _interrupted_start(setting: Setting) -> str:
    """SIGTERM before READY: it ends in time as well, with exit code 0."""
    with ground(setting.directory, _units(setting), _RATE_HZ) as here:
        here.await_units(_BEFORE)
        here.terminate()
        took_s = []
        for delay_s in (0.3, 1.0, 2.5):
            here.daemon.start()
            time.sleep(delay_s)
            took_s.append(here.daemon.terminate())
            if here.daemon.exit_code not in (0, -signal.SIGTERM):
                raise Short(f"exit code {here.daemon.exit_code} after SIGTERM {delay_s} s after the start")
        here.notes.append("ended within " + ", ".join(f"{each:.1f} s" for each in took_s))
        return here.report(once=False)


FAULTS = (
    Proof(
        "fault.engine-killed",
        "engine worker SIGKILLed: its units are errors, a new one goes on",
        _worker_dies("engine", signal.SIGKILL, "engine", "engine_unavailable", times=3),
    ),
    Proof(
        "fault.engine-stopped",
        "engine worker SIGSTOPped: it is killed and replaced",
        _worker_dies("engine", signal.SIGSTOP, "engine", "engine_unavailable"),
    ),
    Proof(
        "fault.engine-stalls", "engine stands still for 3 s: late units are errors, it keeps its place", _engine_stalls
    ),
    Proof("fault.free-run-stall", "free-run: frames = inspected + dropped while the engine stalls", _free_run_stall),
    Proof(
        "fault.camera-killed",
        "camera worker SIGKILLed: a new one goes on with the next picture",
        _worker_dies("camera", signal.SIGKILL, "camera/top", "camera_worker_down", times=3),
    ),
    Proof(
        "fault.camera-stopped",
        "camera worker SIGSTOPped: its silence is noticed, it is replaced",
        _worker_dies("camera", signal.SIGSTOP, "camera/top", "camera_worker_down"),
    ),
    Proof(
        "fault.one-of-two-cameras",
        "one of two camera workers SIGSTOPped: the other camera does not wait",
        _one_of_two_cameras,
    ),
    Proof(
        "fault.line-camera-killed",
        "camera of a line that does not wait SIGKILLed: what passed by is counted",
        _line_camera_killed,
    ),
    Proof(
        "fault.evidence-killed",
        "evidence worker SIGKILLed: no unit notices",
        _worker_dies("evidence", signal.SIGKILL, "evidence", "evidence_worker_down", times=3),
    ),
    Proof("fault.daemon-killed", "daemon SIGKILLed and restarted: each picture has one verdict", _daemon_killed),
    Proof("fault.broker-killed", "broker SIGKILLed for 60 s at 20 units/s: nothing is lost", _broker_killed),
    Proof("fault.broker-frozen", "broker SIGSTOPped for 45 s: noticed, nothing is lost", _broker_frozen),
    Proof("fault.both-killed", "broker and daemon SIGKILLed, the daemon returns first", _both_killed),
    Proof("fault.drain", "SIGTERM drains within 10 s and loses nothing", _drained),
    Proof("fault.drain-no-answer", "SIGTERM ends within 10 s while the broker is frozen", _drained_without_broker),
    Proof("fault.early-term", "SIGTERM before READY ends it, too", _interrupted_start),
    Proof(
        "fault.killed-while-starting", "first engine and first camera SIGKILLed before READY", _killed_while_starting
    ),
    Proof("fault.daemon-stopped", "daemon SIGSTOPped for 12 s: no worker is blamed for it", _daemon_stopped),
    Proof("fault.daemon-killed-often", "daemon SIGKILLed ten times at random moments", _daemon_killed_often),
)
