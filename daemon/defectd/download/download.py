"""A bundle's way onto this disk: the manifest first, and nothing else before it is known whose it is.

    <directory>/partial/<sha256>.part     what has arrived of a file; gone on with after a crash
    <directory>/<manifest sha256>/        the bundle: nothing in it that is not whole

There is one bundle at a time: what an earlier download left is deleted when the next one knows what it needs.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, TypeVar

from defectd.clock import NS_PER_S, Backoff, monotonic_ns
from defectd.download.errors import DownloadError, MayPass, Stopped, WrongBytes
from defectd.download.fetching import Session, Source
from defectd.download.part import CHUNK_BYTES, Part, arrived_bytes, disk
from defectd.download.patience import Patience
from defectd.errors import ModelError
from defectd.models.envelope import PAYLOAD_MANIFEST, TrustError, max_envelope_bytes
from defectd.models.manifest import ENVELOPE, MANIFEST, MAX_MANIFEST_BYTES, Artifact, Manifest
from defectd.storage import sync_directory, write_durably

__all__ = ["DownloadError", "Limits", "Say", "Stopped", "Verify", "download", "free_bytes_of"]

RESERVE_BYTES = 64 << 20
"""Of the disk; it is what the rest of the station lives from."""
_SAY_EVERY_NS = NS_PER_S // 2
_RELEASE = re.compile(r"[0-9a-f]{64}")

Verify = Callable[[bytes, bytes], Manifest]
"""From the bytes of a manifest and of its envelope. Raises TrustError, or ModelError."""
Say = Callable[[float, str], None]
"""How much of it is here, from 0 to 1, and what is being done."""
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Of one download. *total_s* counts from its begin in this process; *rate_bytes_per_s* 0 is no limit; less than
    *min_bytes_per_s* over *stall_s* is a connection to be given up and made anew, after *first_retry_s* at first."""

    max_bytes: int
    rate_bytes_per_s: float = 0.0
    total_s: float = 3600.0
    stall_s: float = 20.0
    min_bytes_per_s: float = 1024.0
    first_retry_s: float = 1.0
    longest_retry_s: float = 60.0


def free_bytes_of(directory: Path) -> int:
    """What this process may still write there."""
    file_system = os.statvfs(directory)
    return file_system.f_bavail * file_system.f_frsize


def download(
    source: Source,
    path: str,
    manifest_sha256: str,
    directory: Path,
    verify: Verify,
    limits: Limits,
    say: Say,
    stop: Callable[[], bool],
    free_bytes: Callable[[Path], int] = free_bytes_of,
) -> Path:
    """The directory, below *directory*, of the bundle that the source has under *path*: every file as declared, and on
    disk. *stop* is asked several times a second, *say* called at most twice.

    Raises DownloadError, whose `code` says why; Stopped; StateError if the disk cannot be used.
    """
    patience = Patience(stop, limits.total_s, limits.stall_s, limits.min_bytes_per_s, limits.rate_bytes_per_s)
    with disk(directory), source.session(patience) as session:
        return _Download(session, path, directory, limits, patience, say, free_bytes).run(manifest_sha256, verify)


class _Download:
    def __init__(
        self,
        session: Session,
        path: str,
        directory: Path,
        limits: Limits,
        patience: Patience,
        say: Say,
        free_bytes: Callable[[Path], int],
    ) -> None:
        self._session, self._path, self._limits, self._patience = session, path, limits, patience
        self._directory, self._partial = directory, directory / "partial"
        self._tell, self._free_bytes = say, free_bytes
        self._backoff = Backoff(limits.first_retry_s, limits.longest_retry_s)
        self._trouble: MayPass | None = None  # since something came the last time
        self._done_bytes, self._total_bytes, self._said_ns = 0, 0, 0

    def run(self, manifest_sha256: str, verify: Verify) -> Path:
        data = self._read(MANIFEST, MAX_MANIFEST_BYTES)
        found = hashlib.sha256(data).hexdigest()
        if found != manifest_sha256:
            raise DownloadError(
                "wrong_manifest",
                f"{self._path}/{MANIFEST}: has SHA-256 {found[:12]}…, the command names {manifest_sha256[:12]}…: "
                "another release is there; put the right one back, or send a command for this one",
            )
        envelope = self._read(ENVELOPE, max_envelope_bytes(PAYLOAD_MANIFEST))
        manifest = self._verified(verify, data, envelope)
        bundle = self._directory / manifest_sha256
        self._prepare(bundle, manifest)
        for artifact in manifest.artifacts:
            self._bring(artifact, bundle / artifact.name)
            self._done_bytes += artifact.size
        write_durably(bundle / MANIFEST, data)
        write_durably(bundle / ENVELOPE, envelope)
        self._tell(1.0, "everything is here")
        return bundle

    def _verified(self, verify: Verify, data: bytes, envelope: bytes) -> Manifest:
        try:
            return verify(data, envelope)
        except TrustError as error:
            raise DownloadError("signature", f"{self._path}/{ENVELOPE}: {error}") from error
        except ModelError as error:
            raise DownloadError("wrong_manifest", f"{self._path}/{MANIFEST}: {error}") from error

    def _prepare(self, bundle: Path, manifest: Manifest) -> None:
        """Make room, and see that there is enough of it."""
        self._total_bytes = sum(artifact.size for artifact in manifest.artifacts)
        if self._total_bytes > self._limits.max_bytes:
            raise DownloadError(
                "too_large",
                f"{self._path}: has {_mb(self._total_bytes)} MB; expected at most {_mb(self._limits.max_bytes)} MB: "
                "export a smaller bundle, or raise rollout.max_bundle_mb",
            )
        for directory in (bundle, self._partial):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(self._directory)
        self._tidy(bundle, manifest)
        arrived = sum(arrived_bytes(self._partial, one, bundle / one.name) for one in manifest.artifacts)
        remaining = self._total_bytes - arrived
        self._check_room(remaining + remaining // 10 + RESERVE_BYTES)

    def _tidy(self, bundle: Path, manifest: Manifest) -> None:
        """Delete what is of no use for this bundle; in *directory* itself, nothing that is not ours."""
        for entry in self._directory.iterdir():
            if _RELEASE.fullmatch(entry.name) and entry != bundle:
                shutil.rmtree(entry)
        wanted = {artifact.sha256 for artifact in manifest.artifacts}
        useless = [entry for entry in self._partial.iterdir() if entry.stem not in wanted]
        names = {artifact.name for artifact in manifest.artifacts}
        useless += [entry for entry in bundle.iterdir() if entry.name not in names]
        for entry in useless:
            entry.unlink()

    def _check_room(self, needed_bytes: int) -> None:
        free = self._free_bytes(self._directory)
        if free < needed_bytes:
            raise DownloadError(
                "disk_full",
                f"{self._directory}: {_mb(free)} MB are free, {_mb(needed_bytes)} MB are needed; "
                "free some space on that disk, and send the command again",
            )

    def _bring(self, artifact: Artifact, target: Path) -> None:
        part = Part(self._partial, artifact)
        try:
            with part.opened(target, self._patience.check):
                try:
                    self._persist(lambda: self._pour(artifact, part))
                except WrongBytes as error:
                    self._say(f"{artifact.name}: {error}; once more from the beginning", part)
                    part.restart()
                    self._persist(lambda: self._pour(artifact, part))
                part.finish(target)
        except WrongBytes as error:
            part.discard()
            raise DownloadError(
                "wrong_bytes",
                f"{self._path}/{artifact.name}: {error}, and it was so twice; put the bundle there again, "
                "as it was signed",
            ) from error
        except OSError:  # this disk's: a source's own are others
            part.discard()  # whatever else this station writes needs the room more
            raise

    def _pour(self, artifact: Artifact, part: Part) -> None:
        """All that is missing of it. Raises MayPass, WrongBytes and DownloadError."""
        if part.offset < artifact.size:
            opened = self._session.fetch(self._path, artifact.name, part.offset, part.etag)
            with closing(opened.stream):
                if opened.offset == 0:
                    part.restart()
                elif part.etag is not None and opened.etag not in (part.etag, None):
                    raise WrongBytes("it was changed meanwhile, and the server does not say so")
                if opened.total not in (artifact.size, None):
                    raise WrongBytes(
                        f"has {opened.total} bytes there, not the {artifact.size} that the manifest declares"
                    )
                part.keep_etag(opened.etag)
                while chunk := opened.stream.read(CHUNK_BYTES):
                    if part.write(chunk) and self._free_bytes(self._directory) < RESERVE_BYTES:
                        raise OSError(errno.ENOSPC, f"less than {_mb(RESERVE_BYTES)} MB are free")
                    self._went_well()
                    self._say(artifact.name, part)
                    self._patience.pace(len(chunk))
            if part.offset < artifact.size:
                raise MayPass("unreachable", f"{artifact.name}: the connection ended early")
        part.check()

    def _read(self, name: str, limit_bytes: int) -> bytes:
        """All of a small file."""

        def read() -> bytes:
            data = b""
            with closing(self._session.fetch(self._path, name).stream) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    data += chunk
                    if len(data) > limit_bytes:
                        raise DownloadError(
                            "too_large",
                            f"{self._path}/{name}: is over the limit of {limit_bytes} bytes; it is no bundle",
                        )
                    self._went_well()
                    self._patience.pace(len(chunk))
            return data

        return self._persist(read)

    def _persist(self, attempt: Callable[[], T]) -> T:
        """What *attempt* returns, made again after trouble that may pass, as long as there is time."""
        delay_s = 0.0
        while True:
            try:
                self._patience.pause(delay_s)
                return attempt()
            except MayPass as error:
                self._trouble, delay_s = error, self._backoff.next_s()
                if delay_s >= self._patience.left_s():
                    raise self._given_up(error) from error
                self._said_ns = 0
                self._say(f"{error}; trying again in {delay_s:.0f} s")
            except DownloadError as error:
                if error.code != "timed_out" or self._trouble is None:
                    raise
                raise self._given_up(self._trouble) from error

    def _went_well(self) -> None:
        self._backoff.reset()
        self._trouble = None

    def _given_up(self, trouble: MayPass) -> DownloadError:
        return DownloadError(
            trouble.code,
            f"{trouble}, and it stayed so until the {self._limits.total_s:.0f} s that a download may take were over; "
            "check the network and the server, and send the command again to go on from here",
        )

    def _say(self, text: str, part: Part | None = None) -> None:
        now_ns = monotonic_ns()
        if now_ns - self._said_ns >= _SAY_EVERY_NS:
            self._said_ns = now_ns
            arrived = self._done_bytes + (part.offset if part is not None else 0)
            self._tell(arrived / self._total_bytes if self._total_bytes else 0.0, text)


def _mb(count_bytes: int) -> str:
    return f"{count_bytes / 1e6:.1f}"
