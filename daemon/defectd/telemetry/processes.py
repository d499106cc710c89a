"""Resident memory of the daemon and of what it started, by name. Shared memory counts in each that has touched it."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Callable, Mapping

from defectd.clock import NS_PER_S
from defectd.telemetry.files import Files
from defectd.telemetry.sample import Roots

_LOOK_AGAIN_NS = 10 * NS_PER_S
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
DAEMON = "daemon"


class Processes:
    """The daemon's process tree. Who belongs to it is looked up every 10 s (it takes a read for each process of the
    machine), what they hold each time. *names* tells the workers' names by process id; one that it does not know is
    called by its module: `defectd.camera.worker` is "camera"."""

    def __init__(self, roots: Roots, root_pid: int, names: Callable[[], Mapping[int, str]] = dict) -> None:
        self._proc, self._root_pid, self._names = str(roots.proc), root_pid, names
        self._members: dict[int, str] = {}
        self._due_ns = 0

    def resident_mb(self, files: Files, now_ns: int) -> Mapping[str, float]:
        """In MiB. Processes of the same name, and what they started, are added up."""
        if now_ns >= self._due_ns:
            self._members, self._due_ns = self._find(files), now_ns + _LOOK_AGAIN_NS
        resident: defaultdict[str, float] = defaultdict(float)
        for pid, name in self._members.items():
            fields = (files.text(f"{self._proc}/{pid}/statm") or "").split()
            if len(fields) > 1 and fields[1].isdigit():
                resident[name] += int(fields[1]) * _PAGE_BYTES / 2**20
        return dict(resident)

    def _find(self, files: Files) -> dict[int, str]:
        children: defaultdict[int, list[int]] = defaultdict(list)
        for name in files.names(self._proc):
            if name.isdigit() and (starter := _parent(files.text(f"{self._proc}/{name}/stat"))) is not None:
                children[starter].append(int(name))
        known = self._names()
        members = {self._root_pid: DAEMON}
        todo = [self._root_pid]
        while todo:
            parent = todo.pop()
            for pid in children[parent]:
                if pid not in members:
                    members[pid] = known.get(pid) or self._module(files, pid) or members[parent]
                    todo.append(pid)
        return members

    def _module(self, files: Files, pid: int) -> str | None:
        """From `python -m defectd.camera.worker …`."""
        words = (files.text(f"{self._proc}/{pid}/cmdline") or "").split("\0")
        module = next((word for flag, word in zip(words, words[1:]) if flag == "-m"), "")
        if not module.startswith("defectd."):
            return None
        name = module[len("defectd.") :]
        return name[: -len(".worker")] if name.endswith(".worker") else name


def _parent(stat: str | None) -> int | None:
    """The fourth field; the second, the command, may hold anything, and ends with the last bracket."""
    fields = (stat or "").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else None
