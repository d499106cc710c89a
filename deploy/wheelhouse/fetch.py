"""The files of a lock, from the index or from this machine's cache, each with the hash that the lock says."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Collection, Sequence

from wheelhouse.locks import DEPLOY, SDIST_ONLY, Pin, canonical
from wheelhouse.targets import Target, WheelError

CACHE = DEPLOY / ".cache"
FETCH_S = 1800.0


@dataclass(frozen=True)
class Wheel:
    """A file that may be shipped."""

    pin: Pin
    path: Path
    sha256: str


def fetch(target: Target, pins: Sequence[Pin], sdist_only: Collection[str] = SDIST_ONLY) -> list[Wheel]:
    """A wheel for each of *pins*. Asks the index only for what the cache does not have. Raises WheelError."""
    folder = CACHE / "wheels" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    built = {canonical(name) for name in sdist_only}
    found = _known(folder, pins)
    missing = [pin for pin in pins if pin not in found and canonical(pin.name) not in built]
    if missing:
        _download(target, missing, folder)
    for pin in pins:
        if pin not in found and canonical(pin.name) in built:
            _build(pin, folder)
    found = _known(folder, pins, built)
    absent = [f"{pin.name} {pin.version}" for pin in pins if pin not in found]
    if absent:
        raise WheelError(f"{target.name}: no wheel of {', '.join(absent)} came; run make lock TARGET={target.name}")
    return [found[pin] for pin in pins]


def _known(folder: Path, pins: Sequence[Pin], built: Collection[str] = ()) -> dict[Pin, Wheel]:
    files = {path: name_of(path) for path in sorted(folder.glob("*.whl"))}
    found = {}
    for pin in pins:
        for path, (name, version) in files.items():
            if (name, version) != (canonical(pin.name), pin.version):
                continue
            sha256 = sha256_of(path)
            if f"sha256:{sha256}" in pin.hashes or canonical(pin.name) in built:
                found[pin] = Wheel(pin, path, sha256)
    return found


def _download(target: Target, pins: Sequence[Pin], folder: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("\n".join(pin.line for pin in pins) + "\n")
        listed.flush()
        platforms = [word for one in target.platforms for word in ("--platform", one)]
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--require-hashes", "--only-binary", ":all:", *platforms, "--implementation", "cp",
            "--python-version", target.python_version, "--dest", str(folder), "-r", listed.name,
        ]  # fmt: skip
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_S)
    if told.returncode != 0:
        said = told.stderr.splitlines()
        errors = [line for line in said if line.startswith("ERROR")] or said[-3:]
        raise WheelError(
            f"{target.name}: the wheels cannot be fetched here:\n  " + "\n  ".join(errors) + "\n"
            f"Where there is internet, `make wheels TARGET={target.name}` fetches them; copy deploy/.cache from there"
        )


def _build(pin: Pin, folder: Path) -> None:
    """The hash is that of the source. What is not pure would be for this machine, not for the station."""
    with tempfile.TemporaryDirectory() as name:
        listed = Path(name) / "requirements.txt"
        listed.write_text(pin.line + "\n")
        command = [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--require-hashes", "--no-binary", pin.name, "--wheel-dir", name, "-r", str(listed),
        ]  # fmt: skip
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_S,
                              env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})  # fmt: skip
        made = list(Path(name).glob("*.whl"))
        if told.returncode != 0 or len(made) != 1:
            said = told.stderr[-400:]
            raise WheelError(f"{pin.name} {pin.version}: has no wheel, and none can be built here: {said}")
        if not made[0].name.endswith("-none-any.whl"):
            raise WheelError(
                f"{pin.name} {pin.version}: has no wheel, and is not pure Python ({made[0].name}): install it on the "
                "station with apt, and take it out of the requirements"
            )
        shutil.move(made[0], folder / made[0].name)


def name_of(wheel: Path) -> tuple[str, str]:
    """Canonical name and version, from the file's name."""
    name, version = wheel.name.split("-")[:2]
    return canonical(name), version


def sha256_of(path: Path) -> str:
    """Hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
