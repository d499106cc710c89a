"""A line of real hosts to deploy to: laptop, network, broker, stations, all in network namespaces of this machine."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Mapping

from support.controller import Controller, Run
from support.factory_network import FactoryNetwork, missing
from support.jetpack_torch import Torch, torch_of
from support.proving import Short, Skipped
from support.systemd_host import NO_HOST, SystemdHost, script

MODEL = "daemon/defectd/demo/boards.torchscript"
TARGET = f"cp311-{os.uname().machine}"
PYTHON_OF = {"bookworm": (3, 11), "bullseye": (3, 9), "trixie": (3, 13)}
_ASK_STRAY = (
    "ls -d /opt/defectd/releases/*.partial /opt/defectd/deploy/order.json /opt/defectd/deploy/word.json "
    "/opt/defectd/deploy/incoming/* /run/defectd-deploy.lock 2>/dev/null; "
    "find /opt/defectd /etc/defectd /etc/systemd/system -maxdepth 3 -name '.*.new' 2>/dev/null; true"
)


class Station:
    """A host of the inventory, seen past the factory's network."""

    def __init__(self, factory: Factory, name: str, host: SystemdHost, address: str) -> None:
        self.name, self.host, self.address = name, host, address
        self._factory = factory

    @property
    def port(self) -> str:
        """Its end of the cable, at the bridge."""
        return f"to-{self.name}"

    def events(self) -> list[dict[str, Any]]:
        """What the MES has of it."""
        return self._factory.network.events(self.name)

    def release(self) -> str:
        """Which one `current` leads to."""
        return self.host.run("readlink /opt/defectd/current || true").strip().rpartition("/")[2]

    def shows(self, name: str) -> str:
        """A property of the unit."""
        return self.host.run(f"systemctl show -p {name} --value defectd.service").strip()

    def judged_since(self, wall_s: float) -> list[dict[str, Any]]:
        """Units with a verdict other than error, that were begun after *wall_s*."""
        return [one for one in self.events() if one["verdict"] != "error" and unix_s(one["started_at"]) > wall_s]

    def inspects(self, within_s: float = 240) -> float:
        """Wait for a unit that is begun from now on to reach the MES; seconds until then. Raises Short."""
        began_s = time.time()
        while time.time() < began_s + within_s:
            if self.judged_since(began_s):
                return time.time() - began_s
            time.sleep(0.5)
        state = self.host.run("systemctl status --no-pager -n 12 defectd.service 2>&1 || true")
        raise Short(f"{self.name}: the MES gets no inspection within {within_s:.0f} s:\n{state}")

    def settled(self, within_s: float = 400) -> None:
        """Wait until no switch is under way."""
        deadline_s = time.time() + within_s
        while self.host.run("test -e /opt/defectd/deploy/order.json && echo yes || true", check=False).strip():
            if time.time() > deadline_s:
                raise Short(f"{self.name}: a switch is under way after {within_s:.0f} s")
            time.sleep(0.5)

    def silence_s(self, since_s: float) -> float:
        """The longest time without a judged unit from *since_s* (Unix) on, by the station's clock."""
        times = sorted(unix_s(one["ended_at"]) for one in self.events() if one["verdict"] != "error")
        return max((after - at for at, after in zip(times, times[1:]) if after > since_s), default=float("inf"))

    def stray(self) -> list[str]:
        """What an interrupted deployment has left lying about."""
        return self.host.run(_ASK_STRAY).split()

    def holes(self) -> int:
        """Numbers that are missing in the sequence of what the MES has; a station may have changed its name."""
        runs: dict[str, list[int]] = {one["epoch"]: [] for one in self.events()}
        for one in self._factory.network.events():
            if one["epoch"] in runs:
                runs[one["epoch"]].append(one["seq"])
        return sum(max(seqs) - min(seqs) + 1 - len(set(seqs)) for seqs in runs.values())

    def await_boot(self, before: str, within_s: float = 120) -> None:
        """Until it answers with another boot than *before*."""
        deadline_s = time.time() + within_s
        while time.time() < deadline_s:
            try:
                if self.boot() not in ("", before):
                    return
            except subprocess.TimeoutExpired:
                pass
            time.sleep(0.3)
        raise Short(f"{self.name} does not come back from its reboot")

    def boot(self) -> str:
        """When its first process began; the boot id is that of this machine's kernel."""
        return self.host.run("cut -d' ' -f22 /proc/1/stat", check=False, timeout_s=15).strip()

    def reboot(self) -> None:
        """As root would."""
        before = self.boot()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.host.run("systemctl reboot", check=False, timeout_s=10)
        self.await_boot(before)


class Factory:
    """All of it. Hosts are booted when they are first asked for, two at most."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = FactoryNetwork(f"line{os.getpid()}", directory)
        self.controller = Controller(directory / "laptop", self.network.inside)
        self.stations: dict[str, Station] = {}
        self._hosts: dict[str, Any] = {}
        self.fetch_s: dict[str, float] = {}
        self._wheels: dict[str, str] = {}

    def up(self) -> None:
        """Network, broker, laptop; no station yet."""
        self.network.up()
        self.controller.copy()

    def down(self) -> None:
        """All of it."""
        for station in list(self.stations.values()):
            self.remove(station.name)
        self.network.down()

    def wheels_for(self, target: str) -> None:
        """Fetch them once: from here on the laptop needs no internet."""
        if target not in self.fetch_s:
            self.fetch_s[target] = self.controller.fetch(target)

    def wheel(self, version: str, changes: Mapping[str, tuple[str, str]] | None = None) -> str:
        """Built once."""
        if version not in self._wheels:
            self._wheels[version] = self.controller.wheel(version, changes)
        return self._wheels[version]

    def add(
        self, name: str, address: str, suite: str = "bookworm", torch: Torch | None = None, packages: str = "",
        **variables: Any,
    ) -> Station:  # fmt: skip
        """Boot a clean host, connect it, and put it into the inventory."""
        python = PYTHON_OF[suite]
        if not packages:
            torch = torch or torch_of(python)
            packages = f"/usr/local/lib/python{python[0]}.{python[1]}/dist-packages"
        host = SystemdHost(f"{self.network.name}-{name}", suite, torch.binds(packages) if torch else None)
        host.__enter__()
        station = Station(self, name, host, address)
        self.stations[name] = station
        self._hosts[name] = {"ansible_host": address, "station_name": name, **variables}
        self.network.connect(station.port, host.name, address)
        self.network.certify("station", name)
        self.write_inventory()
        return station

    def remove(self, name: str) -> None:
        """Power off, and out of the inventory."""
        self.stations.pop(name).host.__exit__()
        self._hosts.pop(name)
        self.write_inventory()

    def write_inventory(
        self, name: str = "inventory.yml", more: Mapping[str, Any] | None = None, **changes: Any
    ) -> str:
        """JSON is YAML. *changes* are to what all stations have, *more* are hosts."""
        folder = Path(os.environ.get("W") or Path(tempfile.gettempdir(), "systemd-host"))
        ssh = self.directory / "ssh_config"
        ssh.write_text(
            f"Host *\n  User deploy\n  IdentityFile {folder}/id_ed25519\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.directory}/known_hosts\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n"
        )
        (self.directory / "known_hosts").unlink(missing_ok=True)
        shared = {
            "ansible_ssh_common_args": f"-F {ssh}",
            "station_site": "plant1", "station_area": "smt", "station_line": "line3",
            "station_mqtt": {"host": "10.77.0.1", "port": 8883},
            "station_watch_broker": self.network.certificates("technician"),
            "station_model": str(self.controller.directory / MODEL),
            "station_watch_s": 10,
            "station_seen_s": 10,
            "station_inspection": {
                "recipe": "boards", "deadline_ms": 5000,
                "defect": [{"class_name": "short", "code": "PCB-SHORT", "min_confidence": 0.5}],
            },
            "station_cameras": [{"name": "top", "kind": "simulated", "rate_hz": 2}],
            "station_more": {"model": {"device": "cpu", "threads": 1, "warmup_min": 3, "warmup_max": 5}},
            **changes,
        }  # fmt: skip
        hosts = {one: {"station_tls": self.network.certificates(one), **said} for one, said in self._hosts.items()}
        hosts.update(more or {})
        path = self.controller.directory / name
        path.write_text(json.dumps({"all": {"vars": shared, "hosts": hosts}}, indent=1))
        return str(path)

    def orin01(self) -> Station:
        """The station that most proofs share, deployed and inspecting."""
        if "orin01" not in self.stations:
            self.wheels_for(TARGET)
            self.add("orin01", "10.77.0.11")
        station = self.stations["orin01"]
        if not station.release():
            deployed(self.controller.make("deploy", "orin01"))
        return station

    def on(self, version: str) -> tuple[Station, Run]:
        """orin01 with *version* of defectd."""
        station = self.orin01()
        return station, deployed(self.controller.make("deploy", "orin01", VERSION=self.wheel(version)))


def deployed(run: Run) -> Run:
    """It must have gone well. Raises Short with what a person would read."""
    if run.code != 0:
        kept = Path(tempfile.mkdtemp(prefix="prove-deploy-log-"), run.log.name)
        shutil.copy(run.log, kept)
        raise Short(f"make ended with {run.code}; {kept}:\n{run.message[-1500:]}")
    return run


def unix_s(moment: str) -> float:
    """Seconds since 1970 of a time as events carry it."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


_shared: list[Factory] = []


def factory() -> Factory:
    """The one that all proofs share; it goes down when this process ends, also by SIGTERM. Raises Skipped."""
    if script() is None:
        raise Skipped(NO_HOST)
    if missing() is not None:
        raise Skipped(str(missing()))
    if torch_of(PYTHON_OF["bookworm"]) is None:
        raise Skipped(
            "the hosts have Python 3.11: run it with a 3.11 that has torch, or name one in DEFECTD_TORCH_PYTHONS"
        )
    if not _shared:
        made = Factory(Path(tempfile.mkdtemp(prefix="prove-deploy-factory-")))
        _shared.append(made)
        atexit.register(_down, made)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        made.up()
    return _shared[0]


def _down(made: Factory) -> None:
    made.down()
    shutil.rmtree(made.directory, ignore_errors=True)
