"""Which pictures must go: the oldest first, by age, by total size, and when others need the disk."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

PICTURES = (".jpg", ".png")
_ABOUT = ".json"
_CLOCK_WAS_SET_S = 1_704_067_200.0  # 2024; a Jetson without its battery begins in 1970
_RESERVE_BYTES = 1_000_000_000
_RESERVE_SHARE = 20  # of the disk, the twentieth part; what is less


@dataclass(frozen=True)
class Stored:
    """One picture on disk, and what is written about it beside it, if anything."""

    path: Path
    bytes: int
    modified_s: float


@dataclass(frozen=True)
class Disk:
    """The file system of the pictures, which is the outbox's, too."""

    total_bytes: int
    free_bytes: int

    @classmethod
    def of(cls, directory: Path) -> Disk:
        """As it is now."""
        usage = shutil.disk_usage(str(directory))
        return cls(usage.total, usage.free)

    @property
    def reserve_bytes(self) -> int:
        """What pictures leave to events."""
        return min(self.total_bytes // _RESERVE_SHARE, _RESERVE_BYTES)


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

    def __init__(
        self, directory: Path, max_bytes: int, max_age_s: float, disk: Callable[[Path], Disk] = Disk.of
    ) -> None:
        self._directory, self._max_bytes, self._max_age_s, self._disk = directory, max_bytes, max_age_s, disk
        self._bytes = 0

    @property
    def over_bound(self) -> bool:
        """A sweep is needed now."""
        return self._bytes > self._max_bytes

    def added(self, size: int) -> None:
        """A picture of *size* bytes was written."""
        self._bytes += size

    def has_room(self, now_s: float) -> bool:
        """True if one more picture leaves the disk its reserve. Older pictures give way for that, if need be."""
        disk = self._disk(self._directory)
        if disk.free_bytes >= disk.reserve_bytes:
            return True
        self._sweep_to(self._bytes - (disk.reserve_bytes - disk.free_bytes), now_s)
        disk = self._disk(self._directory)
        return disk.free_bytes >= disk.reserve_bytes

    def sweep(self, now_s: float) -> None:
        """Delete what must go."""
        self._sweep_to(self._max_bytes, now_s)

    def _sweep_to(self, bound: int, now_s: float) -> None:
        """At most *bound* bytes; if more are there, a tenth less, so that the next picture needs no sweep."""
        stored = [_stored(path) for end in PICTURES for path in self._directory.rglob(f"*{end}")]
        total = sum(picture.bytes for picture in stored)
        room = bound if total <= bound else max(0, bound) * 9 // 10
        for picture in expired(stored, room, self._max_age_s, now_s):
            with contextlib.suppress(FileNotFoundError):
                picture.path.with_suffix(_ABOUT).unlink()
            with contextlib.suppress(FileNotFoundError):
                picture.path.unlink()
                total -= picture.bytes
        for day in self._directory.iterdir():
            with contextlib.suppress(OSError):  # not empty, which is the normal case
                day.rmdir()
        self._bytes = total


def _stored(path: Path) -> Stored:
    status, about = path.stat(), path.with_suffix(_ABOUT)
    return Stored(path, status.st_size + (about.stat().st_size if about.exists() else 0), status.st_mtime)
