"""Room on the disk that is kept for the very last events: thrown off when the daemon ends on a full disk."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

_BYTES = 4 << 20  # a thousand events, and the write-ahead log that carries them


class Ballast:
    """A file that is worth nothing but its room."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> None:
        """Occupy the room. On a disk that is nearly full there is none to keep."""
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _BYTES)
        except OSError as error:
            log.warning("%s: no room is kept for the last events: %s", self._path, error.strerror)
            self.throw_off()

    def throw_off(self) -> None:
        """Give the room to whoever needs it now."""
        with contextlib.suppress(OSError):
            self._path.unlink()
