"""Every frame of a tracked camera is in one stretch. PURE."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from defectd.inspection.events import InspectionEvent
from defectd.tracking.tracks import Change


@dataclass
class Account:
    """One stretch while it grows. `from_trigger` is the first number that was not told before."""

    from_trigger: int
    lost: int = 0
    to_trigger: int = 0
    from_at: datetime | None = None
    to_at: datetime | None = None
    verdicts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    needs_review: int = 0
    born: int = 0
    ended: int = 0
    flickers: int = 0
    left_out: int = 0

    @property
    def is_empty(self) -> bool:
        """No frame has come yet."""
        return self.from_at is None

    def add(self, event: InspectionEvent) -> None:
        """One more frame, and those that gave way to it."""
        self.dropped += event.frame.dropped_before
        if event.verdict == "skipped":
            self.dropped += 1
        else:
            self.verdicts[event.verdict] += 1
        if event.error is not None:
            self.errors[event.error] += 1
        self.needs_review += event.needs_review
        self.to_trigger = event.frame.trigger
        self.from_at, self.to_at = self.from_at or event.started_at, event.started_at

    def note(self, change: Change) -> None:
        """What became of the tracks."""
        self.born += len(change.born)
        self.ended += len(change.ended)
        self.flickers += change.flickers
        self.left_out += change.left_out
