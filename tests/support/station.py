"""A real station: its TOML, its daemon process as systemd would run it, and that process's workers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

CHECKOUT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 120.0
RESTART_S = 1.0  # RestartSec= of systemd/defectd.service
_WATCHDOG_US = 30_000_000
_WORKER = re.compile(rb"defectd\.(camera|engine|evidence)\.worker$")


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """*table* as TOML: nested mappings are tables, lists of mappings arrays of tables, None is left out."""
    lines, tables = [], []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{prefix}{key}]\n" + to_toml(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{prefix}{key}]]\n" + to_toml(each, f"{prefix}{key}.") for each in value]
        elif value is not None:
            lines.append(f"{key} = {json.dumps(str(value) if isinstance(value, Path) else value)}\n")
    return "".join(lines + tables)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """*base* with *changes* laid over it, table by table; lists are replaced."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


def write_config(directory: Path, settings: Mapping[str, Any]) -> Path:
    """station.toml in *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "station.toml"
    path.write_text(to_toml(settings))
    return path


def defectd(*arguments: str | Path) -> list[str]:
    """The command line of this checkout's daemon, under the interpreter that runs the test."""
    return [sys.executable, "-m", "defectd", *(str(argument) for argument in arguments)]


def environment(**extra: str) -> dict[str, str]:
    """Of a process that imports defectd from this checkout. No DEFECTD_ variable of ours may change its settings."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DEFECTD_")}
    paths = [str(CHECKOUT / "daemon"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **extra}


def wait_until(true: Callable[[], object], timeout_s: float, what: str, every_s: float = 0.05) -> float:
    """Wait until *true()*; the seconds it took. Raises TimeoutError, which names *what*."""
    started_s = time.monotonic()
    while not true():
        if time.monotonic() - started_s > timeout_s:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(every_s)
    return time.monotonic() - started_s


@dataclass(frozen=True)
class Notice:
    """One line that the daemon told systemd, and when (monotonic seconds)."""

    at_s: float
    text: str


class DaemonProcess:
    """`defectd run` with a notify socket and a watchdog, as a service of Type=notify has them."""

    def __init__(self, config: Path, arguments: Sequence[str] = (), **extra: str) -> None:
        self.config, self._arguments, self.extra = config, arguments, extra
        self.notices: list[Notice] = []
        self.log_path = config.parent / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Start the process; `wait_ready` is separate."""
        address = f"\0defectd-test-{os.getpid()}-{id(self)}-{time.monotonic_ns()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self.notices = []
        threading.Thread(target=self._hear, args=(self._socket, self.notices), daemon=True).start()
        told = {"NOTIFY_SOCKET": "@" + address[1:], "WATCHDOG_USEC": str(_WATCHDOG_US)}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                defectd("run", "--config", self.config, *self._arguments),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment(**told, **self.extra),
            )

    def wait_ready(self, timeout_s: float = READY_WITHIN_S) -> float:
        """Until READY=1; the seconds it took. Raises RuntimeError with the log if that does not come."""
        try:
            return wait_until(self._ready_or_dead, timeout_s, "READY=1")
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self.log()[-2000:]}") from error

    def _ready_or_dead(self) -> bool:
        if self.exit_code is not None:
            raise RuntimeError(f"the daemon ended with {self.exit_code} before READY:\n{self.log()[-2000:]}")
        return self.is_ready

    @property
    def is_ready(self) -> bool:
        """It has said READY=1 since its last start."""
        return any(notice.text == "READY=1" for notice in self.notices)

    @property
    def pid(self) -> int:
        """Of the daemon."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def wait(self, timeout_s: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def log(self) -> str:
        """All that it and its workers have written to stderr, over all starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def workers(self, kind: str) -> list[int]:
        """The pids of its living camera, engine or evidence workers."""
        return sorted(pid for pid, found in workers_of(self.pid).items() if found == kind)

    def kill(self) -> float:
        """SIGKILL, as the kernel's OOM killer does it: to the daemon alone. Returns how many seconds later the last
        of its workers was gone; raises TimeoutError if one stays."""
        assert self._process is not None
        pid = self._process.pid
        self._process.kill()
        self._process.wait()
        self._close_socket()
        return wait_until(lambda: not workers_of(pid), 15, f"the workers of {pid} are gone, too", 0.005)

    def terminate(self, timeout_s: float = 30.0) -> float:
        """SIGTERM; the seconds until it has ended."""
        assert self._process is not None
        started_s = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout_s)
        took_s = time.monotonic() - started_s
        self._close_socket()
        return took_s

    def end(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(TimeoutError):
                self.kill()
        self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None

    @staticmethod
    def _hear(listening: socket.socket, notices: list[Notice]) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = listening.recv(65536)
                if not data:
                    return
                notices += [Notice(time.monotonic(), line) for line in data.decode().splitlines()]


def workers_of(daemon_pid: int) -> dict[int, str]:
    """The living workers that *daemon_pid* started, adopted by somebody else or not: each has its pid as argument.
    From pid to camera, engine or evidence."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
            match = next(filter(None, map(_WORKER.search, arguments)), None)
            if match is not None and arguments[-1] == str(daemon_pid).encode() and not _is_zombie(entry):
                found[int(entry.name)] = match.group(1).decode()
    return found


def _is_zombie(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
