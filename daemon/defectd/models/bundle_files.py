"""The directory of a bundle, read as what a stranger may have written: no links, no pipes, no file but the declared."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator

from defectd.errors import ModelError
from defectd.models.manifest import ENVELOPE, MANIFEST, Artifact, Manifest

REMEDY = "copy the bundle again, or export it again"
_CHUNK_BYTES = 1024 * 1024
_MANY = 5  # names in a message; nobody reads more


class BundleFiles:
    """An open directory: its files are looked at even if its name is meanwhile given to another. Every error is a
    ModelError that names the file."""

    def __init__(self, directory: Path, descriptor: int) -> None:
        self.directory = directory
        self._descriptor = descriptor

    def has(self, name: str) -> bool:
        """True if anything has that name, even a broken link."""
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str, limit_bytes: int) -> bytes:
        """All of a file of at most *limit_bytes*; of a larger one, nothing is read."""
        with self._regular(name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit_bytes:
                raise ModelError(f"{self.directory / name}: {size} bytes; expected at most {limit_bytes}; {REMEDY}")
            return file.read(limit_bytes)

    def check(self, manifest: Manifest) -> None:
        """Exactly the declared files are there; then their sizes; and only then their hashes."""
        self._check_names({artifact.name for artifact in manifest.artifacts})
        for artifact in manifest.artifacts:
            with self._regular(artifact.name) as file:
                self._check_size(file, artifact)
        for artifact in manifest.artifacts:
            with self._regular(artifact.name) as file:
                self._check_size(file, artifact)
                self._check_hash(file, artifact)

    def _check_names(self, declared: set[str]) -> None:
        present = set(os.listdir(self._descriptor)) - {MANIFEST, ENVELOPE}  # noqa: PTH208 (a descriptor has no Path)
        for names, problem in ((declared - present, "missing"), (present - declared, "not in the manifest")):
            if names:
                listed = ", ".join(repr(name) for name in sorted(names)[:_MANY]) + (", …" if len(names) > _MANY else "")
                raise ModelError(f"{self.directory}: {problem}: {listed}; {REMEDY}")

    def _check_size(self, file: BinaryIO, artifact: Artifact) -> None:
        size = os.fstat(file.fileno()).st_size
        if size != artifact.size:
            raise ModelError(
                f"{self.directory / artifact.name}: {size} bytes; the manifest says {artifact.size}; {REMEDY}"
            )

    def _check_hash(self, file: BinaryIO, artifact: Artifact) -> None:
        digest, left = hashlib.sha256(), artifact.size
        while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
        if left or digest.hexdigest() != artifact.sha256:
            raise ModelError(f"{self.directory / artifact.name}: its SHA-256 is not the manifest's; {REMEDY}")

    @contextmanager
    def _regular(self, name: str) -> Iterator[BinaryIO]:
        """A file of the bundle itself; what a link points to is none. A pipe is not waited for."""
        where = self.directory / name
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ModelError(f"{where}: is not a regular file; {REMEDY}")
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    yield file
            finally:
                os.close(descriptor)
        except OSError as error:
            reason = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise ModelError(f"{where}: {reason}; expected a regular file; {REMEDY}") from error


@contextmanager
def opened(directory: Path) -> Iterator[BundleFiles]:
    """The files in *directory*, which may itself be reached through a link. Raises ModelError."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ModelError(f"{directory}: {error.strerror}; expected a bundle: a directory with {MANIFEST}") from error
    try:
        yield BundleFiles(directory, descriptor)
    finally:
        os.close(descriptor)
