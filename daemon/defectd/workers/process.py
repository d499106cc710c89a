"""The parent's side of a worker: start it, talk to it, kill it when it hangs, start another one.

Everything is driven from the one thread that owns the workers, by readiness and by time: no locks, no waiting, not even
for a killed process, which may linger in its driver. That thread must outlive the workers: PR_SET_PDEATHSIG counts the
thread that started them as their parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Callable, Union

from defectd.clock import NS_PER_MS, NS_PER_S, Backoff, monotonic_ns
from defectd.workers.channel import Channel, ChannelClosed
from defectd.workers.protocol import Alive, Kind, Note, ProtocolError, Record
from defectd.workers.ring import FrameRing

log = logging.getLogger(__name__)

_REAP_EVERY_NS = 5 * NS_PER_MS
_CAUSES = {
    "hung": "killed because of a hang: it did not answer in time",
    "silent": "killed because of a hang: it gave no sign of life",
    "start_timeout": "killed because its start took too long",
}


class WorkerState(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    DYING = "dying"  # killed, or gone silent for good; its slots are still its own
    WAITING = "waiting"  # dead; a new one starts after the back-off
    LEAVING = "leaving"  # told to end
    STOPPED = "stopped"  # dead for good


@dataclass(frozen=True)
class WorkerLimits:
    """When patience ends, in seconds."""

    start_s: float = 30.0
    alive_extends_start: bool = False
    """True if a worker that says ALIVE while it starts (a camera that is not plugged in) is not too slow."""
    silence_s: float = 5.0
    backoff_first_s: float = 0.25
    backoff_longest_s: float = 30.0
    healthy_s: float = 30.0
    """After this long READY, the next failure starts again with the first back-off."""


@dataclass(frozen=True)
class WorkerSpec:
    """What to run: `python -m module`, with the rings it may map. *configuration* is asked at every start."""

    name: str
    module: str
    configuration: Callable[[], dict[str, Any]]
    rings: tuple[FrameRing, ...]
    limits: WorkerLimits = field(default_factory=WorkerLimits)
    nice: int = 0


@dataclass(frozen=True)
class Died:
    """A worker has ended, and touches nothing any more. `fatal` is what it said itself, if it could."""

    reason: str
    fatal_code: str
    fatal_detail: str
    retry_s: float


News = Union[Record, Died]


class Worker:
    """One supervised child process; after each death another one, until `stop`."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.state = WorkerState.STOPPED
        self.exits: Counter[str] = Counter()
        self.report: dict[str, Any] = {}
        self._backoff = Backoff(spec.limits.backoff_first_s, spec.limits.backoff_longest_s)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._due_ns = 0  # of the state's own time limit: start, silence, next look at a dying one, end of the back-off
        self._reply_due_ns: int | None = None
        self._ready_since_ns: int | None = None
        self._has_successor = True
        self._cause = ""
        self._fatal = ("", "")

    @property
    def channel(self) -> Channel | None:
        """For select; None while there is nothing to hear."""
        return None if self.state is WorkerState.DYING else self._channel

    @property
    def pid(self) -> int | None:
        """Of the current process."""
        return None if self._process is None else self._process.pid

    @property
    def ready(self) -> bool:
        """It has said READY and has not died since."""
        return self.state is WorkerState.READY

    @property
    def gone(self) -> bool:
        """It was told to end, and its process has."""
        if self.state is not WorkerState.STOPPED:
            return False
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        return self._process is None

    @property
    def due_ns(self) -> int | None:
        """When `tick` must be called at the latest; None if nothing is awaited."""
        if self.state in (WorkerState.STOPPED, WorkerState.LEAVING):
            return None
        if self.state is WorkerState.READY and self._reply_due_ns is not None:
            return self._reply_due_ns
        return self._due_ns

    def start(self) -> None:
        """Start the process and send it its configuration. If there is no process to be had, try again later."""
        self._channel, theirs = Channel.pair()
        self.report, self._cause, self._fatal = {}, "", ("", "")
        self._reply_due_ns = self._ready_since_ns = None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.spec.module, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno(), *(ring.fd for ring in self.spec.rings)],
                stdin=subprocess.DEVNULL,
                env={key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
            )
        except OSError as error:
            log.error("%s: no process: %s", self.spec.name, error)  # noqa: TRY400 - memory is short: be brief
            self.exits["no_process"] += 1
            self._channel.close()
            self._channel = None
            self._enter(WorkerState.WAITING, self._backoff.next_s())
            return
        finally:
            theirs.close()
        self._enter(WorkerState.STARTING, self.spec.limits.start_s)
        rings = [
            {"fd": ring.fd, "slots": ring.layout.slots, "frame_bytes": ring.layout.frame_bytes}
            for ring in self.spec.rings
        ]
        configuration = {**self.spec.configuration(), "rings": rings, "nice": self.spec.nice}
        with contextlib.suppress(ChannelClosed):  # died at once: `receive` reads end of file and says so
            self._channel.send(Note(Kind.CONFIGURE, configuration))

    def send(self, record: Record, reply_within_s: float | None = None) -> bool:
        """Send *record*; False if there is nobody to take it. With *reply_within_s* the worker is killed as hung
        unless `replied` is called in time."""
        if self._channel is None or self.state not in (WorkerState.READY, WorkerState.STARTING):
            return False
        try:
            self._channel.send(record)
        except ChannelClosed:
            return False  # `receive` will read end of file and report the death
        if reply_within_s is not None:
            self._reply_due_ns = monotonic_ns() + int(reply_within_s * NS_PER_S)
        return True

    def replied(self) -> None:
        """The awaited reply is here; from now on silence counts again."""
        self._reply_due_ns = None
        self._due_ns = monotonic_ns() + int(self.spec.limits.silence_s * NS_PER_S)

    def receive(self) -> list[News]:
        """Everything that has arrived. After its end of file, what it left behind and `Died`, as soon as it is dead."""
        if self.state in (WorkerState.DYING, WorkerState.WAITING, WorkerState.STOPPED):
            return []
        news, ended = self._read()
        if ended and self.state is WorkerState.LEAVING:
            self._close()
            self.state = WorkerState.STOPPED
        elif ended:
            news += self.kill(ended)
        return news

    def tick(self, now_ns: int) -> list[News]:
        """Enforce what is due at *now_ns*: kill a silent or hung worker, bury a dead one, or start the next one."""
        if self.due_ns is None or now_ns < self.due_ns:
            return []
        if self.state is WorkerState.WAITING:
            self.start()
            return []
        if self.state is WorkerState.DYING:
            return self._bury()
        if self.state is WorkerState.STARTING:
            return self.kill("start_timeout")
        return self.kill("silent" if self._reply_due_ns is None else "hung")

    def kill(self, cause: str) -> list[News]:
        """SIGKILL: it hangs, is silent, or does what it must not. `Died` comes here or from `tick`, when it is dead."""
        if self._process is None or self.state is WorkerState.DYING:
            return []
        self._cause = cause
        self._process.kill()
        self.state = WorkerState.DYING
        return self._bury()

    def stop(self) -> None:
        """Say no more to it, so that it leaves by itself; what it still says can be received. `reap` makes sure."""
        self._has_successor = False
        if self.state in (WorkerState.STARTING, WorkerState.READY) and self._channel is not None:
            self._channel.finish()
            self.state = WorkerState.LEAVING
        elif self.state is WorkerState.WAITING:
            self.state = WorkerState.STOPPED

    def reap(self, timeout_s: float) -> None:
        """Wait for a stopped worker; kill it if it does not leave. One that lingers in its driver is left to init."""
        self._close()
        self.state = WorkerState.STOPPED
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
        self._process = None

    def _read(self) -> tuple[list[News], str]:
        """What has arrived, and why no more will come ("" if more may)."""
        news: list[News] = []
        while self._channel is not None:
            try:
                record = self._channel.receive(timeout_s=0)
            except ChannelClosed:
                return news, "exited"
            except ProtocolError as error:
                log.error("%s: %s", self.spec.name, error)  # noqa: TRY400 - the record is the message
                return news, "protocol"
            if record is None:
                break
            self._heard(record)
            if not isinstance(record, Alive):
                news.append(record)
        return news, ""

    def _heard(self, record: Record) -> None:
        limits = self.spec.limits
        if isinstance(record, Note) and record.kind is Kind.READY and self.state is WorkerState.STARTING:
            self.report = record.body
            self.state, self._ready_since_ns = WorkerState.READY, monotonic_ns()
        elif isinstance(record, Note) and record.kind is Kind.FAULT and record.body.get("state") == "fatal":
            self._fatal = (str(record.body.get("code", "")), str(record.body.get("detail", "")))
        if self.state is WorkerState.READY:
            self._due_ns = monotonic_ns() + int(limits.silence_s * NS_PER_S)
        elif self.state is WorkerState.STARTING and limits.alive_extends_start:
            self._due_ns = monotonic_ns() + int(limits.start_s * NS_PER_S)

    def _bury(self) -> list[News]:
        """If it is dead by now: its last records, and `Died`. Before that nobody may touch what it may write."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            self._due_ns = monotonic_ns() + _REAP_EVERY_NS
            return []
        news, _ = self._read()
        self._close()
        self._process = None
        reason = self._cause
        if reason == "exited":
            reason = f"exit_{code}" if code >= 0 else f"signal_{-code}"
        self.exits[reason] += 1
        if self._ready_since_ns and monotonic_ns() - self._ready_since_ns > self.spec.limits.healthy_s * NS_PER_S:
            self._backoff.reset()
        retry_s = self._backoff.next_s()
        self._enter(WorkerState.WAITING if self._has_successor else WorkerState.STOPPED, retry_s)
        log.warning("%s: worker ended: %s %s (retry in %.1f s)", self.spec.name, reason, self._fatal[1], retry_s)
        return [*news, Died(reason, *self._fatal, retry_s)]

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel, self._reply_due_ns = None, None

    def _enter(self, state: WorkerState, limit_s: float) -> None:
        self.state, self._due_ns = state, monotonic_ns() + int(limit_s * NS_PER_S)


def cause_of_death(died: Died) -> str:
    """What it said itself, or what killed it."""
    if died.fatal_detail:
        return died.fatal_detail
    if died.reason.startswith("signal_"):
        return f"killed by {signal.Signals(int(died.reason[len('signal_') :])).name}"
    return _CAUSES.get(died.reason, died.reason)


def obituary(died: Died) -> str:
    """How it ended, and when its successor starts."""
    said = f": {died.fatal_detail}" if died.fatal_detail else ""
    return f"{died.reason}{said}; a new one starts in {died.retry_s:.1f} s"
