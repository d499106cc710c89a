"""Which pictures must go: the oldest first, by age and by total size."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

log = logging.getLogger(__name__)

_CLOCK_WAS_SET_S = 1_704_067_200.0  # 2024; a Jetson without its battery begins in 1970


@dataclass(frozen=True)
class Stored:
    """One picture on disk."""

    path: Path
    bytes: int
    modified_s: float


def expired(stored: Sequence[Stored], max_bytes: int, max_age_s: float, now_s: float) -> list[Stored]:
    """Those that must go so that the rest is at most *max_bytes* and none is older than *max_age_s*.

    A picture from the future, or from before there was this program, has no age: the clock was wrong when it was
    written. Only the size bounds those.
    """
    oldest_first = sorted(stored, key=lambda picture: (picture.modified_s, picture.path))
    total = sum(picture.bytes for picture in oldest_first)
    gone: list[Stored] = []
    for picture in oldest_first:
        is_old = picture.modified_s > _CLOCK_WAS_SET_S and now_s - picture.modified_s > max_age_s
        if total <= max_bytes and not is_old:
            continue
        gone.append(picture)
        total -= picture.bytes
    return gone


class Retention:
    """Keeps *directory* within its bounds. Between two sweeps it counts what was added."""

    def __init__(self, directory: Path, max_bytes: int, max_age_s: float) -> None:
        self._directory, self._max_bytes, self._max_age_s = directory, max_bytes, max_age_s
        self._bytes = 0

    @property
    def over_bound(self) -> bool:
        """A sweep is needed now."""
        return self._bytes > self._max_bytes

    def added(self, size: int) -> None:
        """A picture of *size* bytes was written."""
        self._bytes += size

    def sweep(self, now_s: float) -> None:
        """Delete what must go; leave a tenth of the room free so that the next picture needs no sweep."""
        stored = [
            Stored(path, status.st_size, status.st_mtime)
            for path in self._directory.rglob("*.jpg")
            for status in [path.stat()]
        ]
        total = sum(picture.bytes for picture in stored)
        bound = self._max_bytes if total <= self._max_bytes else self._max_bytes * 9 // 10
        for picture in expired(stored, bound, self._max_age_s, now_s):
            with contextlib.suppress(FileNotFoundError):
                picture.path.unlink()
                total -= picture.bytes
        for day in self._directory.iterdir():
            with contextlib.suppress(OSError):  # not empty, which is the normal case
                day.rmdir()
        self._bytes = total
