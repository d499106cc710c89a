"""A factory's network in a namespace of its own: the controller and a Mosquitto with TLS on one side, stations on a
cable each. Nothing of it can be reached from outside, and nothing in it reaches anything outside. Needs root."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support.brokers import find_mosquitto

REPOSITORY = Path(__file__).parents[2]
ROLE = REPOSITORY / "deploy/roles/broker"
CONTROLLER = "10.77.0.1"
PORT = 8883
USERS = ("mes", "technician")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class FactoryNetwork:
    """The namespace *name* with a bridge, the broker as the role `broker` configures it, and what an MES receives."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.ca = directory / "line-ca"
        self._broker: subprocess.Popen[bytes] | None = None
        self._reader: subprocess.Popen[bytes] | None = None
        self._read = directory / "received.jsonl"

    @property
    def inside(self) -> list[str]:
        """What to put before a command that runs there."""
        return ["ip", "netns", "exec", self.name]

    def up(self) -> None:
        """Namespace, bridge, certificates, broker, and the MES."""
        _run("ip", "netns", "add", self.name)
        _run("ip", "-n", self.name, "link", "set", "lo", "up")
        _run("ip", "-n", self.name, "link", "add", "line", "type", "bridge")
        _run("ip", "-n", self.name, "address", "add", f"{CONTROLLER}/24", "dev", "line")
        _run("ip", "-n", self.name, "link", "set", "line", "up")
        self.certify("server", "broker", CONTROLLER)
        for user in USERS:
            self.certify("user", user)
        self.start_broker()
        self._reader = subprocess.Popen(
            [*self.inside, sys.executable, "-m", "support.mes", CONTROLLER, str(PORT), str(self.ca), str(self._read)],
            cwd=REPOSITORY / "tests",
        )
        deadline_s = time.monotonic() + 30
        while not self._read.exists():
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the MES cannot subscribe: {(self.directory / 'mosquitto.log').read_text()}")
            time.sleep(0.05)

    def down(self) -> None:
        """All of it, whatever is there."""
        for process in (self._reader, self._broker):
            if process is not None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def certify(self, *arguments: str) -> None:
        """The CA of the line, as the role calls it."""
        _run("sh", str(ROLE / "files/line_ca"), str(self.ca), *arguments)

    def start_broker(self) -> None:
        """Mosquitto with the template and the ACL that the role ships."""
        import jinja2

        executable = find_mosquitto()
        assert executable is not None
        folder = self.directory / "mosquitto"
        folder.mkdir(exist_ok=True)
        text = jinja2.Template((ROLE / "templates/mosquitto.conf.j2").read_text(), keep_trailing_newline=True).render(
            broker_port=PORT, broker_bind=CONTROLLER, broker_directory=folder, broker_log="stderr",
            broker_state=folder, broker_autosave_s=30, broker_queue_messages=100_000, broker_queue_bytes=256 << 20,
            broker_forget_clients_after="7d", broker_packet_bytes=1 << 20, broker_connections=500,
        )  # fmt: skip
        for here, there in (("ca.crt", "ca.crt"), ("ca.crl", "ca.crl"), ("broker.broker.crt", "broker.crt"),
                            ("broker.broker.key", "broker.key")):  # fmt: skip
            (folder / there).write_bytes((self.ca / here).read_bytes())
        (folder / "acl").write_bytes((ROLE / "files/acl").read_bytes())
        configuration = folder / "mosquitto.conf"
        configuration.write_text(text + "user root\n")  # it would give up root, and could not read the keys
        with (self.directory / "mosquitto.log").open("ab") as log:
            self._broker = subprocess.Popen(
                [*self.inside, executable, "-c", str(configuration)], stdout=log, stderr=log
            )

    def connect(self, port: str, namespace: str, address: str) -> None:
        """A cable from the bridge to the station whose namespace that is."""
        _run("ip", "link", "add", port, "netns", self.name, "type", "veth", "peer", "name", "line0", "netns", namespace)
        _run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "line0")
        _run("ip", "-n", namespace, "link", "set", "line0", "up")
        _run("ip", "-n", self.name, "link", "set", port, "master", "line", "up")

    def cut(self, port: str) -> None:
        """The cable is pulled."""
        _run("ip", "-n", self.name, "link", "set", port, "down")

    def mend(self, port: str) -> None:
        """And put back."""
        _run("ip", "-n", self.name, "link", "set", port, "up")

    def events(self, station: str = "", stream: str = "inspection") -> list[dict[str, Any]]:
        """What the MES has of a station or of all, without repetitions, in order of arrival."""
        found: dict[str, dict[str, Any]] = {}
        with self._read.open() as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break  # being written
                topic, event = json.loads(line)
                if topic.endswith(f"{'/' if station else ''}{station}/evt/{stream}"):
                    found.setdefault(event["id"], event)
        return list(found.values())

    def certificates(self, name: str) -> dict[str, str]:
        """The files of *name*, as an inventory names them."""
        return {
            "ca": str(self.ca / "ca.crt"),
            "cert": str(self.ca / f"{name}.crt"),
            "key": str(self.ca / f"{name}.key"),
        }


def missing() -> str | None:
    """Why there can be no such network here, or None."""
    if os.geteuid() != 0:
        return "needs root: network namespaces"
    if find_mosquitto() is None:
        return "no mosquitto; run: sudo apt-get install mosquitto"
    return None
