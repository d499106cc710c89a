"""The outbox on disk: SQLite transactions, without threads."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
import uuid
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, ContextManager, Iterable, Sequence

from defectd.clock import utc_now
from defectd.errors import StateError
from defectd.inspection.events import GapEvent
from defectd.messaging.gaps import NEVER, Hole, Reason, Run, rank, spread
from defectd.messaging.rows import (
    DEAD,
    DELIVERED,
    FIRST_PENDING,
    PENDING,
    PURGE_CHUNK_ROWS,
    ROW_OVERHEAD_BYTES,
    SCHEMA,
    SCHEMA_VERSION,
    Batch,
    Entry,
    Totals,
)
from defectd.storage import sync_directory

FIRST_SEQ = 1


@dataclass
class _ToldHole:
    """A gap event that no one has seen yet: it may still be rewritten to tell more."""

    row_id: int
    hole: Hole
    event: GapEvent
    bytes: int


def is_corrupt(error: sqlite3.Error) -> bool:
    """True if the file is damaged, as opposed to the disk being full or away."""
    return any(text in str(error) for text in ("malformed", "not a database", "no such table", "no such column"))


def is_full(error: sqlite3.Error) -> bool:
    """True if there is no space left."""
    return "is full" in str(error)


class Ledger:
    """The tables of one outbox. Used by one thread at a time; every method may raise `sqlite3.Error`."""

    def __init__(self, path: Path, *, station: str, boot_id: str, max_bytes: int, first_row_id: int = 1) -> None:
        """Open or create the file; a `StateError` if it belongs to a newer version."""
        self._station, self._boot_id, self._max_bytes = station, boot_id, max_bytes
        self._db = sqlite3.connect(str(path), timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", f"journal_size_limit = {16 << 20}"):
                self._db.execute(f"PRAGMA {pragma}")
            self._create_if_new(path)
            self.epoch: str = self._db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
            self.next_seq: dict[str, int] = dict(self._db.execute("SELECT stream, next_seq FROM streams"))
            self.positions: dict[str, int] = dict(self._db.execute("SELECT name, value FROM positions"))
            self.totals = self._count()
            newest = self._db.execute("SELECT max(row_id) FROM events").fetchone()[0] or 0
            self._save_heads({})  # a place that cannot be written is found at start, not at the first event
        except BaseException:
            self._db.close()
            raise
        self.next_row_id = max(newest + 1, first_row_id)
        self._told: dict[tuple[str, Reason], list[_ToldHole]] = defaultdict(list)

    def commit(self, batch: Batch, unseen_after: Callable[[], ContextManager[int]]) -> bool:
        """Write *batch* and make room for it; on return it survives a power cut.

        Gap events after the row *unseen_after* may be rewritten: no one has fetched them yet, nor may until its
        end. It is asked only if something is lost. True if there are new rows. If it raises, nothing has changed.
        """
        before = (dict(self.next_seq), self.next_row_id, Totals(**vars(self.totals)), dict(self._told))
        with ExitStack() as until_written:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._insert(batch.entries)
                self._settle(batch.acked, DELIVERED)
                lost = defaultdict(list, {key: list(runs) for key, runs in batch.lost.items()})
                self._bury(batch.dead, lost)
                self._make_room(lost)
                if lost:
                    self._tell(lost, until_written.enter_context(unseen_after()))
                self._save_heads(batch.positions)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self.next_seq, self.next_row_id, self.totals = before[:3]
                self._told = defaultdict(list, before[3])
                raise
        self.positions.update(batch.positions)
        return self.next_row_id > before[1]

    def purge(self, settled_before_ns: int) -> bool:
        """Forget what was delivered or refused before *settled_before_ns* (wall clock); True if there is more."""
        return self._transaction_of_deletes(
            "SELECT row_id, bytes, state FROM events WHERE state <> 0 AND settled_ns < ? ORDER BY row_id LIMIT ?",
            (settled_before_ns, PURGE_CHUNK_ROWS),
        )

    def shed_history(self) -> None:
        """Forget the oldest delivered rows, so that a full disk may have pages to use again."""
        self._transaction_of_deletes(
            "SELECT row_id, bytes, state FROM events WHERE state = ? ORDER BY row_id LIMIT ?",
            (DELIVERED, PURGE_CHUNK_ROWS),
        )

    def oldest_pending_ns(self) -> int | None:
        """When the oldest event that is still to be delivered was accepted (wall clock)."""
        row = self._db.execute(
            f"SELECT created_ns FROM events WHERE row_id = ({FIRST_PENDING})"  # noqa: S608 - a constant
        ).fetchone()
        return None if row is None else int(row[0])

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        self._db.close()

    def _create_if_new(self, path: Path) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StateError(
                f"{path} was written by a newer defectd (format {version}, this one knows {SCHEMA_VERSION}): "
                "install that version again, or move the file away to begin anew"
            )
        if version == 0:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA:
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES ('epoch', ?)", (str(uuid.uuid4()),))
            self._db.execute("COMMIT")
            sync_directory(path.parent)

    def _count(self) -> Totals:
        totals = Totals()
        query = "SELECT state, count(*), sum(bytes) FROM events GROUP BY state"
        counts = {state: (count, size) for state, count, size in self._db.execute(query)}
        totals.pending, totals.delivered, totals.dead = (
            counts.get(state, (0, 0))[0] for state in (PENDING, DELIVERED, DEAD)
        )
        totals.bytes = sum(size for _, size in counts.values())
        dropped = self._db.execute("SELECT value FROM meta WHERE key = 'dropped'").fetchone()
        totals.dropped = int(dropped[0]) if dropped else 0
        return totals

    def _insert(self, entries: Sequence[Entry]) -> None:
        first = self.next_row_id
        self._db.executemany(
            "INSERT INTO events (row_id, stream, seq, event_id, rank, verdict, bytes, created_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (row_id, e.stream, e.seq, e.event_id, e.rank, e.verdict, e.bytes, e.created_ns)
                for row_id, e in enumerate(entries, first)
            ),
        )
        self._db.executemany(
            "INSERT INTO payloads VALUES (?, ?)", ((row_id, e.payload) for row_id, e in enumerate(entries, first))
        )
        self.next_row_id += len(entries)
        self.totals.pending += len(entries)
        self.totals.bytes += sum(entry.bytes for entry in entries)

    def _settle(self, row_ids: Iterable[int], state: int, reason: Reason | None = None) -> None:
        changed = self._db.executemany(
            "UPDATE events SET state = ?, settled_ns = ?, reason = ? WHERE row_id = ? AND state = 0",
            [(state, time.time_ns(), reason, row_id) for row_id in row_ids],
        ).rowcount
        changed = max(changed, 0)
        self.totals.pending -= changed
        if state == DELIVERED:
            self.totals.delivered += changed
        else:
            self.totals.dead += changed

    def _bury(self, dead: Sequence[tuple[int, Reason]], lost: dict[tuple[str, Reason], list[Run]]) -> None:
        """Set aside what the broker refuses for good. A refused gap event is not told by another: it too would be."""
        for row_id, reason in dead:
            row = self._db.execute(
                "SELECT stream, seq, verdict, rank FROM events WHERE row_id = ? AND state = 0", (row_id,)
            ).fetchone()
            self._settle([row_id], DEAD, reason)
            if row is not None and row[3] < NEVER:
                lost[row[0], reason].append(Run(row[1], row[1], row[2]))

    def _make_room(self, lost: dict[tuple[str, Reason], list[Run]]) -> None:
        """Get below the bound by at least 1 %, so that dropping happens in batches: history, then by rank."""
        if self.totals.bytes <= self._max_bytes:
            return
        target = self._max_bytes - self._max_bytes // 100
        for state, kept in ((DELIVERED, self.totals.delivered), (DEAD, self.totals.dead)):
            if kept:
                self._delete_oldest(f"state = {state}", target, lost)
        for each in range(NEVER):
            self._delete_oldest(f"state = 0 AND rank = {each}", target, lost)

    def _delete_oldest(self, which: str, target: int, lost: dict[tuple[str, Reason], list[Run]]) -> None:
        query = (
            f"SELECT row_id, bytes, state, stream, seq, verdict FROM events WHERE {which}"  # noqa: S608
            f" ORDER BY row_id LIMIT {PURGE_CHUNK_ROWS}"
        )
        while self.totals.bytes > target:
            doomed, size = [], 0
            for row in self._db.execute(query):
                doomed.append(row)
                size += row[1]
                if self.totals.bytes - size <= target:
                    break
            if not doomed:
                return
            for _, _, state, stream, seq, verdict in doomed:
                if state == PENDING:
                    lost[stream, "outbox_full"].append(Run(seq, seq, verdict))
            self._delete([row[:3] for row in doomed])

    def _delete(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """Delete *rows* of (row_id, bytes, state) and count them off."""
        ids = [(row[0],) for row in rows]
        self._db.executemany("DELETE FROM events WHERE row_id = ?", ids)
        self._db.executemany("DELETE FROM payloads WHERE row_id = ?", ids)
        self.totals.bytes -= sum(row[1] for row in rows)
        self.totals.pending -= sum(row[2] == PENDING for row in rows)
        self.totals.delivered -= sum(row[2] == DELIVERED for row in rows)
        self.totals.dead -= sum(row[2] == DEAD for row in rows)

    def _transaction_of_deletes(self, query: str, parameters: tuple[int, int]) -> bool:
        before = Totals(**vars(self.totals))
        rows = self._db.execute(query, parameters).fetchall()
        if not rows:
            return False
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._delete(rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self.totals = before
            raise
        return len(rows) >= PURGE_CHUNK_ROWS

    def _tell(self, lost: dict[tuple[str, Reason], list[Run]], seen_row_id: int) -> None:
        """Explain *lost* by gap events: unseen ones are rewritten, new ones added."""
        for (stream, reason), runs in lost.items():
            unseen = [told for told in self._told[stream, reason] if told.row_id > seen_row_id]
            grown, new = spread(runs, [told.hole for told in unseen])
            told_now = [self._rewrite(told, hole) for told, hole in zip(unseen, grown)]
            told_now += [self._tell_new(Hole(stream, reason, tuple(part))) for part in new]
            self._told[stream, reason] = told_now
            if reason in ("outbox_full", "disk_full"):
                self.totals.dropped += sum(run.last - run.first + 1 for run in runs)

    def _tell_new(self, hole: Hole) -> _ToldHole:
        seq = self.next_seq.get(GapEvent.stream, FIRST_SEQ)
        self.next_seq[GapEvent.stream] = seq + 1
        event = GapEvent(
            station=self._station, boot_id=self._boot_id, created_at=utc_now(), epoch=self.epoch, seq=seq,
            **_gap_fields(hole),
        )  # fmt: skip
        payload = event.to_json()
        entry = Entry(GapEvent.stream, seq, event.id, rank(event), None, time.time_ns(), payload)
        row_id = self.next_row_id
        self._insert([entry])
        return _ToldHole(row_id, hole, event, entry.bytes)

    def _rewrite(self, told: _ToldHole, hole: Hole) -> _ToldHole:
        if hole is told.hole:
            return told
        event = told.event.model_copy(update=_gap_fields(hole))
        payload = event.to_json()
        size = len(payload) + ROW_OVERHEAD_BYTES
        self._db.execute("UPDATE payloads SET payload = ? WHERE row_id = ?", (payload, told.row_id))
        self._db.execute("UPDATE events SET bytes = ? WHERE row_id = ?", (size, told.row_id))
        self.totals.bytes += size - told.bytes
        return _ToldHole(told.row_id, hole, event, size)

    def _save_heads(self, positions: dict[str, int]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?)", self.next_seq.items())
        self._db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", positions.items())
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('dropped', ?)", (str(self.totals.dropped),))


def open_ledger(path: Path, *, station: str, boot_id: str, max_bytes: int, first_row_id: int = 1) -> tuple[Ledger, str]:
    """The ledger at *path*, and what was wrong with its predecessor ("" if nothing).

    A damaged file is moved aside and a new one begun. `StateError` if there can be none.
    """

    def attempt() -> Ledger:
        return Ledger(path, station=station, boot_id=boot_id, max_bytes=max_bytes, first_row_id=first_row_id)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return attempt(), ""
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            aside = set_aside(path)
            return attempt(), f"{path}: {error}; moved to {aside}, begun anew with another epoch"
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"cannot use {path}: {error}; {_remedy(path, error)}") from error


def set_aside(path: Path) -> Path:
    """Move a damaged file, with its write-ahead log, out of the way; only the newest such is kept."""
    for old in path.parent.glob(f"{path.stem}.corrupt-*"):
        old.unlink()
    aside = path.with_name(f"{path.stem}.corrupt-{utc_now():%Y%m%dT%H%M%SZ}")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    sync_directory(path.parent)
    return aside


def _remedy(path: Path, error: Exception) -> str:
    if "full" in str(error) or getattr(error, "errno", 0) == errno.ENOSPC:
        return f"free some space on the disk of {path.parent}"
    if "locked" in str(error):
        return "another process uses it: is a second defectd running?"
    return f"{path.parent} must be a directory that user id {os.getuid()} may write to"


def _gap_fields(hole: Hole) -> dict[str, object]:
    ranges = hole.ranges
    return {
        "of_stream": hole.of_stream,
        "from_seq": ranges[0][0],
        "to_seq": ranges[-1][1],
        "ranges": ranges,
        "lost": hole.lost,
        "lost_by_verdict": hole.lost_by_verdict,
        "reason": hole.reason,
    }
