"""A real host with systemd and sshd, clean for each test run. DEFECTD_SYSTEMD_HOST names the script that boots it.

The script is called as `up NAME [SUITE]` and `down NAME`; `$W/ssh_config` says how to reach the host as a user who may
sudo without a password, and `$W` is from the environment, or systemd-host below the directory for temporary files.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Mapping

NO_HOST = "set DEFECTD_SYSTEMD_HOST to a script that boots a host with systemd and sshd (up NAME [SUITE], down NAME)"
SUITE = os.environ.get("DEFECTD_SYSTEMD_SUITE", "bookworm")
_UP_S = 300.0


def script() -> Path | None:
    """Where the script is, or None."""
    named = os.environ.get("DEFECTD_SYSTEMD_HOST", "")
    return Path(named) if named else None


class SystemdHost:
    """One host, as a context: up on entry, down on exit, whatever happens."""

    def __init__(self, name: str, suite: str = SUITE, binds: Mapping[str, str] | None = None) -> None:
        """*binds* maps directories of this machine to read-only ones there."""
        self.name = name
        self._suite = suite
        self._folder = Path(os.environ.get("W") or Path(tempfile.gettempdir(), "systemd-host"))
        self._environment = {**os.environ, "W": str(self._folder)}
        if binds:
            bound = " ".join(f"--bind-ro={here}:{there}" for here, there in binds.items())
            self._environment["NSPAWN_ARGS"] = f"{os.environ.get('NSPAWN_ARGS', '')} {bound}".strip()

    def __enter__(self) -> SystemdHost:
        try:
            self._script("up", self.name, self._suite)
        except BaseException:
            self._script("down", self.name)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._script("down", self.name)

    def run(self, command: str, *, check: bool = True, feed: bytes = b"", timeout_s: float = 120.0) -> str:
        """Run *command* as root, and return what it printed. Raises AssertionError with all of it if it fails."""
        ssh = ["ssh", "-F", str(self._folder / "ssh_config"), self.name, f"sudo sh -c {_quoted(command)}"]
        done = subprocess.run(ssh, input=feed, capture_output=True, timeout=timeout_s, check=False)
        said = done.stdout.decode(errors="replace")
        if check and done.returncode:
            raise AssertionError(f"{command}\nended with {done.returncode}\n{said}\n{done.stderr.decode()}")
        return said

    def put(self, files: Mapping[str, str], mode: int = 0o644) -> None:
        """Write *files*, absolute path to text."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path, text in files.items():
                member = tarfile.TarInfo(path.lstrip("/"))
                member.size, member.mode = len(text.encode()), mode
                archive.addfile(member, io.BytesIO(text.encode()))
        self.run("tar --no-same-owner --no-overwrite-dir -C / -xf -", feed=packed.getvalue())

    def _script(self, *arguments: str) -> None:
        found = script()
        if found is None:
            raise RuntimeError(NO_HOST)
        # Not through a pipe: what the script leaves running would hold it open.
        with tempfile.TemporaryFile() as told:
            done = subprocess.run(
                ["bash", str(found), *arguments],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=told, stderr=told, timeout=_UP_S, check=False,
            )  # fmt: skip
            told.seek(0)
            if done.returncode and arguments[0] == "up":
                raise RuntimeError(f"{found} {' '.join(arguments)}:\n{told.read().decode(errors='replace')}")


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"
