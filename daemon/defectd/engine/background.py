"""Heavy work beside a serving line: a process of the lowest priority that is asked once and answers in JSON lines.

The parent never waits for longer than it said, and whatever the process does, hang, crash or eat the memory, is an
answer. The process leads a session of its own, so that its compilers end with it; it ends with the thread that
started it; and it is the first that the kernel kills if memory runs out.

`python -m defectd.engine.background PARENT_PID NICE COMMAND…` is the child's first step. (Not `preexec_fn`, which may
deadlock in a process that has threads.)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from defectd.clock import NS_PER_S, monotonic_ns

_LOOK_EVERY_S = 0.5
_MAX_LINE_BYTES = 1 << 20
_MAX_LINES_BYTES = 8 << 20
_STDERR_TAIL_BYTES = 4096
_DEATH_S = 5.0
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # system call numbers; the C library has no function for it
_IOPRIO_IDLE = 3 << 13  # IOPRIO_CLASS_IDLE, <linux/ioprio.h>


@dataclass(frozen=True)
class Patience:
    """When the parent stops waiting. `needs_mb` must be available before the start, and `floor_mb` all the time:
    the line must not be driven out of memory by something that can be tried again at night."""

    seconds: float
    needs_mb: int = 0
    floor_mb: int = 128
    nice: int = 19


@dataclass(frozen=True)
class Answer:
    """The last line's object, or in `problem` why there is none, in words. `passing` is true if another time the
    same question may well have an answer: too little memory just now, or told to stop."""

    last: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    passing: bool = False


def ask(
    command: Sequence[str], request: Mapping[str, Any], patience: Patience,
    heard: Callable[[Mapping[str, Any]], None] = lambda _: None, stop: Callable[[], bool] = lambda: False,
) -> Answer:  # fmt: skip
    """Run *command* with *request* as JSON on its standard input. *heard* gets each line before the last one;
    *stop* is asked twice a second. Never raises for what the process does."""
    available_mb = available_memory_mb()
    if available_mb is not None and available_mb < patience.needs_mb:
        problem = f"needs {patience.needs_mb} MB of memory, {available_mb} MB are available"
        return Answer(problem=problem, passing=True)
    try:
        process = _start(command, request, patience.nice)
    except OSError as error:
        return Answer(problem=f"no process: {error}", passing=True)
    conversation = _Conversation(process, patience, heard, stop)
    try:
        ended_by_us = conversation.listen()
    finally:
        _end(process)
    return _judge(conversation, ended_by_us, process.returncode)


def available_memory_mb(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """What the kernel would give to a new process without swapping; on a Jetson, its GPU's memory is the same."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) // 1024
    return None


def _start(command: Sequence[str], request: Mapping[str, Any], nice: int) -> subprocess.Popen[bytes]:
    question = os.memfd_create("question", os.MFD_CLOEXEC)  # not a pipe: it may be longer than a pipe holds
    with os.fdopen(question, "wb") as file:
        file.write(json.dumps(request).encode())
        file.flush()
        file.seek(0)
        return subprocess.Popen(
            [sys.executable, "-m", "defectd.engine.background", str(os.getpid()), str(nice), *command],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
        )


class _Conversation:
    """What a process says until it ends, or until patience does."""

    def __init__(
        self, process: subprocess.Popen[bytes], patience: Patience,
        heard: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._process, self._patience, self._heard, self._stop = process, patience, heard, stop
        self.last: Mapping[str, Any] | None = None
        self.complaints = b""
        self._unfinished = b""
        self._bytes = 0

    def listen(self) -> tuple[str, bool] | None:
        """None once it has closed its ends; else why not to listen any longer, and whether that may pass."""
        due_ns = monotonic_ns() + int(self._patience.seconds * NS_PER_S)
        with selectors.DefaultSelector() as selector:
            for stream in (self._process.stdout, self._process.stderr):
                assert stream is not None
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                if self._stop():
                    return "was told to stop", True
                left_s = (due_ns - monotonic_ns()) / NS_PER_S
                if left_s <= 0:
                    return f"took longer than {self._patience.seconds:g} s", False
                available_mb = available_memory_mb()
                if available_mb is not None and available_mb < self._patience.floor_mb:
                    return f"left only {available_mb} MB of memory to the others", True
                for key, _ in selector.select(min(left_s, _LOOK_EVERY_S)):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is self._process.stderr:
                        self.complaints = (self.complaints + data)[-_STDERR_TAIL_BYTES:]
                    elif (nonsense := self._read(data)) is not None:
                        return nonsense, False
                if _has_ended(self._process) and not selector.select(0):
                    return None  # a grandchild may hold the pipes for ever
        give_up_ns = monotonic_ns() + int(_DEATH_S * NS_PER_S)
        while not _has_ended(self._process) and monotonic_ns() < give_up_ns:
            time.sleep(0.01)  # it has closed its ends: it is leaving
        return None

    def _read(self, data: bytes) -> str | None:
        """Why what it says is no answer, if so."""
        self._bytes += len(data)
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        if self._bytes > _MAX_LINES_BYTES or max(map(len, (*lines, self._unfinished))) > _MAX_LINE_BYTES:
            return "says more than it should"
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                return f"does not speak JSON: {line[:80]!r}"
            if self.last is not None:
                self._heard(self.last)
            self.last = record
        return None


def _judge(conversation: _Conversation, ended_by_us: tuple[str, bool] | None, code: int | None) -> Answer:
    if ended_by_us is not None:
        return Answer(problem=ended_by_us[0], passing=ended_by_us[1])
    if code == 0 and conversation.last is not None:
        return Answer(last=conversation.last)
    lines = [line.strip() for line in conversation.complaints.decode(errors="replace").splitlines() if line.strip()]
    if code == 0:
        ending = "ended without an answer"
    elif code is None:
        ending = "cannot be killed: it hangs in a driver"
    else:
        ending = f"ended with exit status {code}" if code > 0 else f"was killed by {_signal_name(-code)}"
    if conversation.last is not None and "error" in conversation.last:
        return Answer(last=conversation.last)
    return Answer(problem=f"{ending}: {lines[-1][:300]}" if lines else ending, passing=code == -signal.SIGKILL)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without burying it: while it is a zombie, its number belongs to no other process group."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and all that it started. One that lingers in its driver is left to init: nobody waits for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # its session is its own: pid and group are the same
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_DEATH_S)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def become_background(parent: int, nice: int) -> None:
    """For this process, and for what it executes: end with *parent*, and let everybody go first."""
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(0)
    os.nice(nice)
    _lower_session(nice)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        library.syscall(number, 1, 0, _IOPRIO_IDLE)  # 1: of a process; if it is refused, nice has to do
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _lower_session(nice: int) -> None:
    """Where the kernel groups processes by session (sched_autogroup), `nice` counts only within one, and this session
    would have as much of the cores as the line's. The kernel takes one change in a tenth of a second."""
    for _ in range(3):
        try:
            Path("/proc/self/autogroup").write_text(str(nice))
        except BlockingIOError:
            time.sleep(0.15)
        except OSError:  # a kernel without it
            return
        else:
            return


if __name__ == "__main__":
    become_background(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606 - no shell is wanted
