"""One tar file that a station makes a release of; the same content gives the same bytes and the same name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Mapping, Sequence

from wheelhouse.fetch import CACHE, Wheel, fetch, name_of, sha256_of
from wheelhouse.locks import CHECKOUT, DEPLOY, check_covers, lock_path, read_lock, requirements
from wheelhouse.targets import WheelError, provided_by, target_of

_EPOCH = 1_700_000_000  # a wheel is a zip file: it cannot be older than 1980
_BUILD_S = 300.0
KEPT_PAYLOADS = 10


def build(version: str | None = None) -> Path:
    """defectd's wheel: of the working tree, of a file, of dist/, or of the tag v*version*. Raises WheelError."""
    folder = CACHE / "own"
    if version is None:
        return _build_tree(CHECKOUT, folder)
    if version.endswith(".whl"):
        if not Path(version).is_file():
            raise WheelError(f"VERSION={version}: there is no such file")
        return Path(version)
    ready = sorted((CHECKOUT / "dist").glob(f"defectd-{version}-*.whl"))
    if ready:
        return ready[-1]
    for tag in (f"v{version}", version):
        archive = subprocess.run(
            ["git", "-C", str(CHECKOUT), "archive", tag], capture_output=True, check=False, timeout=_BUILD_S
        )
        if archive.returncode == 0:
            with tempfile.TemporaryDirectory() as name:
                with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
                    tree.extractall(name, filter="data")
                return _build_tree(Path(name), folder)
    raise WheelError(
        f"VERSION={version}: neither dist/defectd-{version}-py3-none-any.whl nor the tag v{version} is here; "
        "fetch the tag, or leave VERSION out to deploy this checkout"
    )


def _build_tree(tree: Path, folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as name:
        told = subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", name], cwd=tree, text=True,
            capture_output=True, check=False, timeout=_BUILD_S, env={**os.environ, "SOURCE_DATE_EPOCH": str(_EPOCH)},
        )  # fmt: skip
        made = list(Path(name).glob("*.whl"))
        if told.returncode != 0 or len(made) != 1:
            raise WheelError(f"this checkout does not build: {(told.stderr or told.stdout).strip()[-600:]}")
        kept = folder / sha256_of(made[0])[:16] / made[0].name
        kept.parent.mkdir(parents=True, exist_ok=True)
        made[0].replace(kept) if _same_disk(made[0], kept.parent) else kept.write_bytes(made[0].read_bytes())
    return kept


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def make(facts: Mapping[str, Any], own: Path) -> dict[str, Any]:
    """The payload for a station with *facts*; {"release", "payload", "version", "target", "provided"}."""
    target = target_of(facts)
    pins = read_lock(lock_path(target))
    check_covers(pins, requirements(), target.name)
    provided = provided_by(facts)
    wheels = fetch(target, [pin for pin in pins if pin.name not in provided])
    pip = next(one for one in wheels if one.pin.name == "pip")
    shipped = [one for one in wheels if one is not pip]
    version = name_of(own)[1]
    lines = [f"{one.pin.name}=={one.pin.version} --hash=sha256:{one.sha256}" for one in shipped]
    lines.append(f"defectd=={version} --hash=sha256:{sha256_of(own)}")
    files: dict[str, bytes | Path] = {
        "requirements.txt": ("\n".join(lines) + "\n").encode(),
        **{f"systemd/{path.name}": path for path in _systemd_files()},
    }
    release = f"{version}+{_digest(files, pip)[:8]}"
    about = {
        "release": release, "version": version, "python": list(target.python), "machine": target.machine,
        "pip": pip.path.name, "pip_sha256": pip.sha256, "provided": provided,
    }  # fmt: skip
    files["payload.json"] = (json.dumps(about, indent=1, sort_keys=True) + "\n").encode()
    files |= {f"wheels/{path.name}": path for path in (own, *(one.path for one in wheels))}
    payload = CACHE / "payloads" / f"{release}.tar"
    if not payload.exists():
        _write_tar(payload, files)
        _forget_old(payload.parent)
    return {
        "release": release, "payload": str(payload), "version": version, "target": target.name, "provided": provided,
        "megabytes": round(payload.stat().st_size / 1e6, 1),
    }  # fmt: skip


def _systemd_files() -> list[Path]:
    """Of this checkout: a wheel has none."""
    found = [path for path in sorted((CHECKOUT / "systemd").iterdir()) if path.is_file()]
    return [*found, *(path for path in [DEPLOY / "board_devices.py"] if path.is_file())]


def _digest(files: Mapping[str, bytes | Path], pip: Wheel) -> str:
    digest = hashlib.sha256(pip.sha256.encode())
    for name in sorted(files):
        content = files[name]
        data = content if isinstance(content, bytes) else content.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def _write_tar(path: Path, files: Mapping[str, bytes | Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.new")
    with tarfile.open(temporary, "w") as archive:
        for name in sorted(files):
            content = files[name]
            data = content if isinstance(content, bytes) else content.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(data), _EPOCH, 0o644
            archive.addfile(entry, io.BytesIO(data))
    temporary.replace(path)


def _forget_old(folder: Path) -> None:
    """They are made anew in seconds, and are large."""
    by_age = sorted(folder.glob("*.tar"), key=lambda one: one.stat().st_mtime)
    for one in by_age[:-KEPT_PAYLOADS]:
        one.unlink(missing_ok=True)


def station_program(folder: Path = CACHE) -> Path:
    """station.pyz of deploy/station, the same bytes for the same sources."""
    path = folder / "station.pyz"
    sources: Sequence[Path] = sorted((DEPLOY / "station").glob("*.py"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in [
            ("__main__.py", b"import sys\nfrom station.__main__ import main\nsys.exit(main())\n"),
            *((f"station/{one.name}", one.read_bytes()) for one in sources),
        ]:
            entry = zipfile.ZipInfo(name, (2023, 11, 14, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != buffer.getvalue():
        temporary = path.with_suffix(f".{os.getpid()}.new")
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    return path
