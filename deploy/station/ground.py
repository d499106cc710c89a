"""What all releases share on a station: user, directories, the judge's unit, the drop-in of the board."""

from __future__ import annotations

import pwd
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, Sequence

from station import lock, service
from station.places import JUDGE, SERVICE, USER, DeployError, Places, alone, remove_durably, run, write_durably

SHIPPED = {"defectd.sysusers": "etc/sysusers.d/defectd.conf", "defectd.tmpfiles": "etc/tmpfiles.d/defectd.conf"}
_UNIT = """\
# Written by make deploy. Ends a switch between releases that a reboot has interrupted.
[Unit]
Description=defectd: switch to another release
ConditionPathExists={order}

[Service]
Type=exec
ExecStart={python} {program} judge
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
"""


def prepare(places: Places) -> dict[str, Any]:
    """User, directories, the judge's unit: nothing here depends on the release."""
    with alone(places):
        changed = _make_user()
        group = pwd.getpwnam(USER).pw_gid
        for directory, mode in ((places.releases, 0o755), (places.deploy, 0o755), (places.etc, 0o750),
                                (places.etc / "bundles", 0o750), (places.etc / "credentials", 0o750),
                                (places.etc / "tls", 0o750)):  # fmt: skip
            changed |= _make_directory(directory, mode, group if mode == 0o750 else 0)
        if not places.state.exists():  # systemd would at the first start; the doctor comes before that
            places.state.mkdir(mode=0o700, parents=True)
            shutil.chown(places.state, USER, group)
            changed = True
        text = _UNIT.format(
            order=places.order, python=shlex.quote(sys.executable), program=places.deploy / "station.pyz"
        )
        if _put(places.units / JUDGE, text.encode()):
            service.tell("daemon-reload")
            service.tell("enable", JUDGE)
            changed = True
    return {"changed": changed}


def settle_in(places: Places, release: str, board: Sequence[str]) -> dict[str, Any]:
    """What *release* brings for systemd but its unit, which is put there at the switch. *board*: options of the
    inventory for board_devices.py. Returns whether the service must start anew for it."""
    with alone(places):
        shipped = places.release(release) / "systemd"
        changed = False
        for name, where in SHIPPED.items():
            if (shipped / name).is_file():
                changed |= _put(places.root / where, (shipped / name).read_bytes())
        if changed:
            run(["systemd-sysusers", "defectd.conf"])
            run(["systemd-tmpfiles", "--create", "defectd.conf"])
        generator = shipped / "board_devices.py"
        restart = False
        if generator.is_file():
            told = run([sys.executable, str(generator), *board])
            if told.returncode != 0:
                raise DeployError(f"the board's devices cannot be described: {told.stderr.strip()}")
            drop_in = places.units / f"{SERVICE}.d/board.conf"
            restart = _put(drop_in, told.stdout.encode())
        if restart:
            service.tell("daemon-reload")
    return {"changed": changed or restart, "restart": restart}


def _make_user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        made = run(["useradd", "--system", "--user-group", "--home-dir", "/var/lib/defectd", "--no-create-home",
                    "--shell", "/usr/sbin/nologin", USER])  # fmt: skip
        if made.returncode != 0:
            raise DeployError(f"the user {USER} cannot be made: {made.stderr.strip()}") from None
        return True
    return False


def _make_directory(directory: Path, mode: int, group: int) -> bool:
    directory.mkdir(parents=True, exist_ok=True)
    status = directory.stat()
    if (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, 0, group):
        return False
    shutil.chown(directory, 0, group)
    directory.chmod(mode)
    return True


def _put(path: Path, data: bytes) -> bool:
    if path.is_file() and path.read_bytes() == data:
        return False
    write_durably(path, data)
    return True


def undeploy(places: Places, *, purge: bool) -> dict[str, Any]:
    """Take it all out but the configuration and the state, which only *purge* removes."""
    with alone(places):
        there = [one for one in (places.opt, places.units / SERVICE, places.units / JUDGE) if one.exists()]
        for unit in (JUDGE, SERVICE, "defectd-clocks.service"):
            if (places.units / unit).exists():
                run(["systemctl", "disable", "--now", unit], 180)
                remove_durably(places.units / unit)
        shutil.rmtree(places.units / f"{SERVICE}.d", ignore_errors=True)
        for where in SHIPPED.values():
            remove_durably(places.root / where)
        shutil.rmtree(places.opt, ignore_errors=True)
        service.tell("daemon-reload")
        run(["systemctl", "reset-failed", SERVICE, JUDGE])
        remove_durably(places.run / lock.NAME)
        if purge:
            there += [one for one in (places.etc, places.state) if one.exists()]
            shutil.rmtree(places.etc, ignore_errors=True)
            shutil.rmtree(places.state, ignore_errors=True)
            run(["userdel", USER])
        left = [str(one) for one in (places.etc, places.state) if one.exists()]
    return {"changed": bool(there), "left": left}
