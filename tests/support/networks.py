"""A network of one's own: what a test sends there nobody else hears."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from typing import Callable, TypeVar

Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000  # <sched.h>


class NoNetwork(Exception):
    """This user may not make one; the message says what to do."""


def alone(work: Callable[[], Result]) -> Result:
    """Call *work* in a thread whose network is a fresh loopback interface; threads and processes that it starts are in
    there, too. Raises NoNetwork, and what *work* raises."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            _enter()
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="alone", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _enter() -> None:
    if shutil.which("ip") is None:
        raise NoNetwork("no `ip` on PATH: sudo apt-get install iproute2")
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise NoNetwork(f"a network namespace of one's own: {os.strerror(ctypes.get_errno())}; run it as root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
