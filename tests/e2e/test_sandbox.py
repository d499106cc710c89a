"""The unit's sandbox, tried from inside it on a real host: what it forbids, and what it must not.

Each restriction is tried three times: in the shipped unit (forbidden), alone in an otherwise bare service (forbidden:
it is this line that does it), and in that bare service without it (allowed: the probe can tell).
"""

from __future__ import annotations

import json
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator

import pytest

from defectd.demo.station import MODEL, DemoStation
from defectd.messaging.topics import Topics
from defectd.watch.listener import BrokerAddress
from support import sandbox_probes
from support.systemd_host import NO_HOST, SystemdHost, script

REPOSITORY = Path(__file__).parents[2]
UNIT = (REPOSITORY / "systemd/defectd.service").read_text()
BOARD_OPTIONS = "--memory-max 384M --station aoi1 --allow-address 10.77.0.0/16"
PROBE = "/usr/bin/python3 /opt/probes/sandbox_probes.py"

pytestmark = pytest.mark.skipif(script() is None, reason=NO_HOST)

# The compiler and the packages of this machine, for a host that has no network to fetch its own.
BINDS = {
    "/usr": "/opt/compiler/usr",
    str(REPOSITORY / "daemon"): "/opt/station/daemon",
    sysconfig.get_paths()["purelib"]: "/opt/station/packages",
}
EXECUTABLES = {
    "/usr/local/bin/g++": "#!/bin/sh\n"
    "export LD_LIBRARY_PATH=/opt/compiler/usr/lib/x86_64-linux-gnu:/opt/compiler/usr/lib/aarch64-linux-gnu\n"
    'PATH=/opt/compiler/usr/bin:$PATH exec /opt/compiler/usr/bin/g++ --sysroot=/opt/compiler "$@"\n',
    "/opt/defectd/current/bin/defectd": "#!/bin/sh\n"
    "export PYTHONPATH=/opt/station/daemon:/opt/station/packages PYTHONDONTWRITEBYTECODE=1\n"
    'exec /usr/bin/python3 -m defectd "$@"\n',
}

Answers = Dict[str, str]


@dataclass(frozen=True)
class Restriction:
    """Lines of the unit, or of the drop-in, and what they forbid."""

    lines: tuple[str, ...]
    probes: tuple[str, ...]
    as_root: bool = True
    extra: tuple[str, ...] = field(default=())

    @property
    def keys(self) -> set[str]:
        return {line.partition("=")[0] for line in self.lines}


RESTRICTIONS = {
    "system": Restriction(("ProtectSystem=strict",), ("write_usr", "write_etc")),
    "home": Restriction(("ProtectHome=yes",), ("read_home",)),
    "tmp": Restriction(("PrivateTmp=yes",), ("see_tmp",)),
    "mounts": Restriction(("PrivateMounts=yes",), ("share_mounts",)),
    "processes": Restriction(("ProtectProc=invisible",), ("see_processes",), as_root=False),
    "hostname": Restriction(("ProtectHostname=yes",), ("set_hostname",)),
    "tunables": Restriction(("ProtectKernelTunables=yes",), ("write_sysctl",)),
    "modules": Restriction(("ProtectKernelModules=yes",), ("see_modules",)),
    "kernel-log": Restriction(("ProtectKernelLogs=yes",), ("see_kernel_log",)),
    "cgroups": Restriction(("ProtectControlGroups=yes",), ("write_cgroups",)),
    "privileges": Restriction(("NoNewPrivileges=yes",), ("become_root",), as_root=False),
    "capabilities": Restriction(("CapabilityBoundingSet=",), ("use_capability",)),
    "families": Restriction(
        ("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",), ("open_netlink", "open_packet")
    ),
    "namespaces": Restriction(("RestrictNamespaces=yes",), ("new_namespace",)),
    "realtime": Restriction(("RestrictRealtime=yes",), ("ask_realtime",)),
    "suid": Restriction(("RestrictSUIDSGID=yes",), ("set_suid",)),
    "personality": Restriction(("LockPersonality=yes",), ("change_personality",)),
    "architectures": Restriction(("SystemCallArchitectures=native",), ("call_as_32_bit",)),
    "service-calls": Restriction(
        ("SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM"), ("mount_something",)
    ),
    "privileged-calls": Restriction(("SystemCallFilter=~@privileged", "SystemCallErrorNumber=EPERM"), ("give_away",)),
    "devices": Restriction(("DevicePolicy=closed",), ("open_other_device",)),
    "core": Restriction(("LimitCORE=0",), ("dump_core",)),
    "umask": Restriction(("UMask=0077",), ("create_open_file",)),
    "tasks": Restriction(("TasksMax=1024",), ("start_many",)),
    "memory": Restriction(("MemoryMax=384M",), ("take_memory",)),
    "addresses": Restriction(
        ("IPAddressDeny=any", "IPAddressAllow=localhost 10.77.0.0/16"), ("reach_other_network",)
    ),
    "user": Restriction(("User=defectd", "Group=defectd"), ("read_secret", "read_secret_credential")),
}  # fmt: skip
NEEDED = (
    "reach_localhost", "reach_plant", "open_sockets", "write_state", "write_runtime", "share_memory", "read_credential",
    "step_back", "run_machine_code", "compile_and_load", "read_kernel",
)  # fmt: skip
# Keys of the unit that are no walls, and those whose effect a container hides.
NO_WALLS = {
    "Type", "NotifyAccess", "ExecStart", "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec", "KillMode",
    "WatchdogSec", "SyslogIdentifier", "OOMScoreAdjust", "OOMPolicy", "StateDirectory", "StateDirectoryMode",
    "RuntimeDirectory", "EnvironmentFile", "Environment", "LogExtraFields", "LoadCredential", "SupplementaryGroups",
}  # fmt: skip
ELSEWHERE = {
    "RemoveIPC": "test_no_shared_memory_outlives_the_service",
    "DeviceAllow": "test_a_device_that_the_drop_in_names_can_be_opened",
    # No probe: a container may use neither at all, whatever the unit says.
    "KeyringMode": "",
    "ProtectClock": "",
}


@pytest.fixture(scope="module")
def host() -> Iterator[SystemdHost]:
    with SystemdHost("defectd-sandbox", binds=BINDS) as host:
        host.put(EXECUTABLES, mode=0o755)
        host.put(
            {
                "/opt/probes/sandbox_probes.py": Path(sandbox_probes.__file__).read_text(),
                "/opt/probes/board_devices.py": (REPOSITORY / "deploy/board_devices.py").read_text(),
                "/usr/lib/sysusers.d/defectd.conf": (REPOSITORY / "systemd/defectd.sysusers").read_text(),
                "/usr/lib/tmpfiles.d/defectd.conf": (REPOSITORY / "systemd/defectd.tmpfiles").read_text(),
                "/etc/systemd/system/defectd.service": UNIT,
                "/usr/lib/modules/here": "",
                "/tmp/planted": "",
            }
        )
        host.run(
            "ln -sfn usr/lib /opt/compiler/lib && ln -sfn usr/lib64 /opt/compiler/lib64 && "
            "systemd-sysusers && systemd-tmpfiles --create defectd.conf && "
            "umask 077 && printf DEFECTD_X=1 >/etc/defectd/secrets.env && "
            "printf secret >/etc/defectd/credentials/mqtt-password && umask 022 && "
            "install -m 4755 /usr/bin/id /usr/local/bin/id-of-root && "
            "install -d -m 1777 /run/probes && readlink /proc/1/ns/mnt >/run/probes/host-mnt && "
            "mount -t tmpfs tmpfs /proc/sys/net && touch /proc/sys/net/planted && "
            "ip address add 10.77.0.1/24 dev lo && ip address add 203.0.113.1/24 dev lo && "
            "mkdir -p /etc/systemd/system/defectd.service.d && "
            f"python3 /opt/probes/board_devices.py {BOARD_OPTIONS} >/etc/systemd/system/defectd.service.d/board.conf"
        )
        yield host


def bare(lines: list[str], probes: tuple[str, ...], name: str, *, as_root: bool) -> str:
    """A service that has nothing but *lines*."""
    user = [] if as_root else ["User=defectd", "Group=defectd"]
    listed = [*user, *lines, f"StandardOutput=file:/run/probes/{name}.json", f"ExecStart={PROBE} {' '.join(probes)}"]
    return "[Service]\nType=oneshot\nOOMPolicy=continue\n" + "\n".join(listed) + "\n"


def answers_of(host: SystemdHost, units: dict[str, str]) -> dict[str, Answers]:
    """Start each of *units*, one after the other, and read what their probes found."""
    host.put({f"/run/systemd/system/{name}.service": text for name, text in units.items()})
    starts = "; ".join(f"systemctl start {name}.service" for name in units)
    host.run(f"systemctl daemon-reload; {starts}", check=False, timeout_s=300)
    said = host.run(
        f'cd /run/probes && for name in {" ".join(units)}; do printf "$name "; cat $name.json || echo; done'
    )
    found = dict(line.partition(" ")[::2] for line in said.splitlines())
    return {name: json.loads(found[name] or "{}") for name in units}


@pytest.fixture(scope="module")
def alone(host: SystemdHost) -> dict[str, Answers]:
    """Each restriction alone."""
    return answers_of(
        host,
        {
            f"only-{name}": bare(list(one.lines), one.probes, f"only-{name}", as_root=one.as_root)
            for name, one in RESTRICTIONS.items()
        },
    )


@pytest.fixture(scope="module")
def without(host: SystemdHost) -> dict[str, Answers]:
    """The same without it."""
    return answers_of(
        host,
        {f"not-{name}": bare([], one.probes, f"not-{name}", as_root=one.as_root) for name, one in RESTRICTIONS.items()},
    )


@pytest.fixture(scope="module")
def shipped(host: SystemdHost) -> Answers:
    """All probes in the shipped unit with its drop-in."""
    probes = [*(probe for one in RESTRICTIONS.values() for probe in one.probes), *NEEDED, "leave_shared_memory"]
    run = [
        "[Service]", "Type=oneshot", "Restart=no", "WatchdogSec=0", "StandardOutput=file:/run/probes/shipped.json",
        "ExecStart=", f"ExecStart={PROBE} {' '.join(probes)}",
    ]  # fmt: skip
    host.put({"/etc/systemd/system/defectd.service.d/probes.conf": "\n".join(run) + "\n"})
    try:
        host.run("systemctl daemon-reload; systemctl start defectd.service", check=False, timeout_s=300)
        said = host.run("cat /run/probes/shipped.json; systemctl show -p Result defectd.service")
        found = json.loads(said.splitlines()[0])
    finally:
        host.run("rm /etc/systemd/system/defectd.service.d/probes.conf; systemctl daemon-reload")
    return dict(found)


def test_systemd_on_the_host_understands_every_line(host: SystemdHost):
    told = host.run("systemd-analyze verify /etc/systemd/system/defectd.service 2>&1", check=False)
    assert not [line for line in told.splitlines() if "defectd.service" in line or "board.conf" in line], told


def test_the_score_on_the_host_is_at_most_1_5(host: SystemdHost):
    host.run("systemctl daemon-reload")
    last = host.run("systemd-analyze security --no-pager defectd.service").splitlines()[-1]
    assert float(last.partition("defectd.service: ")[2].split()[0]) <= 1.5, last


@pytest.mark.parametrize("name", sorted(RESTRICTIONS))
def test_in_the_shipped_unit_it_is_forbidden(name: str, shipped: Answers):
    for probe in RESTRICTIONS[name].probes:
        assert shipped[probe].startswith("denied"), (probe, shipped[probe])


@pytest.mark.parametrize("name", sorted(RESTRICTIONS))
def test_this_line_alone_forbids_it(name: str, alone: dict[str, Answers]):
    for probe in RESTRICTIONS[name].probes:
        assert alone[f"only-{name}"][probe].startswith("denied"), (probe, alone[f"only-{name}"])


@pytest.mark.parametrize("name", sorted(RESTRICTIONS))
def test_without_the_line_it_is_allowed(name: str, without: dict[str, Answers]):
    for probe in RESTRICTIONS[name].probes:
        assert without[f"not-{name}"][probe] == "allowed", (probe, without[f"not-{name}"])


@pytest.mark.parametrize("probe", NEEDED)
def test_what_the_daemon_needs_is_allowed(probe: str, shipped: Answers, host: SystemdHost):
    if probe == "compile_and_load":
        free = answers_of(host, {"compiles": bare([], (probe,), "compiles", as_root=False)})["compiles"][probe]
        if free != "allowed":
            pytest.skip(f"the compiler of this machine does not run on that host: {free}")
    assert shipped[probe] == "allowed"


def test_every_wall_of_the_unit_is_tried(host: SystemdHost):
    board = host.run("cat /etc/systemd/system/defectd.service.d/board.conf")
    service = UNIT.partition("[Service]")[2].partition("[Install]")[0]
    lines = [line for line in (service + board).splitlines() if "=" in line and not line.startswith("#")]
    tried = {key for one in RESTRICTIONS.values() for key in one.keys} | set(ELSEWHERE) | NO_WALLS
    assert {line.partition("=")[0] for line in lines} <= tried


def test_no_shared_memory_outlives_the_service(host: SystemdHost, shipped: Answers):
    assert shipped["leave_shared_memory"] == "allowed"
    assert "left-behind" not in host.run("ls /dev/shm")
    unit = bare([], ("leave_shared_memory",), "keeps-ipc", as_root=False)
    assert answers_of(host, {"keeps-ipc": unit})["keeps-ipc"]["leave_shared_memory"] == "allowed"
    assert "left-behind" in host.run("ls /dev/shm; rm -f /dev/shm/left-behind")


def test_a_device_that_the_drop_in_names_can_be_opened(host: SystemdHost):
    lines = ["DevicePolicy=closed", "DeviceAllow=/dev/net/tun rw"]
    unit = bare(lines, ("open_other_device",), "named-device", as_root=True)
    assert answers_of(host, {"named-device": unit})["named-device"]["open_other_device"] == "allowed"


def test_the_socket_of_the_csi_cameras_is_seen_although_tmp_is_private(host: SystemdHost):
    lines = ["PrivateTmp=yes", "BindPaths=-/tmp/argus_socket"]
    host.run("touch /tmp/argus_socket")
    unit = bare(lines, ("see_argus", "see_tmp"), "argus", as_root=False)
    found = answers_of(host, {"argus": unit})["argus"]
    assert found["see_argus"] == "allowed" and found["see_tmp"].startswith("denied")


def test_the_clocks_go_up_at_the_start_and_back_at_the_stop(host: SystemdHost):
    host.put(
        {"/etc/systemd/system/defectd-clocks.service": (REPOSITORY / "systemd/defectd-clocks.service").read_text()}
    )
    host.run("systemctl daemon-reload; systemctl start defectd-clocks.service")
    assert "ConditionResult=no" in host.run("systemctl show -p ConditionResult defectd-clocks.service")
    tool = '#!/bin/sh\necho "clocks: $*" >>/dev/shm/clocks\n'
    tool += 'case $1 in --store) echo old >"$2" ;; --restore) cat "$2" >>/dev/shm/clocks ;; esac\n'
    host.put({"/usr/bin/jetson_clocks": tool}, mode=0o755)
    host.run("systemctl start defectd-clocks.service; systemctl stop defectd-clocks.service")
    said = host.run("cat /dev/shm/clocks; rm /dev/shm/clocks")
    kept = "/run/defectd-clocks/before"
    assert said.splitlines() == [f"clocks: --store {kept}", "clocks: ", f"clocks: --restore {kept}", "old"]


def test_the_drop_in_is_the_same_on_a_second_run(host: SystemdHost):
    again = host.run(f"python3 /opt/probes/board_devices.py {BOARD_OPTIONS}")
    assert again == host.run("cat /etc/systemd/system/defectd.service.d/board.conf")


@pytest.fixture(scope="module")
def station(host: SystemdHost, shipped: Answers) -> SystemdHost:
    """The daemon itself in the shipped unit; there is no broker."""
    theirs = host.run("python3 -c 'import sys; print(sys.version_info[:2])'").strip()
    if theirs != str(sys.version_info[:2]):
        pytest.skip(f"the packages of this Python do not run on that host, which has {theirs}")
    pytest.importorskip("torch")
    place = Topics("plant", "hall", "line", "aoi1")
    toml = DemoStation(place, BrokerAddress("127.0.0.1", 1883), Path("/unused"), 4.0, None).toml()
    toml = toml.replace(str(MODEL.parents[2]), "/opt/station/daemon").replace("/unused/state", "/var/lib/defectd")
    limit = host.run("sed s/MemoryMax=.*/MemoryMax=4G/ /etc/systemd/system/defectd.service.d/board.conf")
    host.put({"/etc/defectd/station.toml": toml, "/etc/systemd/system/defectd.service.d/board.conf": limit})
    host.run("chgrp defectd /etc/defectd/station.toml; systemctl daemon-reload")
    host.run("systemctl start defectd.service || { journalctl -u defectd -o cat; false; }", timeout_s=300)
    return host


def judged(host: SystemdHost) -> int:
    """Units in the outbox."""
    asked = "select count(*) from events where stream = 'inspection'"
    code = f'import sqlite3; print(*sqlite3.connect("/var/lib/defectd/outbox.db").execute("{asked}").fetchone())'
    return int(host.run("python3 -", feed=code.encode()))


def test_the_daemon_becomes_ready_and_judges_units_inside(station: SystemdHost):
    before = judged(station)
    time.sleep(5)
    assert judged(station) > before
    assert "NRestarts=0" in station.run("systemctl show -p NRestarts defectd.service")


def test_a_daemon_that_is_frozen_is_restarted(station: SystemdHost):
    pid = station.run("systemctl show -p MainPID --value defectd.service").strip()
    station.run(f"kill -STOP {pid}")
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        time.sleep(2)
        shown = station.run("systemctl show -p NRestarts -p ActiveState defectd.service")
        if "NRestarts=1" in shown and "ActiveState=active" in shown:
            return
    raise AssertionError(station.run("systemctl status defectd.service; journalctl -u defectd -o cat | tail -30"))
