"""The rows of the outbox: its tables, what goes into them, and how the publishing thread reads them."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from defectd.messaging.gaps import NEVER, Reason, Run, coalesced

SCHEMA_VERSION = 1
ROW_OVERHEAD_BYTES = 256  # around a payload in SQLite: 160 measured, the rest for the write-ahead log
PURGE_CHUNK_ROWS = 2000
PENDING, DELIVERED, DEAD = 0, 1, 2

# Payloads lie in a table of their own, so that acknowledging and dropping touch only small pages: less wear on
# flash, and no need to read what is thrown away.
SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE streams (stream TEXT PRIMARY KEY, next_seq INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE positions (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE events (row_id INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL,"
    " event_id TEXT NOT NULL, rank INTEGER NOT NULL, verdict TEXT, bytes INTEGER NOT NULL,"
    " created_ns INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0, settled_ns INTEGER, reason TEXT)",
    "CREATE INDEX pending ON events (rank, row_id) WHERE state = 0",
    "CREATE TABLE payloads (row_id INTEGER PRIMARY KEY, payload BLOB NOT NULL)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
# One seek per rank, instead of a walk over all that was delivered and is kept for replay.
_FIRST_OF_RANKS = " UNION ALL ".join(
    f"SELECT min(row_id) AS first FROM events WHERE state = 0 AND rank = {each}"  # noqa: S608 - constants
    for each in range(NEVER + 1)
)
FIRST_PENDING = f"SELECT min(first) FROM ({_FIRST_OF_RANKS})"  # noqa: S608 - constants


@dataclass(frozen=True)
class Entry:
    """An event with its place in the stream, as it goes to disk. `created_ns` is of the wall clock."""

    stream: str
    seq: int
    event_id: str
    rank: int
    verdict: str | None
    created_ns: int
    payload: bytes

    @property
    def bytes(self) -> int:
        """What it counts towards the bound."""
        return len(self.payload) + ROW_OVERHEAD_BYTES


@dataclass(frozen=True)
class StoredRow:
    """An event on disk that the broker has not acknowledged yet."""

    row_id: int
    stream: str
    seq: int
    event_id: str
    payload: bytes


@dataclass
class Batch:
    """What one transaction writes: all of it, or nothing."""

    entries: list[Entry] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    acked: list[int] = field(default_factory=list)
    dead: list[tuple[int, Reason]] = field(default_factory=list)
    lost: dict[tuple[str, Reason], list[Run]] = field(default_factory=lambda: defaultdict(list))

    def __bool__(self) -> bool:
        return bool(self.entries or self.positions or self.acked or self.dead or self.lost)

    def lose(self, indices: set[int], reason: Reason) -> None:
        """Take the entries at *indices* out, and remember them as lost."""
        for index in sorted(indices):
            entry = self.entries[index]
            self.lost[entry.stream, reason].append(Run(entry.seq, entry.seq, entry.verdict))
        for key, runs in self.lost.items():
            self.lost[key] = coalesced(runs)
        self.entries = [entry for index, entry in enumerate(self.entries) if index not in indices]


@dataclass
class Totals:
    """Counters that would be slow to ask SQLite for each time."""

    bytes: int = 0
    pending: int = 0
    delivered: int = 0
    dead: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class OutboxDepth:
    """How full the outbox is. `queued` are in memory, not on disk yet; `dropped` counts since its creation."""

    pending: int
    oldest_s: float
    bytes: int
    dead_letters: int
    dropped: int
    queued: int


class Reader:
    """A second connection, for the thread that publishes: it does not wait for commits."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(str(path), timeout=1.0, isolation_level=None, check_same_thread=False)

    def fetch(self, after_row_id: int, limit: int) -> list[StoredRow]:
        """Committed events that are not settled, in order of acceptance."""
        first = self._db.execute(FIRST_PENDING).fetchone()[0]
        if first is None:
            return []
        rows = self._db.execute(
            "SELECT row_id, stream, seq, event_id, payload FROM events NOT INDEXED JOIN payloads USING (row_id)"
            " WHERE state = 0 AND row_id >= ? ORDER BY row_id LIMIT ?",
            (max(first, after_row_id + 1), limit),
        )
        return [StoredRow(*row) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        self._db.close()
