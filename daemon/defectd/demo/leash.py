"""`python -m defectd.demo.leash PARENT COMMAND …`: become COMMAND, and get SIGTERM when PARENT dies.

So that nothing of the demo stays behind, even after kill -9. The setting survives exec (prctl(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def leashed(command: list[str]) -> list[str]:
    """The command line that runs *command* on this process' leash."""
    return [sys.executable, "-m", "defectd.demo.leash", str(os.getpid()), *command]


def main(arguments: list[str]) -> None:
    """Never returns: this process becomes the command."""
    parent, command = int(arguments[0]), arguments[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - that is the point: no shell


if __name__ == "__main__":
    main(sys.argv[1:])
