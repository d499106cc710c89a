"""The engineer's laptop: a fresh copy of this checkout, and what `make deploy` says there, task by task."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Sequence

from support.factory_network import REPOSITORY

_TASK = re.compile(r"^TASK \[(?:station : )?(.*?)\] \**$")
_RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")
# The head of a task is printed when it begins only if skipped ones are shown, too; pip shall not find an index here.
_ENVIRONMENT = {
    "ANSIBLE_NOCOLOR": "1", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "1", "COLUMNS": "400",
    "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0",
}  # fmt: skip


@dataclass
class Run:
    """One `make`: its lines as they come, each with the seconds since it began."""

    process: subprocess.Popen[str]
    log: Path
    began_s: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("w") as log:
            for line in self.process.stdout:
                self.lines.append((time.monotonic() - self.began_s, line.rstrip()))
                log.write(f"{self.lines[-1][0]:7.1f} {line}")
                log.flush()

    def wait(self, timeout_s: float = 900) -> Run:
        """Until it ends."""
        self.process.wait(timeout_s)
        self._reader.join(10)
        return self

    def kill(self) -> None:
        """As if the laptop's battery were taken out: nothing is tidied up."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def reaches(self, task: str, timeout_s: float = 300) -> bool:
        """Wait until *task* begins; false if the run ended before."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if any(name == task for _, name in self.tasks):
                return True
            if self.process.poll() is not None and not self._reader.is_alive():
                return False
            time.sleep(0.02)
        raise TimeoutError(f"{task} did not begin within {timeout_s} s")

    @property
    def code(self) -> int:
        """Exit status of make."""
        return int(self.process.wait(1))

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(line for _, line in list(self.lines))

    @property
    def took_s(self) -> float:
        """Until the last line."""
        return self.lines[-1][0] if self.lines else 0.0

    @property
    def tasks(self) -> list[tuple[float, str]]:
        """When each task began."""
        return [(at_s, found.group(1)) for at_s, line in list(self.lines) if (found := _TASK.match(line))]

    def spent_s(self, *tasks: str) -> float:
        """In the tasks with these names, together."""
        begun = [*self.tasks, (self.took_s, "")]
        return sum(after - at for (at, name), (after, _) in zip(begun, begun[1:]) if name in tasks)

    def changed(self, host: str) -> int | None:
        """Of the recap; None if *host* is not in it."""
        for _, line in self.lines:
            found = _RECAP.match(line)
            if found and found.group(1) == host:
                return int(found.group(2))
        return None

    @property
    def table(self) -> dict[str, list[str]]:
        """Host to the cells after it: release, result, changed, took, detail."""
        lines = [line for _, line in self.lines]
        heads = [number for number, line in enumerate(lines) if re.match(r"station +release +result", line)]
        rows = {}
        for line in lines[heads[-1] + 1 :] if heads else []:
            cells = re.split(r"  +", line, maxsplit=5)
            if len(cells) < 5:
                break
            rows[cells[0]] = [*cells[1:], ""][:5]
        return rows

    @property
    def message(self) -> str:
        """What a person reads at the end of one that failed: below the recap."""
        return self.text.rpartition("PLAY RECAP")[2]


class Controller:
    """A fresh copy of the checkout below *directory*; *inside* goes before each command."""

    def __init__(self, directory: Path, inside: Sequence[str]) -> None:
        self.directory = directory
        self._inside = list(inside)
        self._connections = directory.parent / "cp"  # other networks have the same addresses
        self._count = 0

    def copy(self) -> None:
        """What git would give a newcomer, and the wheels that were fetched before, if there are any."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (REPOSITORY / name).is_file():
                (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.directory / name)
        wheels = REPOSITORY / "deploy/.cache/wheels"
        if wheels.is_dir():
            shutil.copytree(wheels, self.directory / "deploy/.cache/wheels", copy_function=os.link)

    def fetch(self, target: str) -> float:
        """`make wheels`, where there is internet; returns how long it took."""
        began_s = time.monotonic()
        done = subprocess.run(
            ["make", "wheels", f"TARGET={target}"], cwd=self.directory, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"make wheels TARGET={target}: {(done.stderr or done.stdout)[-800:]}")
        return time.monotonic() - began_s

    def begin(self, target: str, host: str, *, user: str = "anna", **variables: str) -> Run:
        """`make TARGET HOST=…` there, without internet."""
        self._count += 1
        words = [f"HOST={host}", "INVENTORY=inventory.yml", *(f"{name}={value}" for name, value in variables.items())]
        process = subprocess.Popen(
            [*self._inside, "make", target, *words], cwd=self.directory, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **_ENVIRONMENT, "USER": user, "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._connections)},
        )  # fmt: skip
        return Run(process, self.directory.parent / f"{self._count:03}-{target}.log")

    def make(self, target: str, host: str, **variables: str) -> Run:
        """The same, to its end."""
        return self.begin(target, host, **variables).wait()

    def wheel(self, version: str, changes: Mapping[str, tuple[str, str]] | None = None) -> str:
        """defectd as *version*; *changes*: file below daemon/defectd to what is replaced in it by what."""
        tree = self.directory.parent / f"tree-{version}"
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(self.directory / "daemon", tree / "daemon")
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy2(self.directory / name, tree / name)
        about = tree / "daemon/defectd/__init__.py"
        about.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', about.read_text()))
        for name, (old, new) in (changes or {}).items():
            file = tree / "daemon/defectd" / name
            if old not in file.read_text():
                raise RuntimeError(f"{name} has no {old!r}")
            file.write_text(file.read_text().replace(old, new))
        subprocess.run(
            [str(self.directory / ".venv-deploy/bin/python"), "-m", "hatchling", "build", "-t", "wheel", "-d",
             str(self.directory.parent / "built")],
            cwd=tree, capture_output=True, check=True,
        )  # fmt: skip
        shutil.rmtree(tree)
        return str(self.directory.parent / f"built/defectd-{version}-py3-none-any.whl")
