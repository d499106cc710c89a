"""Files by their content: copied while they are hashed, and in place only when they are whole and on disk."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from defectd.errors import ModelError
from defectd.storage import sync_directory

_CHUNK_BYTES = 1 << 20
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS)
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EISDIR)
"""What opening raises where there is nothing, or a link, a directory, a device, in place of a file."""
TEMPORARY = ".tmp"
"""How the names of unfinished files and directories end: whoever finds one while nobody writes may delete it."""


def sha256_of(path: Path) -> str:
    """Of the file itself, not of what a link points to. Raises OSError."""
    with _open_regular(path) as file:
        digest = hashlib.sha256()
        for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()


def read_bounded(path: Path, limit: int) -> bytes:
    """Raises OSError, also for what is no regular file; ModelError if there is more."""
    with _open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ModelError(f"{path}: is over the limit of {limit} bytes")
    return data


def write_new(path: Path, data: bytes) -> None:
    """A new read-only file, on disk; its name is so only when the directory is synchronised, too."""
    with _create(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Make what another process wrote survive a power cut."""
    with _open_regular(path) as file:
        os.fsync(file.fileno())


class Blobs:
    """`DIRECTORY/<sha256>`, read-only files."""

    def __init__(self, directory: Path) -> None:
        """The directory must exist."""
        self.directory = directory

    def path(self, sha256: str) -> Path:
        """Where that content is, or would be."""
        return self.directory / sha256

    def missing_bytes(self, wanted: dict[str, int]) -> int:
        """How many bytes of *wanted* (sha256 -> size) are not here yet."""
        return sum(size for sha256, size in wanted.items() if not self.path(sha256).exists())

    def put(self, source: Path, sha256: str, size: int) -> Path:
        """The blob, copied from *source* unless it is here already and still whole. On return it survives a power
        cut. Raises ModelError if the source is not that content, OSError if the disk does not take it."""
        blob = self.path(sha256)
        if _is_whole(blob, sha256, size):
            return blob
        temporary = self.directory / f"{sha256}{TEMPORARY}"
        try:
            with _open_source(source) as file:
                _copy(file, temporary, sha256, size)
            temporary.replace(blob)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(self.directory)
        return blob

    def place(self, sha256: str, target: Path) -> None:
        """Make *target* a name of that blob, atomically; a copy where the file system has no hard links."""
        blob = self.path(sha256)
        temporary = self.directory / f"{sha256}.link{TEMPORARY}"  # not beside it: a release holds nothing but its files
        with suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(blob, temporary)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with _open_regular(blob) as file:
                _copy(file, temporary, sha256, blob.stat().st_size)
        temporary.replace(target)
        with suppress(FileNotFoundError):
            temporary.unlink()  # rename(2) leaves both names if they are of the same file already


def _is_whole(blob: Path, sha256: str, size: int) -> bool:
    try:
        return blob.lstat().st_size == size and sha256_of(blob) == sha256
    except OSError:  # absent, no regular file, or unreadable: write it anew
        return False


def _copy(source: BinaryIO, target: Path, sha256: str, size: int) -> None:
    """A durable, read-only copy, whose bytes are those that were hashed; never more than *size* of them."""
    with suppress(FileNotFoundError):
        target.unlink()
    digest, left = hashlib.sha256(), size
    with _create(target) as file:
        while chunk := source.read(min(_CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if left != 0 or digest.hexdigest() != sha256:
        raise ModelError(
            f"{source.name}: is not what the manifest declares ({size} bytes, sha256 {sha256[:12]}…): it was changed "
            "or damaged on its way; copy the bundle again"
        )


def _open_source(path: Path) -> BinaryIO:
    """Raises ModelError: it is the bundle that is not as it was when it was verified."""
    try:
        return _open_regular(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; copy the bundle again") from error


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400), "wb")


def _open_regular(path: Path) -> BinaryIO:
    """Raises OSError for a link, a device, a pipe."""
    file = open(path, "rb", opener=_without_following)  # noqa: SIM115 - its caller is one
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return file


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
