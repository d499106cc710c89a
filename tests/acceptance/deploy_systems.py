"""Other systems: Debian 11 with Python 3.9 and systemd 247, and a target with Python 3.8, as JetPack 5 has."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Iterator

from support.factory import MODEL, Factory, Station, deployed, factory
from support.jetpack_torch import Torch, torch_of
from support.proving import Proof, Setting, Short, Skipped

_OLD_PYTHON = "/opt/python38"
_PLAIN = """\
[station]
site = "plant1"
area = "smt"
line = "line3"
station = "orin11"
[model]
path = "/etc/defectd/boards.torchscript"
device = "cpu"
[[camera]]
name = "top"
kind = "simulated"
rate_hz = 2
[[inspection.defect]]
class_name = "short"
code = "PCB-SHORT"
"""


@contextlib.contextmanager
def _alone(here: Factory, name: str, address: str, suite: str, torch: Torch | None, packages: str = "",
           **variables: object) -> Iterator[Station]:  # fmt: skip
    """Two hosts are enough for this machine: another one goes down for it."""
    if "orin02" in here.stations:
        here.remove("orin02")
    station = here.add(name, address, suite, torch, packages, **variables)
    try:
        yield station
    finally:
        here.remove(name)


def _life(here: Factory, station: Station, version: str) -> str:
    """First deployment, the same again, upgrade, back."""
    name = station.name
    first = deployed(here.controller.make("deploy", name))
    station.inspects()
    again = deployed(here.controller.make("deploy", name))
    if again.changed(name) != 0:
        raise Short(f"a second run: changed={again.changed(name)}")
    deployed(here.controller.make("deploy", name, VERSION=here.wheel(version)))
    station.inspects()
    new = station.release()
    deployed(here.controller.make("rollback", name))
    station.inspects()
    if not new.startswith(f"{version}+") or station.release() == new or station.holes() or station.stray():
        raise Short(f"{new}, then {station.release()}, {station.holes()} numbers missing, left {station.stray()}")
    score = station.host.run("systemd-analyze security --no-pager defectd.service | tail -1").strip()
    return (
        f"first {first.took_s:.0f} s, again changed=0, upgrade to {new.partition('+')[0]} and back, seq contiguous; "
        f"score {score.partition('defectd.service: ')[2].split()[0]}"
    )


def _versions(station: Station, python: str) -> str:
    said = station.host.run(f"systemctl --version | head -1 | cut -d' ' -f1,2; {python} --version")
    return ", ".join(said.splitlines())


def _bullseye(setting: Setting) -> str:
    """With torch if one for its Python is here; else what a station without torch can show."""
    here, torch = factory(), torch_of((3, 9))
    here.wheels_for(f"cp39-{os.uname().machine}")
    with _alone(here, "orin11", "10.77.0.21", "bullseye", torch) as station:
        about = _versions(station, "python3")
        if torch is not None:
            return f"{about}, torch {torch.version}: {_life(here, station, '0.2.1')}"
        refused = here.controller.make("deploy", "orin11")
        if refused.code == 0 or "has no torch" not in refused.message:
            raise Short(refused.message[-800:])
        return f"{about}: preflight asks for torch; without it: {_by_hand(here, station, f'cp39-{os.uname().machine}')}"


def _by_hand(here: Factory, station: Station, target: str) -> str:
    """The steps of the playbook up to the switch: install, the unit, `check`, the doctor."""
    facts = json.loads(_program(here, station, "facts"))
    made = json.loads(_wheelhouse(here, "payload", "--facts", json.dumps(facts)))
    into = f"/opt/defectd/deploy/incoming/{made['release']}.tar"
    _program(here, station, "prepare")
    station.host.run("mkdir -p /opt/defectd/deploy/incoming")
    station.host.run(f"cat >{into}", feed=Path(made["payload"]).read_bytes())
    began_s = time.time()
    _program(here, station, "install", {"release": made["release"], "payload": into})
    took_s = time.time() - began_s
    _program(here, station, "ground", {"release": made["release"], "board": ["--station=orin11"]})
    station.host.run(
        f"cp /opt/defectd/releases/{made['release']}/systemd/defectd.service /etc/systemd/system/ && "
        "systemctl daemon-reload"
    )
    verified = station.host.run("systemd-analyze verify defectd.service 2>&1 | grep -v 'No such file' || true").strip()
    station.host.put({"/etc/defectd/station.toml": _PLAIN})
    station.host.run("cat >/etc/defectd/boards.torchscript", feed=(here.controller.directory / MODEL).read_bytes())
    binary = f"/opt/defectd/releases/{made['release']}/bin/defectd"
    version = station.host.run(f"{binary} --version").strip()
    checked = station.host.run(f"{binary} check --config /etc/defectd/station.toml 2>&1; echo rc=$?")
    asked = f"{binary} doctor --config /etc/defectd/station.toml --quick --json 2>/dev/null"
    found = json.loads(station.host.run(asked, check=False))["findings"]
    named = [one for one in found if "torch" in json.dumps(one) and one["level"] == "error"]
    if not named:
        raise Short(f"the doctor does not miss torch: {found}")
    return (
        f"{version} installed from the lock {target} in {took_s:.0f} s, its unit "
        f"{'as systemd wants it' if not verified else verified[:120]}; defectd check: {checked.split()[-1]}; "
        f"doctor: {len(found)} findings, {named[0]['subject']}: {named[0]['found']}"
    )


def _program(here: Factory, station: Station, command: str, options: object = None) -> str:
    program = here.controller.directory / "deploy/.cache/station.pyz"
    station.host.run("mkdir -p /opt/defectd/deploy; cat >/opt/defectd/deploy/station.pyz", feed=program.read_bytes())
    wish = json.dumps(options or {})
    return station.host.run(f"python3 /opt/defectd/deploy/station.pyz {command} '{wish}'", timeout_s=600)


def _wheelhouse(here: Factory, *arguments: str) -> str:
    python = here.controller.directory / ".venv-deploy/bin/python"
    command = [*here.network.inside, str(python), "-m", "wheelhouse", *arguments]
    folder = here.controller.directory / "deploy"
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def _python38(setting: Setting) -> str:
    """No Debian has 3.8: the interpreter is copied from this machine, as an installation of its own."""
    here, torch = factory(), torch_of((3, 8))
    if torch is None:
        raise Skipped("name a Python 3.8 that has torch in DEFECTD_TORCH_PYTHONS (make test-jetpack5 makes one)")
    packages = f"{_OLD_PYTHON}/lib/python3.8/site-packages"
    here.wheels_for(f"cp38-{os.uname().machine}")
    with _alone(here, "orin12", "10.77.0.22", "bookworm", torch, packages,
                station_python=f"{_OLD_PYTHON}/bin/python3.8") as station:  # fmt: skip
        station.host.run(f"mkdir -p {_OLD_PYTHON}; tar -C {_OLD_PYTHON} -xf -", feed=_packed(torch.prefix))
        station.host.run(f"echo {_OLD_PYTHON}/lib >/etc/ld.so.conf.d/python38.conf; ldconfig")
        about = _versions(station, f"{_OLD_PYTHON}/bin/python3.8")
        return f"{about}, torch {torch.version}: {_life(here, station, '0.2.1')}"


def _packed(prefix: Path) -> bytes:
    buffer = io.BytesIO()

    def chosen(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(member.name).parts
        unwanted = {"test", "tests", "__pycache__", "share", "idlelib", "site-packages"} & set(parts)
        return None if unwanted or member.name.endswith(".a") else member

    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in ("bin", "lib", "include"):
            archive.add(prefix / folder, arcname=folder, filter=chosen)
    return buffer.getvalue()


SYSTEMS = (
    Proof("system.bullseye", "Debian 11: Python 3.9, systemd 247", _bullseye),
    Proof("system.python38", "Python 3.8 with torch 2.1, as on JetPack 5", _python38),
)
