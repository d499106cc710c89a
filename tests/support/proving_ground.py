"""A station under fire: pictures, broker, collector and daemon in one directory, and what a proof does with them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

from support.audit import Audit, audit, outage_s
from support.brokers import NO_MOSQUITTO, MosquittoBroker, find_mosquitto
from support.coded_pictures import HEIGHT_PX, WIDTH_PX, misjudged, unit_id, write_pictures
from support.collector import Collector
from support.models import save
from support.proving import Short, Skipped
from support.station import RESTART_S, DaemonProcess, merged, wait_until, workers_of, write_config

PATIENCE_S = 120.0
DRAIN_LIMIT_S = 10.0
_UNITS_AFTER = 10  # passed or failed after the fault: it inspects again
_AUTOSAVE_S = 2.5  # after so long the broker has the collector's session on disk


def tiny_station(port: int, model: Path, pictures: Path, rate_hz: float) -> dict[str, Any]:
    """Settings of a station that reads coded pictures. The deadline is generous: this machine may be busy."""
    return {
        "station": {"site": "prove", "area": "smt", "line": "line1", "station": "aoi1"},
        "mqtt": {"host": "127.0.0.1", "port": port, "reconnect_max_s": 5.0},
        "model": {"path": model, "device": "cpu", "threads": 1},
        "camera": [
            {
                "name": "top",
                "kind": "replay",
                "path": pictures,
                "rate_hz": rate_hz,
                "max_pixels": HEIGHT_PX * WIDTH_PX,
            }
        ],
        "inspection": {
            "deadline_ms": 2000,
            "defect": [{"class_name": "open", "code": "BIT", "min_confidence": 0.5}],
        },
        "state": {"directory": "state"},
        "log": {"level": "INFO"},
    }


@dataclass
class Ground:
    """One run. `struck_at_s` (time.time) is when it was hit last; `notes` go into the figure."""

    directory: Path
    broker: MosquittoBroker
    collector: Collector
    daemon: DaemonProcess
    units: int
    cameras: int = 1
    struck_at_s: float = 0.0
    broker_killed_s: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def outbox(self) -> Path:
        """The station's memory."""
        return self.directory / "state" / "outbox.db"

    def await_units(self, count: int) -> None:
        """Until *count* units have their verdict at the collector."""
        self._wait(lambda: len(self.collector.inspections) >= count, f"{count} units have arrived")

    def await_good_units(self, count: int = _UNITS_AFTER) -> float:
        """Until *count* units captured since the strike are passed or failed; the seconds since the strike."""
        what = f"{count} units passed or failed after the fault"
        self._wait(lambda: self.collector.good_since(self.struck_at_s) >= count, what)
        return time.time() - self.struck_at_s

    def strike(self, kind: str, how: signal.Signals) -> None:
        """Send a signal to a worker, and wait until the daemon has another one in its place."""
        before = self.daemon.workers(kind)
        if len(before) != (self.cameras if kind == "camera" else 1):
            raise Short(f"there is not one {kind} worker to strike: {before}")
        os.kill(before[0], how)
        self.struck_at_s = time.time()

        def replaced() -> bool:
            now = self.daemon.workers(kind)
            return before[0] not in now and len(now) == len(before)

        took_s = wait_until(replaced, PATIENCE_S, f"a new {kind} worker after {how.name}")
        self.notes.append(f"new {kind} process after {took_s:.1f} s")

    def stall(self, kind: str, for_s: float) -> None:
        """Stop a worker for a while, shorter than anybody would kill it for."""
        (victim,) = self.daemon.workers(kind)
        self.struck_at_s = time.time()
        os.kill(victim, signal.SIGSTOP)
        time.sleep(for_s)
        os.kill(victim, signal.SIGCONT)
        self.notes.append(f"{kind} stood still for {for_s:.1f} s")

    def kill_daemon(self) -> float:
        """SIGKILL to the daemon alone; its workers must die with it, and these are the seconds that took."""
        self.struck_at_s = time.time()
        return self.daemon.kill()

    def restart_daemon(self) -> None:
        """What systemd does after a crash."""
        time.sleep(RESTART_S)
        self.daemon.start()
        self.notes.append(f"READY {self.daemon.wait_ready():.1f} s after the restart")

    def kill_broker(self) -> None:
        """SIGKILL to the broker, once it has the collector's session on disk."""
        time.sleep(_AUTOSAVE_S)
        self.broker.kill()
        self.struck_at_s = time.time()
        self.broker_killed_s.append(self.struck_at_s)

    def finish(self) -> None:
        """All pictures are judged and published, then SIGTERM; it must end well within its time."""
        self.await_units(self.units * self.cameras)
        self.terminate()

    def terminate(self) -> None:
        """SIGTERM, and what it owes then: exit 0, within 10 s, and no worker left."""
        took_s = self.daemon.terminate()
        if took_s > DRAIN_LIMIT_S:
            raise Short(f"SIGTERM took {took_s:.1f} s, expected at most {DRAIN_LIMIT_S:.0f} s")
        if self.daemon.exit_code != 0:
            raise Short(f"exit code {self.daemon.exit_code} after SIGTERM")
        if workers_of(self.daemon.pid):
            raise Short(f"workers outlive the daemon: {workers_of(self.daemon.pid)}")
        time.sleep(0.5)  # what the broker has acknowledged is on its way to the collector

    def report(self, *, once: bool = True, coded: bool = True, free_run: bool = False) -> str:
        """Audit the run; the figure, or Short. *once*: every picture was shown once. *coded*: they were coded ones.
        *free_run*: units may be dropped, which the proof checks itself."""
        expected = [unit_id(number) for number in range(1, self.units + 1)] * self.cameras if once else None
        result = audit(self.collector, self.outbox, self.daemon.log(), expected, self.broker_killed_s, free_run)
        if coded:
            result.problems += self._misjudged()
        if self.struck_at_s:
            outage = outage_s(self.collector.inspections, self.struck_at_s - 1)
            self.notes.append(f"longest time without a good unit {outage:.1f} s")
        return self._figure(result)

    def expect_fault(self, component: str, code: str) -> None:
        """The MES must have heard of it: raised, and cleared again."""
        states = {
            event["state"]
            for event in self.collector.events.values()
            if event.get("component") == component and event.get("code") == code
        }
        if not states >= {"raised", "cleared"}:
            raise Short(f"evt/fault {component} {code}: expected raised and cleared, got {sorted(states)}")

    def _wait(self, true: Callable[[], bool], what: str) -> None:
        """Until *true*, or nothing has arrived for too long, or the daemon is dead."""
        arrived, since_s = -1, time.monotonic()
        while not true():
            if self.daemon.exit_code is not None:
                raise Short(f"the daemon ended with {self.daemon.exit_code}: {self.daemon.log()[-600:]}")
            if len(self.collector.events) > arrived:
                arrived, since_s = len(self.collector.events), time.monotonic()
            elif time.monotonic() - since_s > PATIENCE_S:
                units = len(self.collector.inspections)
                raise Short(f"nothing arrived for {PATIENCE_S:.0f} s; expected: {what}; there are {units} units")
            time.sleep(0.1)

    def _misjudged(self) -> list[str]:
        good = [event for event in self.collector.inspections if event["verdict"] in ("passed", "failed")]
        return [problem for problem in map(misjudged, good) if problem][:5]

    def _figure(self, result: Audit) -> str:
        figure = "; ".join([result.figure(), *self.notes])
        if result.problems:
            raise Short("; ".join([*result.problems, figure]))
        return figure


@contextlib.contextmanager
def ground(
    directory: Path,
    units: int,
    rate_hz: float,
    changes: Mapping[str, Any] | None = None,
    *,
    started: bool = True,
    broker_lines: Sequence[str] = (),
    login: tuple[str, str] | None = None,
) -> Iterator[Ground]:
    """A station with *units* coded pictures at *rate_hz*; READY, unless not *started*. *broker_lines* are added to
    the broker's configuration, *login* is the collector's."""
    if find_mosquitto() is None:
        raise Skipped(NO_MOSQUITTO)
    model = save(directory / "tiny.torchscript")
    pictures = write_pictures(directory / "pictures", units)
    with MosquittoBroker(directory / "broker", list(broker_lines)) as broker:
        assert isinstance(broker, MosquittoBroker)
        collector = Collector(broker.host, broker.port, login)
        settings = merged(tiny_station(broker.port, model, pictures, rate_hz), changes or {})
        daemon = DaemonProcess(write_config(directory, settings))
        try:
            if started:
                daemon.start()
                daemon.wait_ready()
            yield Ground(directory, broker, collector, daemon, units, cameras=len(settings["camera"]))
        finally:
            daemon.end()
            collector.close()
