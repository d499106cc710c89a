"""The parent's side of a worker: start it, talk to it, kill it when it hangs, start another one.

Everything is driven from the one thread that owns the workers, by readiness and by time: no locks, no waiting.
That thread must outlive the workers: PR_SET_PDEATHSIG counts the thread that started them as their parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Callable

from defectd.clock import NS_PER_S, Backoff, monotonic_ns
from defectd.workers.channel import Channel, ChannelClosed
from defectd.workers.protocol import Alive, Kind, Note, ProtocolError, Record
from defectd.workers.ring import FrameRing

log = logging.getLogger(__name__)


class WorkerState(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # dead; a new one starts after the back-off
    STOPPED = "stopped"  # dead for good


@dataclass(frozen=True)
class WorkerLimits:
    """When patience ends, in seconds."""

    start_s: float = 30.0
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
    """A worker ended. `fatal` is what it said itself, if it could: code and detail."""

    reason: str
    fatal_code: str
    fatal_detail: str
    retry_s: float


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
        self._due_ns = 0  # of the state's own time limit: start, silence, or end of the back-off
        self._reply_due_ns: int | None = None
        self._ready_since_ns = 0
        self._fatal = ("", "")

    @property
    def channel(self) -> Channel | None:
        """For select; None while there is no process."""
        return self._channel

    @property
    def pid(self) -> int | None:
        """Of the current process."""
        return None if self._process is None else self._process.pid

    @property
    def ready(self) -> bool:
        """It has said READY and has not died since."""
        return self.state is WorkerState.READY

    @property
    def due_ns(self) -> int | None:
        """When `tick` must be called at the latest; None if nothing is awaited."""
        if self.state is WorkerState.STOPPED:
            return None
        return self._due_ns if self._reply_due_ns is None else min(self._due_ns, self._reply_due_ns)

    def start(self) -> None:
        """Start the process and send it its configuration."""
        self._channel, theirs = Channel.pair()
        descriptors = [theirs.fileno(), *(ring.fd for ring in self.spec.rings)]
        command = [sys.executable, "-m", self.spec.module, str(theirs.fileno()), str(os.getpid())]
        environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        self._process = subprocess.Popen(
            command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=environment
        )
        theirs.close()
        self.report, self._fatal, self._reply_due_ns = {}, ("", ""), None
        self._enter(WorkerState.STARTING, self.spec.limits.start_s)
        rings = [
            {"fd": ring.fd, "slots": ring.layout.slots, "frame_bytes": ring.layout.frame_bytes}
            for ring in self.spec.rings
        ]
        with contextlib.suppress(ChannelClosed):  # died at once: `receive` reads end of file and says so
            self._channel.send(Note(Kind.CONFIGURE, {**self.spec.configuration(), "rings": rings, "nice": self.spec.nice}))

    def send(self, record: Record, reply_within_s: float | None = None) -> bool:
        """Send *record*; False if there is nobody to take it. With *reply_within_s* the worker is killed as hung
        unless `replied` is called in time."""
        if self._channel is None:
            return False
        try:
            self._channel.send(record)
        except ChannelClosed:
            return False  # `receive` will read end of file and report the death
        if reply_within_s is not None:
            self._reply_due_ns = monotonic_ns() + int(reply_within_s * NS_PER_S)
        return True

    def replied(self) -> None:
        """The awaited reply is here."""
        self._reply_due_ns = None

    def receive(self) -> list[Record | Died]:
        """Everything that has arrived; a `Died` comes last. ALIVE, READY and last words are dealt with here, but
        READY and FAULT notes are also returned."""
        news: list[Record | Died] = []
        while self._channel is not None:
            try:
                record = self._channel.receive(timeout_s=0)
            except ChannelClosed:
                news.append(self._bury("exited"))
                break
            except ProtocolError as error:
                log.error("%s: %s", self.spec.name, error)
                news.append(self._bury("protocol"))
                break
            if record is None:
                break
            self._heard(record)
            if not isinstance(record, Alive):
                news.append(record)
        return news

    def tick(self, now_ns: int) -> Died | None:
        """Enforce what is due at *now_ns*: kill a silent or hung worker, or start the next one."""
        if self.state is WorkerState.WAITING and now_ns >= self._due_ns:
            self.start()
        elif self.state is WorkerState.STARTING and now_ns >= self._due_ns:
            return self._bury("start_timeout")
        elif self.state is WorkerState.READY and self._reply_due_ns is not None and now_ns >= self._reply_due_ns:
            return self._bury("hung")
        elif self.state is WorkerState.READY and now_ns >= self._due_ns:
            return self._bury("silent")
        return None

    def fail(self, reason: str) -> Died:
        """Replace the worker: it does what it must not."""
        return self._bury(reason)

    def stop(self) -> None:
        """Close the channel so that the worker leaves by itself; `reap` makes sure."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.state = WorkerState.STOPPED

    def reap(self, timeout_s: float) -> None:
        """Wait for a stopped worker; kill it if it does not leave."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _heard(self, record: Record) -> None:
        if isinstance(record, Note) and record.kind is Kind.READY:
            self.report = record.body
            self.state, self._ready_since_ns = WorkerState.READY, monotonic_ns()
        elif isinstance(record, Note) and record.kind is Kind.FAULT and record.body.get("state") == "fatal":
            self._fatal = (str(record.body.get("code", "")), str(record.body.get("detail", "")))
        if self.state is WorkerState.READY:
            self._due_ns = monotonic_ns() + int(self.spec.limits.silence_s * NS_PER_S)

    def _bury(self, reason: str) -> Died:
        """SIGKILL, reap, count, and plan the successor. The kill comes first: after it nobody writes to a slot."""
        assert self._process is not None and self._channel is not None
        if reason != "exited":
            self._process.kill()
        self._channel.close()
        self._channel, self._reply_due_ns = None, None
        code = _wait(self._process)
        if reason == "exited":
            reason = f"signal_{-code}" if code < 0 else f"exit_{code}"
        self._process = None
        self.exits[reason] += 1
        was_healthy = self.state is WorkerState.READY and (
            monotonic_ns() - self._ready_since_ns > self.spec.limits.healthy_s * NS_PER_S
        )
        if was_healthy:
            self._backoff.reset()
        retry_s = self._backoff.next_s()
        self._enter(WorkerState.WAITING, retry_s)
        return Died(reason, *self._fatal, retry_s)

    def _enter(self, state: WorkerState, limit_s: float) -> None:
        self.state, self._due_ns = state, monotonic_ns() + int(limit_s * NS_PER_S)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code. A process that closed its channel but lingers is killed, so this never blocks for long."""
    try:
        return process.wait(0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
