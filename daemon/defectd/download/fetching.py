"""What a source of bundles is, wherever it is: a place from which one file after another is read from any byte on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ContextManager, Protocol

from defectd.download.errors import DownloadError
from defectd.download.patience import Patience

_PART = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Stream(Protocol):
    """The bytes of a file. Must be closed, whether it was read to its end or not."""

    def read(self, limit_bytes: int) -> bytes:
        """What is there, or comes next, at most so much; b"" at the end. Raises MayPass and DownloadError."""
        ...

    def close(self) -> None:
        """Does not raise."""
        ...


@dataclass(frozen=True)
class Opened:
    """A file from the byte *offset* on. *total* is the size of all of it, and *etag*, a strong one, tells these very
    contents from any others; None where the source does not say."""

    stream: Stream
    total: int | None
    offset: int
    etag: str | None


class Session(Protocol):
    """A source that is being read, by one thread."""

    def fetch(self, path: str, name: str, offset: int = 0, etag: str | None = None) -> Opened:
        """The file *name* in the folder *path*. The answer begins at *offset*, or at 0 if the contents are no longer
        those of *etag*. Raises DownloadError, MayPass, Stopped; WrongBytes if the file ends before *offset*."""
        ...


class Source(Protocol):
    """Where bundles may come from."""

    def session(self, patience: Patience) -> ContextManager[Session]:
        """To read from it; all that waits has this *patience*. Raises DownloadError."""
        ...


def steps(path: str, name: str) -> tuple[str, ...]:
    """The names on the way to a file, one below the other. Raises DownloadError for one that would lead elsewhere."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if path.startswith("/") or not all(_PART.fullmatch(part) and part != ".." for part in (*parts, name)):
        raise DownloadError(
            "not_found", f"{f'{path}/{name}'[:200]!r} is no path below a source; expected one like models/pcb-7"
        )
    return (*parts, name)
