"""A file on its way: what has arrived of it, hashed, and on disk where it can be gone on with after a power cut."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Callable, Iterator

from defectd.download.errors import DownloadError, WrongBytes
from defectd.models.catalog import explained
from defectd.models.manifest import Artifact
from defectd.storage import sync_directory

CHUNK_BYTES = 1 << 16
_SYNC_BYTES = 8 << 20
"""More is never waiting to be written: everybody else's fsync on this disk would wait for it, too."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Part:
    """`DIRECTORY/<sha256>.part`, and beside it the ETag of what it is a part of. Used within `opened`."""

    def __init__(self, directory: Path, artifact: Artifact) -> None:
        self._artifact = artifact
        self._path = directory / f"{artifact.sha256}.part"
        self._etag_path = directory / f"{artifact.sha256}.etag"
        self._digest = hashlib.sha256()
        self._file: BinaryIO
        self._unsynced_bytes = 0
        self.offset = 0
        self.etag: str | None = None

    @contextmanager
    def opened(self, finished: Path, check: Callable[[], None]) -> Iterator[Part]:
        """What is here already, if only under the name of the *finished* file, is hashed; *check* may end that."""
        if finished.exists() and not self._path.exists():
            finished.replace(self._path)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as self._file:
            while self.offset <= self._artifact.size and (chunk := self._file.read(CHUNK_BYTES)):
                check()
                self._count(chunk)
            if self.offset > self._artifact.size:
                self.restart()
            with suppress(OSError, UnicodeDecodeError):
                self.etag = self._etag_path.read_text("ascii") or None if self.offset else None
            yield self

    def restart(self) -> None:
        """Nothing of it is here."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self._unsynced_bytes = self.offset = 0
        self.etag = None
        self._forget_etag()

    def keep_etag(self, etag: str | None) -> None:
        """What comes from now on has it. It need not survive a power cut: the hash has the last word."""
        if etag is not None and etag != self.etag:
            self.etag = etag
            self._etag_path.write_text(etag, "ascii")

    def write(self, chunk: bytes) -> bool:
        """True if everything so far is on disk now. Raises WrongBytes if it is more than was declared."""
        if self.offset + len(chunk) > self._artifact.size:
            raise WrongBytes(f"is longer than the {self._artifact.size} bytes that the manifest declares")
        self._file.write(chunk)
        self._count(chunk)
        self._unsynced_bytes += len(chunk)
        if self._unsynced_bytes < _SYNC_BYTES:
            return False
        self._sync()
        return True

    def check(self) -> None:
        """Raises WrongBytes if it is not what was declared."""
        if self.offset != self._artifact.size or self._digest.hexdigest() != self._artifact.sha256:
            raise WrongBytes("its SHA-256 is not the one that the manifest declares")

    def finish(self, finished: Path) -> None:
        """It is whole, and has that name; on return it survives a power cut."""
        self._sync()
        self._path.replace(finished)
        sync_directory(finished.parent)
        self._forget_etag()

    def discard(self) -> None:
        """Give its room back."""
        with suppress(OSError):
            self._path.unlink()

    def _forget_etag(self) -> None:
        with suppress(FileNotFoundError):
            self._etag_path.unlink()

    def _count(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.offset += len(chunk)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced_bytes = 0


def arrived_bytes(directory: Path, artifact: Artifact, finished: Path) -> int:
    """How much of it seems to be here."""
    for path in (directory / f"{artifact.sha256}.part", finished):
        with suppress(FileNotFoundError):
            return min(path.lstat().st_size, artifact.size)
    return 0


@contextmanager
def disk(directory: Path) -> Iterator[None]:
    """What this machine's disk raises, as DownloadError `disk_full`, or as a StateError with its remedy."""
    with explained(directory):
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise DownloadError(
                "disk_full", f"{directory}: {error.strerror}; free some space there, and send the command again"
            ) from error
