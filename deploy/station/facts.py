"""What kind of machine this is. Changes nothing, needs no root."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from station.places import DeployError, Places, run

_ASK = (
    "import importlib.util as u, json\n"
    "found = {}\n"
    "for name in ('numpy', 'cv2'):\n"
    "    if u.find_spec(name) is None: continue\n"
    "    try: found[name] = str(__import__(name).__version__)\n"
    "    except BaseException as e: found[name] = None\n"
    "for name in ('torch', 'torchvision', 'tensorrt', 'systemd'):\n"
    "    if u.find_spec(name) is not None: found[name] = ''\n"
    "print(json.dumps(found))\n"
)


def gather(places: Places) -> dict[str, Any]:
    """For the preflight, which judges, and for the choice of the wheels."""
    return {
        "changed": False,
        "machine": platform.machine(),
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
        "glibc": platform.libc_ver()[1],
        "systemd": systemd_version(),
        "jetpack": jetpack(places.root),
        "l4t": l4t(places.root),
        "free_mb": _free_mb(places),
        "memory_mb": memory_mb(places.root),
        "packages": system_packages(),
        "can_install": missing_for_pip(),
        "compiler": shutil.which("g++") is not None,
        "now_s": time.time(),
    }


def systemd_version() -> int | None:
    """None where it is not there, or not what runs the machine."""
    if not Path("/run/systemd/system").is_dir():
        return None
    try:
        found = re.match(r"systemd (\d+)", run(["systemctl", "--version"]).stdout)
    except DeployError:
        return None
    return int(found.group(1)) if found else None


def l4t(root: Path) -> str | None:
    """36.4.3, from NVIDIA's own file; None off a Jetson."""
    try:
        text = (root / "etc/nv_tegra_release").read_text()
    except OSError:
        return None
    found = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", text)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def jetpack(root: Path) -> int | None:
    """5, 6 or 7; less for what is too old; None off a Jetson."""
    release = l4t(root)
    if release is None:
        return None
    major = int(release.split(".")[0])
    return {35: 5, 36: 6, 38: 7, 39: 7}.get(major, 4 if major < 35 else 7)


def memory_mb(root: Path) -> int:
    """All of it."""
    found = re.search(r"MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    return int(found.group(1)) // 1024 if found else 0


def system_packages() -> dict[str, Any]:
    """What the system's own Python has of what must not be replaced: name -> version, "" or None if unknown."""
    told = run([sys.executable, "-c", _ASK], timeout_s=120, env={**os.environ, "PYTHONNOUSERSITE": "1"}, cwd="/")
    try:
        return dict(json.loads(told.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        return {}


def missing_for_pip() -> str | None:
    """Debian takes parts of Python's library out; without these nothing can be installed."""
    needed = ["venv"] if sys.version_info >= (3, 10) else ["venv", "distutils.command.install"]
    for name in needed:
        try:
            found = importlib.util.find_spec(name)
        except ImportError:
            found = None
        if found is None:
            return name.split(".")[0]
    return None


def _free_mb(places: Places) -> int:
    directory = places.opt
    while not directory.exists():
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize // 2**20
