"""Where things lie on a station, and how they are written so that a power cut leaves the old or the new."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Sequence

USER = "defectd"
SERVICE = "defectd.service"
JUDGE = "defectd-switch.service"


class DeployError(Exception):
    """It cannot go on; the words say what happened and what to do."""


@dataclass(frozen=True)
class Places:
    """All below *root*, which is / except in tests."""

    root: Path = Path("/")

    @property
    def opt(self) -> Path:
        """Releases, and what deploys them."""
        return self.root / "opt/defectd"

    @property
    def releases(self) -> Path:
        """One directory each; what ends in .partial is none yet."""
        return self.opt / "releases"

    @property
    def current(self) -> Path:
        """The link to the release that runs."""
        return self.opt / "current"

    @property
    def deploy(self) -> Path:
        """What belongs to the deployment itself."""
        return self.opt / "deploy"

    @property
    def order(self) -> Path:
        """The switch that is under way; without this file there is none."""
        return self.deploy / "order.json"

    @property
    def outcome(self) -> Path:
        """How the last switch ended."""
        return self.deploy / "outcome.json"

    @property
    def word(self) -> Path:
        """What the controller says of the switch that is under way."""
        return self.deploy / "word.json"

    @property
    def etc(self) -> Path:
        """The configuration."""
        return self.root / "etc/defectd"

    @property
    def config(self) -> Path:
        """In effect."""
        return self.etc / "station.toml"

    @property
    def units(self) -> Path:
        """systemd's, of the administrator."""
        return self.root / "etc/systemd/system"

    @property
    def state(self) -> Path:
        """The daemon's own: survives everything but a purge."""
        return self.root / "var/lib/defectd"

    @property
    def run(self) -> Path:
        """Gone after a reboot."""
        return self.root / "run"

    def release(self, name: str) -> Path:
        """The directory of release *name*. Raises DeployError for what is no plain name."""
        if not name or "/" in name or name.startswith(".") or name.endswith(".partial"):
            raise DeployError(f"{name!r} is no release; expected a name like 0.1.0+1a2b3c4d")
        return self.releases / name

    def refused(self, name: str) -> Path:
        """There if the last switch to release *name* was undone."""
        return self.release(name) / "refused.json"

    def current_release(self) -> str | None:
        """Its name, if the link leads to a complete release."""
        try:
            name = Path(os.readlink(self.current)).name
        except OSError:
            return None
        return name if (self.releases / name / "release.json").is_file() else None


def write_durably(path: Path, data: bytes, mode: int = 0o644, like: Path | None = None) -> None:
    """Replace *path* with *data*, or leave it as it was. Owner and mode are those of *like* where it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if like is not None and like.exists():
            status = like.stat()
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
            mode = status.st_mode & 0o7777
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """What was renamed in it stays renamed."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_durably(path: Path) -> None:
    """Gone, if it was there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_directory(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """None if it is absent or unreadable: a half-written one cannot be, see write_durably."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Durably."""
    write_durably(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def link_durably(link: Path, target: str) -> None:
    """Point *link* to *target* in one step."""
    temporary = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_directory(link.parent)


def run(command: Sequence[str], timeout_s: float = 60.0, **more: Any) -> subprocess.CompletedProcess[str]:
    """Its output, whatever its exit status. Raises DeployError if it cannot be started or takes too long."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
            timeout=timeout_s, **more,
        )  # fmt: skip
    except OSError as error:
        raise DeployError(f"{command[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise DeployError(f"{' '.join(command[:3])} … did not end within {timeout_s:.0f} s") from error


@contextlib.contextmanager
def alone(places: Places, wait_s: float = 120.0) -> Iterator[None]:
    """Only one command changes the station at a time: one of a connection that was cut may still be at it."""
    places.run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(places.run / "defectd-deploy.busy", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    ends_s = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > ends_s:
                    raise DeployError(
                        f"a step of another deployment has been running here for {wait_s:.0f} s; try again later"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)
