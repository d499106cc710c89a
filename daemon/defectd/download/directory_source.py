"""Bundles in a folder, such as that of a USB stick: what a stranger may have written."""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from defectd.download.errors import DownloadError
from defectd.download.fetching import Opened, steps
from defectd.download.patience import Patience
from defectd.models.blobs import NO_FILE

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectorySource:
    """A folder; nothing outside of it is read. Its own path may be a link: that was configured."""

    def __init__(self, alias: str, directory: Path) -> None:
        self._alias, self._directory = alias, directory

    @contextmanager
    def session(self, patience: Patience) -> Iterator[_DirectorySession]:
        """As `Source.session`; a disk is not waited for, so that *patience* has nothing to do."""
        del patience
        try:
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DownloadError(
                "source_missing",
                f"source {self._alias!r}: {self._directory}: {error.strerror}; plug the stick in, or mount it there, "
                "and send the command again",
            ) from error
        try:
            yield _DirectorySession(self._alias, self._directory, descriptor)
        finally:
            os.close(descriptor)


class _DirectorySession:
    def __init__(self, alias: str, directory: Path, descriptor: int) -> None:
        self._alias, self._directory, self._descriptor = alias, directory, descriptor

    def fetch(self, path: str, name: str, offset: int = 0, etag: str | None = None) -> Opened:
        """As `Session.fetch`."""
        names = steps(path, name)
        where = f"source {self._alias!r}: {self._directory.joinpath(*names)}"
        try:
            stream = _File(self._open(names), where)
        except OSError as error:
            raise _trouble(error, where) from error
        try:
            return stream.opened(offset, etag)
        except BaseException:
            stream.close()
            raise

    def _open(self, names: tuple[str, ...]) -> io.FileIO:
        """No name on the way may be a link. Raises OSError."""
        folder = os.dup(self._descriptor)
        try:
            for name in names[:-1]:
                below = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
            return _regular(os.open(names[-1], _FLAGS | os.O_NONBLOCK, dir_fd=folder))  # a pipe is not waited for
        finally:
            os.close(folder)


def _regular(descriptor: int) -> io.FileIO:
    """Raises OSError for a folder, a device, a pipe."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file")
    return io.FileIO(descriptor)


class _File:
    """A `Stream` of an open file. Every error is a DownloadError that names it."""

    def __init__(self, file: io.FileIO, where: str) -> None:
        self._file, self._where = file, where

    def opened(self, offset: int, etag: str | None) -> Opened:
        try:
            status = os.fstat(self._file.fileno())
            found = f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'
            begin = offset if etag in (None, found) and offset <= status.st_size else 0
            self._file.seek(begin)
        except OSError as error:
            raise _trouble(error, self._where) from error
        return Opened(self, status.st_size, begin, found)

    def read(self, limit_bytes: int) -> bytes:
        try:
            return self._file.read(limit_bytes) or b""
        except OSError as error:
            raise _trouble(error, self._where) from error

    def close(self) -> None:
        self._file.close()


def _trouble(error: OSError, where: str) -> DownloadError:
    if error.errno in NO_FILE:
        reason = (
            "is a link, or not a folder on the way" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
        )
        return DownloadError(
            "not_found",
            f"{where}: {reason}; expected a bundle there; check the command's path and what is on the stick",
        )
    return DownloadError(
        "source_missing", f"{where}: {error.strerror}; check the stick, plug it in again, and send the command again"
    )
