"""The models of this device on disk: releases, the engines built from them, what was decided, and which one serves.

    models.db                    what is true: SQLite, every commit survives a power cut
    blobs/sha256/<hex>           0400, by content
    releases/<seq>-<sha12>/      a bundle's files, hard links to blobs
    engines/<fingerprint>/       built here for exactly this device; see fingerprint.py

Files come before the rows that name them and go after them: a row is never about something half-written, and a file
without a row is rubbish, which `collect_garbage` sweeps up.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
import sqlite3
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Collection, Iterator, Mapping

from defectd.clock import utc_now
from defectd.errors import ModelError, StateError
from defectd.models.blobs import NO_FILE, TEMPORARY, Blobs, read_bounded, sha256_of, sync_file, write_new
from defectd.models.bundle import Bundle
from defectd.models.catalog import LOCK_WITHIN_S, RELEASES, CachedEngine, Catalog, Pointer, Release, explained
from defectd.models.envelope import PAYLOAD_MANIFEST, max_envelope_bytes
from defectd.models.manifest import ENVELOPE, MANIFEST, MAX_MANIFEST_BYTES
from defectd.storage import sync_directory

__all__ = ["CachedEngine", "Pointer", "Release", "Store"]

log = logging.getLogger(__name__)

_SPARE_BYTES = 4 << 20  # for the database, the manifest and the directories
_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")


class Store(Catalog):
    """Used by one thread at a time, by any number of processes. Every method may raise StateError: no space, no
    permission, a damaged database; nothing has changed then."""

    def __init__(self, directory: Path) -> None:
        """Open it, or create it."""
        with explained(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for each in (directory / "blobs", directory / "blobs/sha256", directory / RELEASES, directory / "engines"):
                each.mkdir(mode=0o700, exist_ok=True)
            for each in (directory.parent, directory / "blobs"):
                sync_directory(each)
        super().__init__(directory)
        self._blobs = Blobs(directory / "blobs/sha256")
        self._releases, self._engines = directory / RELEASES, directory / "engines"

    def import_bundle(self, bundle: Bundle, pointer: Pointer | None = None) -> Release:
        """Take a verified *bundle* in, and let *pointer* name it from then on. On return it survives a power cut;
        importing it again repairs what was damaged. Raises ModelError if its files changed after they were verified.
        """
        manifest = bundle.manifest
        name = f"{manifest.release_seq}-{bundle.manifest_sha256[:12]}"
        release = Release(
            bundle.manifest_sha256, manifest.name, manifest.version, manifest.release_seq, self._releases / name,
            utc_now().isoformat(timespec="seconds"),
        )  # fmt: skip
        with self._explained(), self._alone():
            try:
                self._check_space({artifact.sha256: artifact.size for artifact in manifest.artifacts})
                for artifact in manifest.artifacts:
                    self._blobs.put(bundle.directory / artifact.name, artifact.sha256, artifact.size)
                self._lay_out(bundle, release.directory)
                with self._transaction():
                    self._insert_release(release, {one.name: one.sha256 for one in manifest.artifacts})
                    if pointer is not None:
                        self._point(pointer, release.manifest_sha256)
            except BaseException:
                with suppress(OSError, sqlite3.Error):
                    self._sweep()
                raise
        return self.release(bundle.manifest_sha256) or release

    def engine_cache(self, fingerprint: str, artifact_sha256: str) -> Path:
        """The directory for what is built from that artifact on a device like this one; made if need be."""
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise ValueError(f"no fingerprint: {fingerprint!r}")
        directory = self._engines / fingerprint
        with self._explained(), self._alone():
            directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._engines)
            with self._transaction():
                self._db.execute(
                    "INSERT OR IGNORE INTO engines VALUES (?, ?, NULL, NULL, NULL, ?)",
                    (fingerprint, artifact_sha256, utc_now().isoformat(timespec="seconds")),
                )
        return directory

    def engine(self, fingerprint: str) -> CachedEngine | None:
        """The engine that was built, hashed anew. If it is not what was recorded, it is deleted: build it again."""
        rows = self._rows(
            "SELECT file, sha256, size FROM engines WHERE fingerprint = ? AND file IS NOT NULL", fingerprint
        )
        if not rows:
            return None
        file, sha256, size = rows[0]
        path = self._engines / fingerprint / file
        with self._explained():
            try:
                found = sha256_of(path)
            except OSError as error:
                if error.errno not in NO_FILE:
                    raise
                found = "no such file"
            if found == sha256:
                return CachedEngine(path, sha256, size)
            log.error("%s: expected sha256 %s, found %s; it is deleted, and must be built again", path, sha256, found)
            with self._transaction():
                forget = "UPDATE engines SET file = NULL, sha256 = NULL, size = NULL WHERE fingerprint = ?"
                self._db.execute(forget, (fingerprint,))
            with suppress(FileNotFoundError):
                path.unlink()
        return None

    def record_engine(self, fingerprint: str, file: str, sha256: str) -> CachedEngine:
        """Own what a builder has left as *file* in `engine_cache` and says to be *sha256*. On return it survives a
        power cut. Raises ModelError if that file is another one."""
        path = self._engines / fingerprint / file
        with self._explained():
            found, size = sha256_of(path), path.stat().st_size
            if found != sha256:
                raise ModelError(f"{path}: has sha256 {found}, its builder says {sha256}: something else wrote it")
            path.chmod(0o400)
            sync_file(path)
            sync_directory(path.parent)
            with self._transaction():
                keep = "UPDATE engines SET file = ?, sha256 = ?, size = ? WHERE fingerprint = ?"
                if self._db.execute(keep, (file, sha256, size, fingerprint)).rowcount != 1:
                    raise ModelError(f"{path}: belongs to no engine cache of this store; ask for one first")
        return CachedEngine(path, sha256, size)

    def timing_cache(self, fingerprint: str) -> Path:
        """Where TensorRT keeps how fast its kernels are on a device like this one, for all models. Such files of
        another fingerprint, that is, of another version, are deleted."""
        directory = self.directory / "timing"
        with self._explained(), self._alone():
            directory.mkdir(mode=0o700, exist_ok=True)
            for old in directory.iterdir():
                if old.stem != fingerprint:
                    old.unlink()
        return directory / f"{fingerprint}.cache"

    def collect_garbage(self, live_engines: Collection[str] | None = None) -> int:
        """Delete what no pointer needs: releases, blobs, engines, decisions, and what a crash has left behind.

        Engines of releases that stay are kept; if *live_engines* (fingerprints) is given, only those among them.
        How many bytes came free. Do not call it while an engine is being built.
        """
        with self._explained(), self._alone():
            with self._transaction():
                self._db.execute(
                    "DELETE FROM releases WHERE manifest_sha256 NOT IN (SELECT manifest_sha256 FROM pointers)"
                )
                for table in ("accepted", "decisions"):
                    self._db.execute(
                        f"DELETE FROM {table} WHERE manifest_sha256 NOT IN"  # noqa: S608 - constants
                        " (SELECT manifest_sha256 FROM releases)"
                    )
                self._db.execute("DELETE FROM engines WHERE artifact_sha256 NOT IN (SELECT sha256 FROM artifacts)")
                if live_engines is not None:
                    for fingerprint in self._column("SELECT fingerprint FROM engines") - set(live_engines):
                        self._db.execute("DELETE FROM engines WHERE fingerprint = ?", (fingerprint,))
            return self._sweep()

    def _check_space(self, wanted: dict[str, int]) -> None:
        missing = self._blobs.missing_bytes(wanted)
        if not missing:
            return  # all of it is here: a restart with a full disk must not fail for the room to copy it
        needed = missing + _SPARE_BYTES
        file_system = os.statvfs(self.directory)
        free = file_system.f_bavail * file_system.f_frsize
        if free < needed:
            raise StateError(
                f"{self.directory}: {free / 1e6:.1f} MB are free, this bundle needs {needed / 1e6:.1f} MB; "
                "free some space on that disk"
            )

    def _lay_out(self, bundle: Bundle, target: Path) -> None:
        """The bundle's files under *target*: all at once if it is new, one by one if it was there before."""
        manifest = read_bounded(bundle.directory / MANIFEST, MAX_MANIFEST_BYTES)
        if hashlib.sha256(manifest).hexdigest() != bundle.manifest_sha256:
            raise ModelError(f"{bundle.directory / MANIFEST}: has changed since it was verified; copy it again")
        texts = {MANIFEST: manifest}
        with suppress(FileNotFoundError):
            texts[ENVELOPE] = read_bounded(bundle.directory / ENVELOPE, max_envelope_bytes(PAYLOAD_MANIFEST))
        known = self.release(bundle.manifest_sha256) is not None and target.is_dir()
        directory = target if known else target.with_name(target.name + TEMPORARY)
        if not known:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700)
        for name, text in texts.items():
            temporary = self._releases / f"{target.name}.{name}{TEMPORARY}"  # a release holds nothing but its files
            with suppress(FileNotFoundError):
                temporary.unlink()
            write_new(temporary, text)
            temporary.replace(directory / name)
        for artifact in bundle.manifest.artifacts:
            self._blobs.place(artifact.sha256, directory / artifact.name)
        sync_directory(directory)
        if not known:
            if target.exists():  # without a row: a crash left it, or the database was lost
                shutil.rmtree(target)
            directory.replace(target)
            sync_directory(self._releases)

    def _insert_release(self, release: Release, artifacts: Mapping[str, str]) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO releases VALUES (?, ?, ?, ?, ?, ?)",
            (
                release.manifest_sha256, release.name, release.version, release.release_seq, release.directory.name,
                release.imported_at,
            ),
        )  # fmt: skip
        self._db.executemany(
            "INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?)",
            [(release.manifest_sha256, name, sha256) for name, sha256 in artifacts.items()],
        )

    def _sweep(self) -> int:
        """Delete files that no row names; how many bytes they had. Nobody else may be writing."""
        wanted = {
            self._releases: self._column("SELECT directory FROM releases"),  # before blobs: theirs is the last name
            self._blobs.directory: self._column("SELECT sha256 FROM artifacts"),
            self._engines: self._column("SELECT fingerprint FROM engines"),
        }
        freed = 0
        for directory, names in wanted.items():
            for entry in list(directory.iterdir()):
                if entry.name not in names:
                    freed += _delete(entry)
            sync_directory(directory)
        return freed

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While files change, no other process changes any."""
        descriptor = os.open(self.directory / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            give_up_s = time.monotonic() + LOCK_WITHIN_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > give_up_s:
                        raise StateError(
                            f"{self.directory}: another process is changing it for more than {LOCK_WITHIN_S:.0f} s; "
                            "try again later"
                        ) from error
                time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)


def _delete(entry: Path) -> int:
    """How many bytes it had; hard links that stay elsewhere are counted with the blob, not here."""
    if entry.is_dir() and not entry.is_symlink():
        size = sum(path.lstat().st_size for path in entry.rglob("*") if path.lstat().st_nlink == 1)
        shutil.rmtree(entry)
        return size
    size = entry.lstat().st_size
    entry.unlink()
    return size
