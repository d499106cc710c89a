"""What to lose first when there is no room, and how a loss is told: pure, without disk or threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Literal, NamedTuple, Sequence

from defectd.inspection.events import FaultEvent, GapEvent, InspectionEvent, StoredEvent

Reason = Literal["outbox_full", "disk_full", "rejected_by_broker", "payload_too_large"]

# The order of dropping: lower goes first, a gap event never.
EXPENDABLE, FAULT, PRECIOUS, NEVER = 0, 1, 2, 3
MAX_RUNS = 500  # per gap event: about 10 kB of JSON


class Run(NamedTuple):
    """Lost events with consecutive seq and the same verdict (None for events without one)."""

    first: int
    last: int
    verdict: str | None


@dataclass(frozen=True)
class Hole:
    """What one gap event explains. `runs` are coalesced and not empty."""

    of_stream: str
    reason: Reason
    runs: tuple[Run, ...]

    @property
    def lost(self) -> int:
        """How many events."""
        return sum(run.last - run.first + 1 for run in self.runs)

    @property
    def lost_by_verdict(self) -> dict[str, int]:
        """How many events of each verdict; empty for streams without verdicts."""
        counts: dict[str, int] = {}
        for run in self.runs:
            if run.verdict is not None:
                counts[run.verdict] = counts.get(run.verdict, 0) + run.last - run.first + 1
        return counts

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The lost seq as [first, last], whatever the verdict."""
        return [(run.first, run.last) for run in coalesced(run._replace(verdict=None) for run in self.runs)]

    def spans(self, seq: int) -> bool:
        """True if *seq* lies within the hole or next to it, so that telling it here costs next to nothing."""
        return self.runs[0].first - 1 <= seq <= self.runs[-1].last + 1

    def grown(self, runs: Iterable[Run]) -> Hole:
        """The hole with more in it."""
        return Hole(self.of_stream, self.reason, tuple(coalesced([*self.runs, *runs])))


def rank(event: StoredEvent) -> int:
    """Where *event* stands in the order of dropping."""
    if isinstance(event, GapEvent):
        return NEVER
    if isinstance(event, FaultEvent):
        return FAULT
    return EXPENDABLE if event.expendable else PRECIOUS


def verdict_of(event: StoredEvent) -> str | None:
    """The verdict that a gap counts *event* under."""
    return event.verdict if isinstance(event, InspectionEvent) else None


def victims(entries: Sequence[tuple[int, int]], excess_count: int, excess_bytes: int) -> set[int]:
    """Indices of the (rank, bytes) *entries*, oldest first, to drop until both excesses are gone.

    Entries that must never go stay, even if the excess remains.
    """
    chosen: set[int] = set()
    droppable = [(entry_rank, index) for index, (entry_rank, _) in enumerate(entries) if entry_rank < NEVER]
    for _, index in sorted(droppable):
        if excess_count <= 0 and excess_bytes <= 0:
            break
        chosen.add(index)
        excess_count -= 1
        excess_bytes -= entries[index][1]
    return chosen


def coalesced(runs: Iterable[Run]) -> list[Run]:
    """*runs* in order of seq, neighbours of the same verdict joined."""
    joined: list[Run] = []
    for run in sorted(runs, key=lambda run: run.first):
        if joined and joined[-1].verdict == run.verdict and run.first <= joined[-1].last + 1:
            joined[-1] = Run(joined[-1].first, max(joined[-1].last, run.last), run.verdict)
        else:
            joined.append(run)
    return joined


def spread(runs: Iterable[Run], known: Sequence[Hole]) -> tuple[list[Hole], list[list[Run]]]:
    """Tell *runs* in as few gap events as their bounded size allows: (*known* holes, grown; runs of new ones).

    A run inside a known hole fills it up there, so what is told shrinks to one range when all is lost; the
    rest goes to the newest hole while it has room. All of *known* are of one stream and reason.
    """
    rest = coalesced(runs)
    grown: list[Hole] = []
    for hole in known:
        inside = [run for run in rest if hole.spans(run.first)]
        if inside:
            rest = [run for run in rest if not hole.spans(run.first)]
        grown.append(hole.grown(inside) if inside else hole)
    if rest and grown and len(grown[-1].runs) + len(rest) <= MAX_RUNS:
        grown[-1] = grown[-1].grown(rest)
        rest = []
    return grown, [rest[start : start + MAX_RUNS] for start in range(0, len(rest), MAX_RUNS)]
