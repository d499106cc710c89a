"""Small files of the kernel. One that cannot be read is None; one that does not answer is left alone.

Some drivers answer late or never (a BPMP that hangs, a sensor that lost its bus), and nothing interrupts such a read.
So whoever reads says first what it reads, and another thread looks at the clock.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from contextlib import contextmanager
from typing import Iterator

from defectd.clock import monotonic_ns

log = logging.getLogger(__name__)

_MAX_BYTES = 1 << 16
_MAX_STRIKES = 3
"""A file that did come back, late, is given another chance; so many."""


class Abandoned(Exception):
    """The reader was given up while it waited: whatever it would still find out, nobody wants to know."""


class Silent:
    """The files that did not answer. Thread-safe, and shared by one reader and its successors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stuck: set[str] = set()
        self._strikes: Counter[str] = Counter()

    def blame(self, path: str) -> None:
        """Somebody is stuck in *path*."""
        with self._lock:
            self._stuck.add(path)
            self._strikes[path] += 1
            for_good = self._strikes[path] >= _MAX_STRIKES
        log.warning("%s does not answer: it is left out%s", path, " from now on" if for_good else " until it does")

    def forgive(self, path: str) -> None:
        """It did answer, late, if it was one of them."""
        if path in self._stuck:
            with self._lock:
                self._stuck.discard(path)

    def shuns(self, path: str) -> bool:
        """It must not be touched."""
        return path in self._stuck or self._strikes.get(path, 0) >= _MAX_STRIKES  # atomic, and asked for every file

    def paths(self) -> tuple[str, ...]:
        """All that are left out now, sorted."""
        with self._lock:
            return tuple(sorted(self._stuck | {path for path, count in self._strikes.items() if count >= _MAX_STRIKES}))


class Files:
    """One reader's view of the file system; for one thread, but for `waiting`, `blame` and `abandon`."""

    def __init__(self, silent: Silent | None = None) -> None:
        self.vanished = False
        """A sensor is gone: look again for where things are."""
        self._missing = False
        self._silent = silent or Silent()
        self._current: tuple[str, int] | None = None
        self._abandoned = False

    def waiting(self) -> tuple[str, int] | None:
        """What is being read, and since when (ns); for the thread that looks at the clock."""
        return self._current

    def abandon(self) -> None:
        """Whoever reads ends with `Abandoned` after this file."""
        self._abandoned = True

    def blame(self, waiting: tuple[str, int]) -> None:
        """The file of *waiting* took too long; for the thread that looks at the clock."""
        self._silent.blame(waiting[0])
        if self._current is not waiting:  # it has answered at this moment, and nobody else would forgive
            self._silent.forgive(waiting[0])

    @contextmanager
    def asking(self, path: str) -> Iterator[None]:
        """Around a system call that may hang in *path*. Raises OSError if it is known to."""
        if self._silent.shuns(path):
            raise TimeoutError(path)
        self._current = path, monotonic_ns()
        try:
            yield
        finally:
            self._current = None
            self._silent.forgive(path)
            if self._abandoned:
                raise Abandoned(path)

    def text(self, path: str) -> str | None:
        """The content, stripped; None if it cannot be read, now or ever. One attempt: a GPU that is off says EAGAIN
        for as long as it is off."""
        try:
            with self.asking(path):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    return os.read(descriptor, _MAX_BYTES).decode("utf-8", "replace").strip("\0\n\t ")
                finally:
                    os.close(descriptor)
        except FileNotFoundError:
            self._missing = True
        except OSError:
            pass
        return None

    def number(self, path: str) -> int | None:
        """A sensor's whole number, decimal; None also for anything else. One that is gone has `vanished`."""
        self._missing = False
        try:
            return int(self.text(path) or "")
        except ValueError:
            self.vanished |= self._missing
            return None

    def names(self, directory: str) -> list[str]:
        """What is in *directory*, sorted; nothing if it cannot be listed."""
        try:
            with self.asking(directory):
                return sorted(os.listdir(directory))  # noqa: PTH208 - names, not paths, are wanted
        except OSError:
            return []

    def has(self, path: str) -> bool:
        """It is there, and this user may read it; which does not ask the driver."""
        return os.access(path, os.R_OK)
