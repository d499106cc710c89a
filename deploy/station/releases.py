"""Releases: made beside the one that runs, complete or not there at all, and removed when they are old."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Sequence

from station.places import DeployError, Places, alone, read_json, run, sync_directory, write_json

PIP_S = 1800.0


def complete(places: Places) -> list[str]:
    """The names of all that can run, oldest first."""
    found = [one.parent for one in places.releases.glob("*/release.json") if not one.parent.name.endswith(".partial")]
    return [one.name for one in sorted(found, key=lambda one: (one / "release.json").stat().st_mtime)]


def install(places: Places, name: str, payload: Path) -> dict[str, Any]:
    """Make release *name* from *payload*, a tar file. What an earlier attempt left is thrown away.

    Raises DeployError; the release that runs is not touched.
    """
    directory = places.release(name)
    with alone(places):
        if (directory / "release.json").is_file():
            return {"changed": False, "release": name}
        partial = directory.with_name(f"{name}.partial")
        _throw_away_partials(places)
        if directory.exists():  # without release.json: it never was complete
            shutil.rmtree(directory)
        started_s = time.monotonic()
        partial.mkdir(parents=True)
        _unpack(payload, partial)
        about = read_json(partial / "payload.json")
        if about is None:
            raise DeployError(f"{payload}: has no payload.json; it was not made by make deploy")
        _check_target(about)
        unpacked_s = time.monotonic()
        _make_environment(partial, about)
        installed_s = time.monotonic()
        _finish(partial, directory)
        finished_s = time.monotonic()
        shutil.rmtree(partial / "wheels")
        seconds = {
            "unpack": round(unpacked_s - started_s, 1), "pip": round(installed_s - unpacked_s, 1),
            "compile": round(finished_s - installed_s, 1),
        }  # fmt: skip
        write_json(partial / "release.json", {**about, "installed_at": int(time.time()), "seconds": seconds})
        os.sync()
        partial.rename(directory)
        sync_directory(places.releases)
        payload.unlink()
    return {"changed": True, "release": name, "seconds": seconds}


def _throw_away_partials(places: Places) -> None:
    for one in places.releases.glob("*.partial"):
        shutil.rmtree(one)


def _unpack(payload: Path, into: Path) -> None:
    try:
        with tarfile.open(payload) as archive:
            for member in archive:
                path = Path(member.name)
                if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
                    raise DeployError(f"{payload}: holds {member.name!r}, which is no plain file; build it anew")
                archive.extract(member, into, set_attrs=False)
    except (OSError, tarfile.TarError) as error:
        raise DeployError(f"{payload}: cannot be unpacked: {error}; if the disk is full, make room") from error


def _check_target(about: dict[str, Any]) -> None:
    here = [sys.version_info[0], sys.version_info[1]]
    if about["python"] != here or about["machine"] != os.uname().machine:
        raise DeployError(
            f"the wheels are for Python {about['python'][0]}.{about['python'][1]} on {about['machine']}; "
            f"here is Python {here[0]}.{here[1]} on {os.uname().machine}"
        )


def _make_environment(partial: Path, about: dict[str, Any]) -> None:
    """Without ensurepip, which Debian keeps in a package of its own: pip runs from its wheel."""
    pip = partial / "wheels" / about["pip"]
    if not pip.is_file() or hashlib.sha256(pip.read_bytes()).hexdigest() != about["pip_sha256"]:
        raise DeployError(f"{pip.name}: is missing or not the one of the lock; run make deploy again")
    made = run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(partial)], 120)
    if made.returncode != 0:
        raise DeployError(f"no virtual environment can be made: {_last(made.stderr or made.stdout)}")
    quiet = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PYTHONNOUSERSITE": "1", "HOME": str(partial)}
    command = [
        str(partial / "bin/python"), f"{pip}/pip", "install", "--no-index", "--find-links", str(partial / "wheels"),
        "--require-hashes", "--no-deps", "--no-compile", "--no-cache-dir", "--no-warn-script-location",
        "--disable-pip-version-check", "--quiet", "-r", str(partial / "requirements.txt"),
    ]  # fmt: skip
    told = run(command, PIP_S, env=quiet, cwd=str(partial))
    if told.returncode != 0:
        raise DeployError(f"pip could not install the wheels: {_last(told.stderr, 6)}")


def _finish(partial: Path, directory: Path) -> None:
    """Made under one name, used under another: the scripts and the tracebacks must say the other."""
    for script in (partial / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        data = script.read_bytes()
        changed = data.replace(os.fsencode(partial), os.fsencode(directory))
        if changed != data:
            script.write_bytes(changed)
    packages = next((partial / "lib").glob("python*/site-packages"))
    shown = directory / packages.relative_to(partial)
    python = str(partial / "bin/python")
    run([python, "-m", "compileall", "-q", "-d", str(shown), str(packages)], 600)  # what does not compile runs slowly
    tried = run([python, "-m", "defectd", "--version"], 120, cwd="/")
    if tried.returncode != 0:
        raise DeployError(f"the new release does not even start: {_last(tried.stderr, 4)}")


def _last(text: str, lines: int = 2) -> str:
    return " / ".join(text.strip().splitlines()[-lines:])


def prune(places: Places, keep: int, also: Sequence[str] = ()) -> dict[str, Any]:
    """Remove the oldest, down to *keep*; never the one that runs, nor those named in *also*."""
    with alone(places):
        if places.order.exists():
            return {"changed": False, "removed": []}
        before = (read_json(places.deploy / "previous.json") or {}).get("release")
        spared = {places.current_release(), before, *also}
        names = sorted(complete(places), key=lambda name: not places.refused(name).exists())  # what failed goes first
        removed = [name for name in names[: max(len(names) - keep, 0)] if name not in spared]
        for name in removed:
            directory = places.release(name)
            (directory / "release.json").unlink()  # from here on it is none
            sync_directory(directory)
            shutil.rmtree(directory)
        changed = bool(removed)
        for left in places.releases.glob("*"):
            if not (left / "release.json").exists():
                shutil.rmtree(left)
                changed = True
        bundles = _prune_bundles(places)
    return {"changed": changed or bool(bundles), "removed": removed, "bundles": bundles}


def _prune_bundles(places: Places) -> list[str]:
    """Those that no configuration of any release names any more."""
    folder = places.etc / "bundles"
    if not folder.is_dir():
        return []
    texts = [one.read_text(errors="replace") for one in (places.config, *places.releases.glob("*/station.toml"))
             if one.is_file()]  # fmt: skip
    unused = [one for one in folder.iterdir() if not any(f"bundles/{one.name}" in text for text in texts)]
    for one in unused:
        shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
    return sorted(one.name for one in unused)
