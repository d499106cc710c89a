"""A simulated Jetson: its /sys, /etc and programs in a namespace, with the real jtop service, which can misbehave."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator

from support.proving import Skipped
from support.station import wait_until

VARIABLE = "DEFECTD_JETSON_SIM"


class Jetson:
    """The service can be frozen, killed and started again."""

    def __init__(self, simulation: str, directory: Path) -> None:
        self.tree = directory / "tree"
        subprocess.run(
            ["bash", f"{simulation}/make-tree.sh", str(self.tree)], env={**os.environ, "JTOP_GID": "0"}, check=True,
            timeout=60, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        # as the kernel says it; jtop 4 finds no GPU otherwise
        (self.tree / "sys/devices/platform/17000000.gpu/of_node/name").write_bytes(b"gpu\0")
        self._log = (directory / "service.log").open("ab")
        self._holder = subprocess.Popen(
            ["unshare", "-Urm", "bash", f"{simulation}/enter-rootless.sh", str(self.tree), "sleep", "infinity"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self._service: subprocess.Popen[bytes] | None = None

    @property
    def inside(self) -> tuple[str, ...]:
        """Before a command: run it there."""
        return "nsenter", "-t", str(self._holder.pid), "-U", "-m", "--preserve-credentials"

    @property
    def socket(self) -> Path:
        """Where the service listens, seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root/run/jtop.sock")

    def write(self, path: str, text: str) -> None:
        """Into a file of /sys that is there already."""
        (self.tree / "sys" / path).write_text(f"{text}\n")

    def wait_entered(self) -> None:
        """Until the tree is in place. Raises Skipped if this machine allows no such namespace."""
        comm = Path(f"/proc/{self._holder.pid}/comm")
        with contextlib.suppress(TimeoutError, OSError):
            wait_until(lambda: self._holder.poll() is not None or comm.read_text().strip() == "sleep", 20, "entered")
        if self._holder.poll() is not None:
            raise Skipped("this machine allows no user namespace: sudo sysctl kernel.unprivileged_userns_clone=1")

    def start(self) -> None:
        """The jtop service, until it listens."""
        self._service = subprocess.Popen(
            [*self.inside, sys.executable, "-m", "jtop", "--force"],
            env={**os.environ, "JTOP_SERVICE": "True"}, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip
        wait_until(self.socket.exists, 60, "the jtop service listens")

    def signal(self, number: int) -> None:
        """To the service and all its processes."""
        assert self._service is not None
        os.killpg(self._service.pid, number)

    def kill(self) -> None:
        """The service, if it runs."""
        if self._service is not None:
            self.signal(signal.SIGKILL)
            self._service.wait(10)
            self._service = None

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        self._holder.kill()
        self._holder.wait(10)
        self._log.close()


@contextlib.contextmanager
def jetson(directory: Path, *, started: bool = True) -> Iterator[Jetson]:
    """With its service running, if *started*. Raises Skipped with what is missing."""
    simulation = os.environ.get(VARIABLE, "")
    if not simulation:
        raise Skipped(f"needs a simulated Jetson: set {VARIABLE} to the folder of make-tree.sh")
    if importlib.util.find_spec("jtop") is None:
        raise Skipped("needs jetson-stats: pip install 'defectd[jtop]'")
    if sys.base_prefix.startswith(("/usr/local", "/run", "/etc")):
        raise Skipped("the simulated Jetson hides this Python: use one outside /usr/local")
    if shutil.which("unshare") is None:
        raise Skipped("no unshare on PATH; run: sudo apt-get install util-linux")
    made = Jetson(simulation, directory)
    try:
        made.wait_entered()
        if started:
            made.start()
        yield made
    finally:
        made.close()


def another_version(directory: Path) -> str:
    """jetson-stats as it is installed here, under *directory*, but it says another version; which one."""
    spec = importlib.util.find_spec("jtop")
    assert spec is not None and spec.origin is not None
    shutil.copytree(Path(spec.origin).parent, directory / "jtop")
    module = directory / "jtop" / "__init__.py"
    text = module.read_text()
    mine = next(line for line in text.splitlines() if line.startswith("__version__"))
    module.write_text(text.replace(mine, '__version__ = "4.1.0"'))
    return "4.1.0"
