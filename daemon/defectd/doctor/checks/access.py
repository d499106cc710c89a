"""What this user may open: groups, device nodes, jtop's service."""

from __future__ import annotations

import grp
import importlib.metadata
import os
import time
from pathlib import Path
from typing import Iterable, Iterator

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.doctor.checks.configuration import name_of_user
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning
from defectd.telemetry.jtop_source import JtopSource

_TEGRA_NODES = (
    "nvmap", "nvhost-ctrl", "nvhost-ctrl-gpu", "nvhost-gpu", "nvhost-as-gpu",
    "nvgpu/igpu0/ctrl", "nvgpu/igpu0/as", "nvgpu/igpu0/channel", "nvgpu/igpu0/tsg",
)  # fmt: skip
"""Of those that there are (it depends on the release), CUDA needs all."""
_PLUGGED_NODES = ("nvidiactl", "nvidia0", "nvidia-uvm")
_GROUPS = ("video", "render")
_JTOP_S = 12.0


def check_devices(patient: Patient) -> Iterator[Finding]:
    """Nodes that CUDA and the cameras need; then the groups, which are how one gets at them."""
    dev, user = patient.places.dev, name_of_user(os.geteuid())
    names = _TEGRA_NODES if patient.is_jetson else _PLUGGED_NODES
    nodes = [dev / name for name in names if (dev / name).exists()]
    renderers = sorted(dev.glob("dri/renderD*")) if patient.is_jetson else []
    uses_gpu = patient.settings is None or patient.settings.model.device != "cpu"
    if patient.is_jetson and not nodes and uses_gpu:
        yield error("devices", f"no GPU node below {dev}: neither nvmap nor nvhost-* nor nvgpu", _no_nodes(patient))
    elif not nodes:
        yield skipped("devices", f"no NVIDIA GPU below {dev}")
    else:
        yield _openable([*nodes, *renderers], user, must=uses_gpu)
    yield from _video_nodes(patient, user)
    yield from _groups(patient, user)


def _openable(nodes: list[Path], user: str, *, must: bool) -> Finding:
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if not closed:
        return ok("devices", f"{user} may open the GPU's {len(nodes)} nodes", nodes=[str(node) for node in nodes])
    finding = error if must else warning
    found = f"{user} may not open {', '.join(map(str, closed))}: CUDA does not start without"
    return finding("devices", found, _join(user, groups_of(closed)))


def _no_nodes(patient: Patient) -> str:
    if (patient.places.dev.parent / ".dockerenv").exists():
        return "this is a container: start it with --runtime nvidia"
    return "the GPU's driver is not loaded: dmesg | grep -i nvgpu; then flash or repair L4T"


def _video_nodes(patient: Patient, user: str) -> Iterator[Finding]:
    cameras = patient.settings.camera if patient.settings is not None else []
    for camera in cameras:
        if camera.kind != "opencv" or not (
            isinstance(camera.source, int) or str(camera.source).startswith(f"{patient.places.dev}/")
        ):
            continue
        node = patient.places.dev / f"video{camera.source}" if isinstance(camera.source, int) else Path(camera.source)
        subject = f"camera {camera.name}"
        if not node.exists():
            there = _names(sorted(patient.places.dev.glob("video*"))) or "none"
            yield error(subject, f"{node} is not there; there is: {there}", "plug it in (dmesg | tail says what "
                        "happened), or change source; names under /dev/v4l/by-path do not move")  # fmt: skip
        elif not os.access(node, os.R_OK | os.W_OK):
            yield error(subject, f"{user} may not open {node}", _join(user, groups_of([node])))
        else:
            yield ok(subject, f"{user} may open {node}")


def _groups(patient: Patient, user: str) -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield skipped("groups", "root needs none; the service's user needs video and render")
        return
    known = {name: number for name in _GROUPS if (number := _number(name)) is not None}
    missing = [name for name, number in known.items() if number not in (*os.getgroups(), os.getegid())]
    if missing and patient.is_jetson:
        yield warning("groups", f"{user} is not in {' and '.join(missing)}", _join(user, missing))
    else:
        mine = [name for name in known if name not in missing]
        yield ok("groups", f"{user} is in {' and '.join(mine) or 'neither video nor render; nothing here needs them'}")


def groups_of(nodes: Iterable[Path]) -> list[str]:
    """The groups that the nodes belong to, without root's."""
    names = set()
    for node in nodes:
        number = node.stat().st_gid
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            names.add(str(number))
    return sorted(names - {"root"})


def _join(user: str, groups: Iterable[str]) -> str:
    wanted = ",".join(groups)
    if not wanted:
        return "they belong to root alone: a udev rule must give them to group video (JetPack has one; reinstall it)"
    return f"sudo usermod -aG {wanted} {user}, then log in again; of the service: SupplementaryGroups={wanted}"


def _number(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def _names(nodes: Iterable[Path]) -> str:
    return " ".join(node.name for node in nodes)


# -- jtop --------------------------------------------------------------------------------------------------------


def check_jtop(patient: Patient) -> Iterator[Finding]:
    """Optional: sysfs has what throttling needs. Its service is asked once, by a process that may hang."""
    wanted = patient.settings is not None and patient.settings.telemetry.jtop
    version, socket = _jtop_version(), patient.places.run / "jtop.sock"
    if not (patient.is_jetson or wanted):
        yield skipped("jtop", "this is no Jetson")
    elif not wanted and (version is None or not socket.exists()):
        yield ok("jtop", "not used; telemetry comes from sysfs, which has what throttling needs")
    elif version is None:
        yield warning("jtop", "telemetry.jtop is set, but this Python has no jetson-stats: sysfs has to do",
                      "pip install 'defectd[jtop]', of the version that the service has (jtop --version)")  # fmt: skip
    elif not socket.exists():
        yield warning("jtop", f"jetson-stats {version} is installed, but its service does not run",
                      "sudo systemctl enable --now jtop; if there is none: sudo jtop --install-service")  # fmt: skip
    elif not os.access(socket, os.R_OK | os.W_OK):
        user = name_of_user(os.geteuid())
        yield warning("jtop", f"{user} may not talk to its service ({socket})", _join(user, groups_of([socket])))
    else:
        yield _asked(version)


def _asked(version: str) -> Finding:
    source, due_ns = JtopSource(1.0, start_s=_JTOP_S), monotonic_ns() + int(_JTOP_S * NS_PER_S)
    try:
        while (reading := source.latest()) is None and source.trouble is None and monotonic_ns() < due_ns:
            time.sleep(0.1)
        trouble = source.trouble
    finally:
        source.stop()
    if reading is not None:
        return ok("jtop", f"jetson-stats {version}, its service answers", version=version)
    frozen = f"its service says nothing within {_JTOP_S:g} s: sudo systemctl restart jtop"
    found = f"jetson-stats {version} has no reading: sysfs has to do"
    return warning("jtop", found, trouble or frozen, version=version)


def _jtop_version() -> str | None:
    try:
        return importlib.metadata.version("jetson-stats")
    except importlib.metadata.PackageNotFoundError:
        return None
