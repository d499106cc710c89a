"""What callers hand to the outbox, until its thread takes it: nothing here blocks or touches the disk."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Collection, Mapping, Sequence

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.inspection.events import StoredEvent
from defectd.messaging.gaps import Reason, verdict_of

MAX_WAITING_EVENTS = 20_000  # 140 MB as objects, but only while a single write hangs
GATHER_NS = 50_000_000  # under load, commits are at least this far apart; a lone event does not wait
GATHER_EVENTS = 500  # ... unless this many wait
GATHER_ACKS_NS = 250_000_000  # a lost acknowledgement only means a duplicate: they travel with the events


@dataclass
class Delivery:
    """What the thread takes in one go. `surplus` counts, per stream and verdict, what came when all was full."""

    events: list[StoredEvent] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    surplus: dict[str, Counter[str | None]] = field(default_factory=dict)
    acked: list[int] = field(default_factory=list)
    dead: list[tuple[int, Reason]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.events or self.positions or self.acked or self.dead)


class Intake:
    """Thread-safe. `settling` are the rows that were settled, but not on disk yet."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._waiting = Delivery()
        self._settling: set[int] = set()
        self._put_count = self._taken_count = self._written_count = 0
        self._acks_since_ns = 0
        self._urgent = False

    def put(self, event: StoredEvent, positions: Mapping[str, int] | None) -> None:
        """Accept an event; when the thread does not come for them, only count it."""
        with self._lock:
            self._put_count += 1
            if positions:
                self._waiting.positions.update(positions)
            if len(self._waiting.events) >= MAX_WAITING_EVENTS:
                counts = self._waiting.surplus.setdefault(event.stream, Counter())
                counts[verdict_of(event)] += 1
                return
            self._waiting.events.append(event)
            if len(self._waiting.events) in (1, GATHER_EVENTS):
                self._lock.notify_all()

    def set_positions(self, positions: Mapping[str, int]) -> None:
        """Accept positions without an event."""
        with self._lock:
            self._put_count += 1
            self._waiting.positions.update(positions)
            self._lock.notify_all()

    def settle(self, acked: Sequence[int], dead: Sequence[tuple[int, Reason]] = ()) -> None:
        """Accept what became of rows at the broker."""
        with self._lock:
            if not self._waiting.acked and not self._waiting.dead:
                self._acks_since_ns = monotonic_ns()
                self._lock.notify_all()
            self._waiting.acked.extend(acked)
            self._waiting.dead.extend(dead)
            self._settling.update(acked)
            self._settling.update(row_id for row_id, _ in dead)

    def settling(self) -> set[int]:
        """A copy of the rows that are settled here, and not yet on disk."""
        with self._lock:
            return set(self._settling)

    def forget_settling(self) -> None:
        """The rows are gone, with the file that held them."""
        with self._lock:
            self._settling.clear()
            self._waiting.acked.clear()
            self._waiting.dead.clear()

    def __len__(self) -> int:
        return len(self._waiting.events)

    def wait(self, last_commit_ns: int, retry_at_ns: int, longest_s: float) -> None:
        """Until a group is complete, or *retry_at_ns* if that is not 0; at most *longest_s*."""
        deadline_ns = monotonic_ns() + int(longest_s * NS_PER_S)
        with self._lock:
            while True:
                now_ns = monotonic_ns()
                due_ns = min(deadline_ns, retry_at_ns or self._due_ns(last_commit_ns, deadline_ns))
                if due_ns <= now_ns:
                    return
                self._lock.wait((due_ns - now_ns) / NS_PER_S)

    def take(self) -> Delivery:
        """All that waits."""
        with self._lock:
            taken, self._waiting = self._waiting, Delivery()
            self._taken_count = self._put_count
            self._urgent = False
            return taken

    def written(self, settled: Collection[int]) -> None:
        """All that was taken is on disk, *settled* rows too."""
        with self._lock:
            self._settling.difference_update(settled)
            self._written_count = self._taken_count
            self._lock.notify_all()

    def hurry(self) -> None:
        """Do not wait for a group to be complete."""
        with self._lock:
            self._urgent = True
            self._lock.notify_all()

    def wait_written(self, timeout_s: float) -> bool:
        """Wait until all that was put before is on disk."""
        with self._lock:
            ticket = self._put_count
            self._urgent = True
            self._lock.notify_all()
            return self._lock.wait_for(lambda: self._written_count >= ticket, timeout_s)

    def _due_ns(self, last_commit_ns: int, idle_ns: int) -> int:
        if self._urgent or len(self._waiting.events) >= GATHER_EVENTS:
            return 0
        if self._waiting.events or self._waiting.positions:
            return last_commit_ns + GATHER_NS
        if self._waiting.acked or self._waiting.dead:
            return self._acks_since_ns + GATHER_ACKS_NS
        return idle_ns
