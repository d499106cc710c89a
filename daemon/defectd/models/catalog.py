"""What the store knows: its database, of which every commit survives a power cut. No other file is touched here."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterator, Literal, Mapping, NamedTuple, Sequence

from defectd.clock import utc_now
from defectd.errors import ModelError, StateError
from defectd.storage import sync_directory

_DAMAGED = ("malformed", "not a database", "no such table", "no such column")
LOCK_WITHIN_S = 10.0
RELEASES = "releases"


class DamagedStore(StateError):
    """Its database cannot be read any more: put the directory aside, and begin anew."""


Pointer = Literal["current", "previous", "candidate", "factory"]
"""A release that something depends on; garbage collection never touches it."""
POINTERS: tuple[Pointer, ...] = ("current", "previous", "candidate", "factory")

_MODELS = (
    """CREATE TABLE releases (
        manifest_sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, release_seq INTEGER NOT NULL,
        directory TEXT NOT NULL UNIQUE, imported_at TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE artifacts (
        manifest_sha256 TEXT NOT NULL REFERENCES releases ON DELETE CASCADE, name TEXT NOT NULL, sha256 TEXT NOT NULL,
        PRIMARY KEY (manifest_sha256, name)) WITHOUT ROWID""",
    """CREATE TABLE pointers (
        name TEXT PRIMARY KEY, manifest_sha256 TEXT NOT NULL REFERENCES releases ON DELETE RESTRICT) WITHOUT ROWID""",
    """CREATE TABLE accepted (
        manifest_sha256 TEXT PRIMARY KEY, signed_by TEXT NOT NULL, accepted_at TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE decisions (
        manifest_sha256 TEXT NOT NULL, fingerprint TEXT NOT NULL, decision TEXT NOT NULL, decided_at TEXT NOT NULL,
        PRIMARY KEY (manifest_sha256, fingerprint)) WITHOUT ROWID""",
    """CREATE TABLE engines (
        fingerprint TEXT PRIMARY KEY, artifact_sha256 TEXT NOT NULL, file TEXT, sha256 TEXT, size INTEGER,
        created_at TEXT NOT NULL) WITHOUT ROWID""",
)
_ROLLOUTS = (
    """CREATE TABLE rollouts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT NOT NULL UNIQUE, seq INTEGER NOT NULL,
        action TEXT NOT NULL, manifest_sha256 TEXT, release_seq INTEGER, state TEXT NOT NULL,
        attempts INTEGER NOT NULL, transitions INTEGER NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL,
        gates TEXT NOT NULL, command BLOB NOT NULL, command_sha256 TEXT NOT NULL, received_at TEXT NOT NULL,
        changed_at TEXT NOT NULL, ended INTEGER NOT NULL)""",
    "CREATE UNIQUE INDEX one_active_rollout ON rollouts (ended) WHERE ended = 0",
    """CREATE TABLE rollout_steps (
        request_id TEXT NOT NULL REFERENCES rollouts (request_id) ON DELETE CASCADE, step INTEGER NOT NULL,
        from_state TEXT, state TEXT NOT NULL, attempts INTEGER NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL,
        at TEXT NOT NULL, PRIMARY KEY (request_id, step)) WITHOUT ROWID""",
    """CREATE TABLE words (
        id INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL,
        refusal TEXT, detail TEXT NOT NULL)""",
    "CREATE TABLE floors (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE quarantine (
        manifest_sha256 TEXT PRIMARY KEY, code TEXT NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE starts (
        id INTEGER PRIMARY KEY CHECK (id = 1), manifest_sha256 TEXT, bad INTEGER NOT NULL, last_at INTEGER NOT NULL,
        clean INTEGER NOT NULL)""",
)
SCHEMA: Mapping[int, Sequence[str]] = {1: _MODELS, 2: _ROLLOUTS}
"""Version of the format -> what makes it of the one before. A new database goes through all of them."""
SCHEMA_VERSION = max(SCHEMA)
TABLES = (
    "releases", "artifacts", "pointers", "accepted", "decisions", "engines",
    "rollouts", "rollout_steps", "words", "floors", "quarantine", "starts",
)  # fmt: skip


class Change(NamedTuple):
    """What can be done in one transaction: any statement, and to set or clear a pointer."""

    execute: Callable[..., sqlite3.Cursor]
    point: Callable[[Pointer, str | None], None]


@dataclass(frozen=True)
class Release:
    """A bundle in the store; `directory` is laid out like one and can be opened like one."""

    manifest_sha256: str
    name: str
    version: str
    release_seq: int
    directory: Path
    imported_at: str


@dataclass(frozen=True)
class CachedEngine:
    """What was built on this device; `sha256` is that of the file as it was found just now."""

    path: Path
    sha256: str
    size: int


class Catalog:
    """What is known of the models in *directory*; the files themselves are the store's."""

    def __init__(self, directory: Path) -> None:
        """Open the database in *directory*, which must exist, or create it."""
        self.directory, self._database = directory, directory / "models.db"
        with self._explained():
            self._db = sqlite3.connect(
                str(self._database), timeout=LOCK_WITHIN_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the database; the write-ahead log is folded into it."""
        self._db.close()

    def release(self, manifest_sha256: str) -> Release | None:
        """The release with that manifest. Its files are as they were imported; verify them before you serve them."""
        rows = self._rows("SELECT * FROM releases WHERE manifest_sha256 = ?", manifest_sha256)
        return self._release_of(rows[0]) if rows else None

    def releases(self) -> list[Release]:
        """All of them, the newest first."""
        query = "SELECT * FROM releases ORDER BY release_seq DESC, imported_at DESC"
        return [self._release_of(row) for row in self._rows(query)]

    def pointers(self) -> dict[Pointer, str]:
        """Pointer -> sha256 of the manifest, of those that are set."""
        found = dict(self._rows("SELECT name, manifest_sha256 FROM pointers"))
        return {name: found[name] for name in POINTERS if name in found}

    def set_pointers(self, changes: Mapping[Pointer, str | None]) -> None:
        """Set or clear all of *changes* at once. Raises ModelError for a release that is not in the store."""
        with self._explained(), self._transaction():
            for name, manifest_sha256 in changes.items():
                self._point(name, manifest_sha256)

    def accept(self, manifest_sha256: str, signed_by: Sequence[str]) -> None:
        """Note that the signatures of these keys were valid just now: they need not be so for ever."""
        self._write(
            "INSERT OR REPLACE INTO accepted VALUES (?, ?, ?)",
            manifest_sha256, json.dumps(list(signed_by)), utc_now().isoformat(timespec="seconds"),
        )  # fmt: skip

    def accepted(self, manifest_sha256: str) -> tuple[str, ...] | None:
        """The keys that had signed it when it was accepted; None if it never was."""
        rows = self._rows("SELECT signed_by FROM accepted WHERE manifest_sha256 = ?", manifest_sha256)
        return tuple(json.loads(rows[0][0])) if rows else None

    def decision(self, manifest_sha256: str, fingerprint: str) -> dict[str, Any] | None:
        """What was decided for that manifest on a device of that fingerprint."""
        rows = self._rows(
            "SELECT decision FROM decisions WHERE manifest_sha256 = ? AND fingerprint = ?", manifest_sha256, fingerprint
        )
        return dict(json.loads(rows[0][0])) if rows else None

    def record_decision(self, manifest_sha256: str, fingerprint: str, decision: Mapping[str, Any]) -> None:
        """Keep it, instead of an earlier one."""
        self._write(
            "INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?)",
            manifest_sha256, fingerprint, json.dumps(decision), utc_now().isoformat(timespec="seconds"),
        )  # fmt: skip

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What *query* finds, for those who keep tables of their own here."""
        return self._rows(query, *parameters)

    @contextmanager
    def transaction(self) -> Iterator[Change]:
        """All of it, or, if anything is raised, nothing; on return it survives a power cut. Not to be nested."""
        with self._explained(), self._transaction():
            yield Change(self._db.execute, self._point)

    def _prepare(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"malformed: {' '.join(str(verdict).split())}")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StateError(
                f"{self._database} was written by a newer defectd (format {version}, this one knows {SCHEMA_VERSION}): "
                f"install that version again, or move {self.directory} away to begin anew"
            )
        if version < SCHEMA_VERSION:
            with self._transaction():
                version = self._db.execute("PRAGMA user_version").fetchone()[0]  # somebody else may have done it
                for step in range(version + 1, SCHEMA_VERSION + 1):
                    for statement in SCHEMA[step]:
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {max(version, SCHEMA_VERSION)}")
            sync_directory(self.directory)
        for table in TABLES:
            self._db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608 - constants

    def _point(self, name: Pointer, manifest_sha256: str | None) -> None:
        if name not in POINTERS:
            raise ValueError(f"no pointer: {name!r}")
        if manifest_sha256 is None:
            self._db.execute("DELETE FROM pointers WHERE name = ?", (name,))
            return
        try:
            self._db.execute("INSERT OR REPLACE INTO pointers VALUES (?, ?)", (name, manifest_sha256))
        except sqlite3.IntegrityError as error:
            raise ModelError(f"{name}: the release {manifest_sha256} is not in {self.directory}; import it") from error

    def _release_of(self, row: tuple[Any, ...]) -> Release:
        return Release(row[0], row[1], row[2], row[3], self.directory / RELEASES / row[4], row[5])

    def _rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._db.execute(query, parameters).fetchall()

    def _column(self, query: str) -> set[str]:
        return {row[0] for row in self._db.execute(query)}

    def _write(self, statement: str, *parameters: object) -> None:
        with self._explained(), self._transaction():
            self._db.execute(statement, parameters)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _explained(self) -> ContextManager[None]:
        return explained(self.directory)


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """What the disk or SQLite raises, as a StateError with its remedy."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        kind = DamagedStore if any(sign in str(error) for sign in _DAMAGED) else StateError
        raise kind(f"cannot use {directory}: {error}; {_remedy(directory, error)}") from error


def _remedy(directory: Path, error: Exception) -> str:
    text = str(error)
    if getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) or "is full" in text:
        return "free some space on that disk"
    if "locked" in text:
        return "another process uses it: is a second defectd running?"
    if any(sign in text for sign in _DAMAGED):
        return (
            f"its database is damaged: stop defectd, move {directory} away, start it again, and import the bundles "
            f"again (they are still in {RELEASES}/ of the directory that you moved)"
        )
    return f"it must be a directory that user id {os.getuid()} may write to"
