"""The outbox: what was decided is on disk before it is published, and stays there until the broker has it.

Callers hand events over and never wait. One thread numbers them, writes them in groups, makes room, and keeps
them in bounded memory while the disk does not take them. Whatever had to be dropped is told by gap events.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

from defectd.clock import NS_PER_S, Backoff, monotonic_ns
from defectd.faults import Faults
from defectd.inspection.events import StoredEvent
from defectd.inspection.messages import STORED_EVENTS
from defectd.messaging.ballast import Ballast
from defectd.messaging.gaps import Reason, Run, rank, verdict_of, victims
from defectd.messaging.intake import Intake
from defectd.messaging.ledger import FIRST_SEQ, Ledger, is_corrupt, is_full, open_ledger, set_aside
from defectd.messaging.rows import Batch, Entry, OutboxDepth, Reader, StoredRow

log = logging.getLogger(__name__)

IDLE_S = 1.0
PURGE_EVERY_NS = 10 * NS_PER_S
MAX_HELD_EVENTS = 20_000  # in memory, while the disk does not take them
MAX_HELD_BYTES = 32 << 20
_EVENT_TYPES = {event_type.stream: event_type for event_type in STORED_EVENTS}


class Outbox:
    """Accepts events from any thread, at once; gives them to one publishing thread, in order."""

    def __init__(
        self,
        path: Path,
        *,
        boot_id: str,
        station: str,
        max_bytes: int,
        keep_acked_s: float,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """*on_commit* is called on the outbox thread when there are new rows to fetch; it must not block."""
        self._path, self._boot_id, self._station = path, boot_id, station
        self._max_bytes, self._keep_acked_s, self._on_commit = max_bytes, keep_acked_s, on_commit
        self._faults = Faults(lambda *_: None)
        self._intake, self._ballast = Intake(), Ballast(path.with_suffix(".ballast"))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox")
        self._ledger: Ledger
        self.epoch = ""
        self.last_progress_ns = monotonic_ns()
        self._heads: dict[str, int] = {}
        self._positions: dict[str, int] = {}

        # Of the outbox thread alone:
        self._held = Batch()
        self._held_bytes = 0
        self._last_commit_ns = self._last_purge_ns = self._retry_at_ns = 0
        self._backoff = Backoff(first_s=0.2, longest_s=5.0)
        self._oldest_ns: int | None = None
        self._dropped_before = self._pending_when_full = 0

        # The reader must not see a gap event while it is being rewritten, hence the lock:
        self._read_lock = threading.Lock()
        self._reader: Reader | None = None
        self._seen_row_id = 0
        self._damage = ""

    def report_to(self, faults: Faults) -> None:
        """Tell troubles to *faults*, whose sink may be `put`. Call it before `start`."""
        self._faults = faults

    def start(self) -> None:
        """Open the file, and start the thread. `StateError`, with the remedy, if the place cannot be used."""
        self._open(first_row_id=1)
        self._ballast.take()
        self._thread.start()

    def put(self, event: StoredEvent, positions: Mapping[str, int] | None = None) -> None:
        """Accept *event*, and *positions* to be written with it. Never blocks; any thread."""
        self._intake.put(event, positions)

    def set_positions(self, positions: Mapping[str, int]) -> None:
        """Write *positions* without an event."""
        self._intake.set_positions(positions)

    def positions(self) -> dict[str, int]:
        """The named integers, as they are on disk."""
        return dict(self._positions)

    def next_seq(self) -> dict[str, int]:
        """The seq that comes next in each stream that has begun, as it is on disk."""
        return dict(self._heads)

    def fetch(self, after_row_id: int, limit: int) -> list[StoredRow]:
        """Committed events that are not settled, in order; for the one thread that publishes.

        An event that is dropped for want of space while it is in flight may arrive and still be told as lost.
        """
        settling = self._intake.settling()  # before reading: what settles meanwhile is then in one of the two
        while True:
            rows = self._read(after_row_id, limit)
            unsettled = [row for row in rows if row.row_id not in settling]
            if unsettled or not rows:
                return unsettled
            after_row_id = rows[-1].row_id

    def acked(self, row_ids: Sequence[int]) -> None:
        """The broker has these. They are kept for replay until they are too old or space is needed."""
        self._intake.settle(row_ids)

    def dead_letter(self, row_id: int, reason: Reason) -> None:
        """The broker refuses this for good: keep it aside, and tell the gap."""
        self._intake.settle((), [(row_id, reason)])

    def depth(self) -> OutboxDepth:
        """Counters of the last commit; cheap."""
        totals, oldest_ns = self._ledger.totals, self._oldest_ns
        oldest_s = 0.0 if oldest_ns is None else max(0.0, (time.time_ns() - oldest_ns) / NS_PER_S)
        queued = len(self._intake) + len(self._held.entries)
        return OutboxDepth(totals.pending, oldest_s, totals.bytes, totals.dead, totals.dropped, queued)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put before is on disk (or told there as lost); False if it takes too long."""
        return self._intake.wait_written(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write what is left, and stop. The publisher must have been closed before."""
        self._closing.set()
        self._intake.hurry()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.error("the outbox does not end: %d events are not on disk", self.depth().queued)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._intake.wait(self._last_commit_ns, self._retry_at_ns, IDLE_S)
            try:
                self._turn()
            except sqlite3.Error as error:
                self._survive(error)
            except Exception as error:  # the thread's outermost guard
                log.exception("the outbox stumbled")
                self._faults.begin("outbox", "internal_error", str(error))
                self._closing.wait(IDLE_S)
            self.last_progress_ns = monotonic_ns()
        self._end()

    def _turn(self) -> None:
        self._take()
        if self._damage:
            self._begin_anew(self._damage)
        if monotonic_ns() >= self._retry_at_ns:
            self._write()
            self._purge()
            self._look()

    def _take(self) -> None:
        """Number what has come, in order of arrival, and hold it until it is written."""
        delivery = self._intake.take()
        for event in delivery.events:
            self._hold(event)
        for stream, counts in delivery.surplus.items():
            for verdict, count in counts.items():
                first = self._ledger.next_seq.get(stream, FIRST_SEQ)
                self._ledger.next_seq[stream] = first + count
                self._held.lost[stream, "disk_full"].append(Run(first, first + count - 1, verdict))
        self._held.positions.update(delivery.positions)
        self._held.acked += delivery.acked
        self._held.dead += delivery.dead
        self._shorten()

    def _hold(self, event: StoredEvent) -> None:
        seq = self._ledger.next_seq.get(event.stream, FIRST_SEQ)
        try:
            payload = event.stamped(self.epoch, seq).to_json()
        except ValueError as error:
            # It has no place in the stream yet, so it leaves no hole; nor may it stop the others.
            log.exception("an event cannot be written as JSON")
            self._faults.begin("outbox", "event_unserialisable", f"{event.stream} {event.id}: {error}")
            return
        self._ledger.next_seq[event.stream] = seq + 1
        now_ns = time.time_ns()
        entry = Entry(event.stream, seq, event.id, rank(event), verdict_of(event), now_ns, payload)
        self._held.entries.append(entry)
        self._held_bytes += entry.bytes

    def _shorten(self) -> None:
        """Bound what is held while the disk takes nothing: a tenth at a time, remembering what went."""
        held = self._held.entries
        if len(held) <= MAX_HELD_EVENTS and self._held_bytes <= MAX_HELD_BYTES:
            return
        gone = victims(
            [(entry.rank, entry.bytes) for entry in held],
            len(held) - MAX_HELD_EVENTS * 9 // 10,
            self._held_bytes - MAX_HELD_BYTES * 9 // 10,
        )
        self._held_bytes -= sum(held[index].bytes for index in gone)
        self._held.lose(gone, "disk_full")

    def _write(self) -> None:
        batch = self._held
        if batch:
            news = self._ledger.commit(batch, self._nobody_reading)
            self._held, self._held_bytes = Batch(), 0
            self._last_commit_ns = monotonic_ns()
            self._publish_heads()
            if news:
                self._on_commit()
        self._intake.written([*batch.acked, *(row_id for row_id, _ in batch.dead)])
        self._recover()

    def _recover(self) -> None:
        if self._retry_at_ns:
            self._retry_at_ns = 0
            self._backoff.reset()
            self._faults.end("outbox", "disk_full")
            self._faults.end("outbox", "disk_error")

    def _survive(self, error: sqlite3.Error) -> None:
        """The disk does not take it: hold it, and try again later."""
        if is_corrupt(error):
            self._damage = str(error)
            return
        self._retry_at_ns = monotonic_ns() + int(self._backoff.next_s() * NS_PER_S)
        self._faults.begin(
            "outbox",
            "disk_full" if is_full(error) else "disk_error",
            f"{self._path}: {error}; events are held in memory until it can be written again",
        )
        if is_full(error):
            with suppress(sqlite3.Error):
                self._ledger.shed_history()

    def _purge(self) -> None:
        now_ns = monotonic_ns()
        if now_ns - self._last_purge_ns < PURGE_EVERY_NS:
            return
        more = self._ledger.purge(time.time_ns() - int(self._keep_acked_s * NS_PER_S))
        if not more:
            self._last_purge_ns = now_ns

    def _look(self) -> None:
        """Refresh the slow counters, and say when undelivered events begin to be dropped, and when no more."""
        totals = self._ledger.totals
        self._oldest_ns = self._ledger.oldest_pending_ns() if totals.pending else None
        if totals.dropped > self._dropped_before:
            self._dropped_before, self._pending_when_full = totals.dropped, totals.pending
            self._faults.begin(
                "outbox", "dropping", f"{self._path} is at its bound of {self._max_bytes} bytes, or its disk is full"
            )
        elif totals.pending <= self._pending_when_full // 2:
            self._faults.end("outbox", "dropping")

    def _open(self, first_row_id: int) -> None:
        self._ledger, problem = open_ledger(
            self._path,
            station=self._station,
            boot_id=self._boot_id,
            max_bytes=self._max_bytes,
            first_row_id=first_row_id,
        )
        self.epoch = self._ledger.epoch
        self._dropped_before = self._ledger.totals.dropped
        self._publish_heads()
        self._look()
        if problem:
            self._faults.note("outbox", "recreated", problem)

    def _write_on_ballast(self, error: sqlite3.Error) -> None:
        """The end is here and the disk does not take it: the room that was kept for this moment may."""
        log.warning("%s: %s; the reserve is used for %d events", self._path, error, len(self._held.entries))
        self._ballast.throw_off()
        try:
            self._write()
        except sqlite3.Error as second:
            log.error("%s: %s: %d events are lost", self._path, second, len(self._held.entries))  # noqa: TRY400

    def _publish_heads(self) -> None:
        self._heads = dict(self._ledger.next_seq)
        self._positions = dict(self._ledger.positions)

    def _begin_anew(self, damage: str) -> None:
        """The file broke while in use: put it aside, and number again what is not on disk, in a new epoch.

        Row ids go on, so that a late acknowledgement cannot hit a row of the new file.
        """
        next_row_id, positions, held = self._ledger.next_row_id, self._ledger.positions, self._held
        with self._read_lock:
            self._close_reader()
            with suppress(sqlite3.Error):
                self._ledger.close()
            aside = set_aside(self._path)
            self._open(first_row_id=next_row_id)
            self._seen_row_id, self._damage = 0, ""
        self._intake.forget_settling()
        self._held, self._held_bytes = Batch(positions={**positions, **held.positions}), 0
        for entry in held.entries:
            self._hold(_EVENT_TYPES[entry.stream].model_validate_json(entry.payload))
        self._faults.note("outbox", "recreated", f"{self._path}: {damage}; moved to {aside}, new epoch {self.epoch}")

    def _read(self, after_row_id: int, limit: int) -> list[StoredRow]:
        with self._read_lock:
            try:
                self._reader = self._reader or Reader(self._path)
                rows = self._reader.fetch(after_row_id, limit)
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
                self._damage = str(error)
                self._intake.hurry()
                return []
            if rows:
                self._seen_row_id = max(self._seen_row_id, rows[-1].row_id)
            return rows

    @contextmanager
    def _nobody_reading(self) -> Iterator[int]:
        with self._read_lock:
            yield self._seen_row_id

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _end(self) -> None:
        self._take()
        try:
            self._write()
        except sqlite3.Error as error:
            self._write_on_ballast(error)
        with self._read_lock:
            self._close_reader()
            self._ledger.close()
