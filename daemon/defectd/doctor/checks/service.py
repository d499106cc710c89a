"""systemd: does the station come back by itself, and does somebody watch whether it works? And its web port."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Iterator, Mapping

from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning

UNIT = "defectd.service"
_ASKED = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts", "WatchdogUSec", "Type", "User",
    "ExecStart", "StatusText", "MainPID",
)  # fmt: skip
_PATIENCE_S = 5.0


def check_service(patient: Patient) -> Iterator[Finding]:
    """What systemd knows of the unit."""
    properties = _properties()
    if isinstance(properties, str):
        yield skipped("service", properties)
        return
    yield from service_findings(properties, patient.config, patient)


def check_web(patient: Patient) -> Iterator[Finding]:
    """A port that is taken keeps the daemon from starting."""
    web = None if patient.settings is None else patient.settings.web
    if web is None or patient.busy:
        return
    try:
        family, kind, _, _, address = socket.getaddrinfo(web.host, web.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as problem:
        yield error("web", f"{web.host}:{web.port}: {problem.strerror or problem}", "set another web.port, or see who "
                    f"has it: sudo ss -ltnp 'sport = :{web.port}'")  # fmt: skip
    else:
        yield ok("web", f"{web.host}:{web.port} is free")


def _properties() -> Mapping[str, str] | str:
    """Or why there are none."""
    command = ["systemctl", "show", UNIT, "--no-pager", f"--property={','.join(_ASKED)}"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except FileNotFoundError:
        return "there is no systemd here"
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"systemctl does not answer: {problem}"
    if told.returncode != 0:
        why = (told.stderr.strip().splitlines() or ["systemctl says nothing"])[0]
        return "this machine was not started by systemd" if "not been booted with systemd" in why else why
    return dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)


def service_findings(unit: Mapping[str, str], config: Path, patient: Patient) -> Iterator[Finding]:
    """Of what `systemctl show` says. Pure."""
    journal = f"journalctl -u {UNIT} -n 50"
    if unit.get("LoadState") == "not-found":
        stray = f"; {patient.busy}, and nobody restarts it" if patient.busy else ""
        yield warning("service", f"{UNIT} is not installed: nothing starts the station with the machine{stray}",
                      f"sudo cp systemd/{UNIT} /etc/systemd/system/; sudo systemctl enable --now defectd")  # fmt: skip
        return
    yield _activity(unit, patient, journal)
    if unit.get("UnitFileState") not in ("enabled", "enabled-runtime", "static", "generated", ""):
        yield warning("service", f"is {unit.get('UnitFileState')}: it does not start with the machine",
                      "sudo systemctl enable defectd")  # fmt: skip
    restarts = unit.get("NRestarts", "0")
    if restarts not in ("0", ""):
        yield warning("service", f"was started anew {restarts} times since somebody started it", f"why: {journal}",
                      restarts=int(restarts))  # fmt: skip
    yield _watchdog(unit)
    other = configuration_of(unit.get("ExecStart", ""))
    if other is not None and other.resolve() != config.resolve():
        yield warning("service", f"runs with {other}, not with {config}", f"defectd doctor --config {other}")


def _activity(unit: Mapping[str, str], patient: Patient, journal: str) -> Finding:
    active = unit.get("ActiveState")
    says = f": {unit['StatusText']}" if unit.get("StatusText") else ""
    if active == "active":
        return ok("service", f"runs{says}", active=active)
    if active in ("activating", "reloading"):
        return warning("service", f"is starting{says}", f"wait for the model to be warm; if it stays so: {journal}")
    if active == "failed":
        return error("service", f"has failed ({unit.get('Result')})", f"{journal}; then sudo systemctl restart defectd")
    if patient.occupancy.occupied:
        return warning("service", f"is stopped, but {patient.busy}: nobody restarts that one",
                       "stop it, then: sudo systemctl start defectd")  # fmt: skip
    return warning("service", "is stopped: no unit is inspected", "sudo systemctl start defectd", active=active)


def _watchdog(unit: Mapping[str, str]) -> Finding:
    interval = unit.get("WatchdogUSec", "0")
    if interval in ("0", "infinity", ""):
        return warning("watchdog", "is off: a station that hangs stays hung", f"WatchdogSec=20 in {UNIT}; then sudo "
                       "systemctl daemon-reload && sudo systemctl restart defectd")  # fmt: skip
    return ok("watchdog", f"every {interval}")


def configuration_of(command: str) -> Path | None:
    """Of ExecStart as systemd shows it: `{ path=… ; argv[]=defectd run --config /etc/… ; …`."""
    words = command.replace("=", " ").split()
    after = [words[index + 1] for index, word in enumerate(words[:-1]) if word == "--config"]
    return Path(after[0]) if after else None
