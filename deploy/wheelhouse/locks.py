"""Locks: each package of a target at one version, with the hashes of its files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import tomllib

from wheelhouse.targets import Target, WheelError

DEPLOY = Path(__file__).resolve().parents[1]
CHECKOUT = DEPLOY.parent
EXTRAS = {
    "camera": "",
    "track": "",
    "codes": "python_version >= '3.10' or platform_machine == 'x86_64'",
}
"""What stations get, and where there are wheels of it."""
LOCK_S = 600.0
# What has no wheel on the index. A pure one is built here; what needs a compiler must come with the system.
SDIST_ONLY: Sequence[str] = ()


@dataclass(frozen=True)
class Pin:
    """One package of a lock."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def line(self) -> str:
        """As pip reads it."""
        return f"{self.name}=={self.version} " + " ".join(f"--hash={one}" for one in self.hashes)


def lock_path(target: Target, folder: Path = DEPLOY / "lock") -> Path:
    """Where its lock lies."""
    return folder / f"{target.name}.txt"


def constraints_path(target: Target) -> Path | None:
    """JetPack's, if it is one."""
    return None if target.jetpack is None else DEPLOY / f"constraints/jetpack{target.jetpack}.txt"


def requirements(pyproject: Path = CHECKOUT / "pyproject.toml") -> list[str]:
    """What defectd needs on a station, and pip, which is not there without Debian's python3-venv."""
    project = tomllib.loads(pyproject.read_text())["project"]
    optional = project["optional-dependencies"]
    extras = [f"{one}; {where}" if where else one for extra, where in EXTRAS.items() for one in optional[extra]]
    return [*project["dependencies"], *extras, "pip"]


def resolve(target: Target, wanted: Sequence[str], sdist_only: Sequence[str] = SDIST_ONLY) -> str:
    """The text of a lock. Markers are those of the target, not of this machine. Raises WheelError."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate",
        "--generate-hashes", "--only-binary", ":all:", "--python-version", target.python_version,
        "--python-platform", target.uv_platform, "--no-python-downloads", *pip_configuration(),
    ]  # fmt: skip
    for name in sdist_only:
        command += ["--no-binary", name]
    constraints = constraints_path(target)
    if constraints is not None:
        command += ["--constraints", str(constraints)]
    told = subprocess.run(
        command, input="\n".join(wanted) + "\n", capture_output=True, text=True, check=False, timeout=LOCK_S
    )
    if told.returncode != 0:
        where = f" with {constraints.name}" if constraints is not None else ""
        raise WheelError(f"{target.name}: no set of wheels fits{where}:\n{told.stderr.strip()}")
    about = f"# Written by `make lock` for Python {target.python[0]}.{target.python[1]} on {target.machine}"
    about += f", JetPack {target.jetpack}.\n" if target.jetpack else ".\n"
    return about + told.stdout


def pip_configuration() -> list[str]:
    """uv does not read pip's configuration; a laptop whose pip finds its mirror should not need a second one."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    )
    found = dict(re.findall(r"^(?:[\w-]+|:env:)\.([\w-]+)='(.*)'$", told.stdout, re.MULTILINE))
    words: list[str] = []
    if "index-url" in found:
        words += ["--default-index", found["index-url"]]
    for url in _several(found.get("extra-index-url", "")):
        words += ["--index", url]
    for place in _several(found.get("find-links", "")):
        words += ["--find-links", place]
    if "cert" in found:
        os.environ.setdefault("SSL_CERT_FILE", found["cert"])
    # pip asks all of them and takes the best; so does uv with this.
    return [*words, "--index-strategy", "unsafe-best-match"] if words else []


def _several(value: str) -> list[str]:
    return value.replace("\\n", " ").split()


def read_lock(path: Path) -> list[Pin]:
    """Its packages. Raises WheelError."""
    try:
        text = path.read_text()
    except OSError:
        raise WheelError(
            f"{path.name}: is missing; make it where there is internet: make lock TARGET={path.stem}"
        ) from None
    logical = re.sub(r"\\\n", " ", text)
    pins = []
    again = f"make lock TARGET={path.stem}"
    for written in logical.splitlines():
        line = written.split(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        found = re.match(r"([A-Za-z0-9._-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)$", line)
        if found is None:
            raise WheelError(f"{path.name}: {line[:60]!r} is no pinned package with hashes; run {again}")
        hashes = re.findall(r"sha256:[0-9a-f]{64}", found.group(3))
        pins.append(Pin(found.group(1).lower(), found.group(2), tuple(hashes)))
    return pins


def check_covers(pins: Sequence[Pin], wanted: Sequence[str], name: str) -> None:
    """A lock from before a dependency was added would make a release that does not start. Raises WheelError."""
    locked = {canonical(pin.name) for pin in pins}
    missing = [one for one in wanted if ";" not in one and canonical(re.split(r"[<>=!~\[ ;]", one)[0]) not in locked]
    if missing:
        raise WheelError(
            f"{name}: the lock is older than pyproject.toml: {', '.join(missing)}; run make lock TARGET={name}"
        )


def canonical(name: str) -> str:
    """As indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()
