"""The daemon's half of the evidence: hand a slot to the worker, learn what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from defectd.camera.feed import SlotLease
from defectd.inspection.events import Defect, Image
from defectd.workers.process import Died, Worker, WorkerLimits, WorkerSpec
from defectd.workers.protocol import Kind, Note, Record
from defectd.workers.ring import FrameRing

_JOBS_AT_ONCE = 4  # each holds a slot of a ring that cameras need, too
_JOB_LIMIT_S = 20.0
_NICE = 10


@dataclass(frozen=True)
class EvidencePlan:
    """Where, how good, how much, how long."""

    directory: Path
    jpeg_quality: int
    max_bytes: int
    max_age_s: float


@dataclass(frozen=True)
class Kept:
    """The pictures of one inspection are on disk; none of them, with the reason, if that failed."""

    inspection_id: str
    images: tuple[Image, ...]
    trouble: str = ""


class EvidenceKeeper:
    """Bounded: when too many pictures wait, `keep` says no and the unit goes without. Loop's thread only."""

    def __init__(self, plan: EvidencePlan, rings: tuple[FrameRing, ...], log_level: str) -> None:
        configuration = {
            "log_level": log_level,
            "evidence": {
                "directory": str(plan.directory),
                "jpeg_quality": plan.jpeg_quality,
                "max_bytes": plan.max_bytes,
                "max_age_s": plan.max_age_s,
            },
        }
        limits = WorkerLimits(silence_s=_JOB_LIMIT_S)
        self.worker = Worker(
            WorkerSpec("evidence", "defectd.evidence.worker", lambda: configuration, rings, limits, nice=_NICE)
        )
        self.skipped = 0
        self._jobs: dict[str, SlotLease] = {}

    @property
    def idle(self) -> bool:
        """No picture is being written."""
        return not self._jobs

    def keep(self, inspection_id: str, day: str, lease: SlotLease, defects: Sequence[Defect]) -> bool:
        """Write the frame of *lease*, with and without boxes, under *day*; False if there is no room for it."""
        frame = lease.frame
        job = {
            "id": inspection_id,
            "day": day,
            "ring": lease.feed.index,
            "slot": frame.slot,
            "width_px": frame.width_px,
            "height_px": frame.height_px,
            "boxes": [[*defect.bbox_px, f"{defect.code} {defect.confidence:.2f}"] for defect in defects],
        }
        if len(self._jobs) >= _JOBS_AT_ONCE or not self.worker.ready or not self.worker.send(Note(Kind.KEEP, job)):
            self.skipped += 1
            return False
        lease.hold()
        self._jobs[inspection_id] = lease
        return True

    def receive(self) -> list[Record | Died | Kept]:
        """What became of the pictures."""
        news: list[Record | Died | Kept] = []
        for record in self.worker.receive():
            if isinstance(record, Note) and record.kind is Kind.KEPT:
                news.append(self._kept(record))
            else:
                news.append(record)
                news.extend(self._abandon() if isinstance(record, Died) else ())
        return news

    def tick(self, now_ns: int) -> list[Died | Kept]:
        """See Worker.tick."""
        died = self.worker.tick(now_ns)
        return [] if died is None else [died, *self._abandon()]

    def _kept(self, note: Note) -> Kept:
        inspection_id = note.body["id"]
        self._jobs.pop(inspection_id).release()
        images = tuple(Image(**image) for image in note.body["images"])
        return Kept(inspection_id, images, note.body["trouble"])

    def _abandon(self) -> list[Kept]:
        """The worker is dead: its units go without pictures."""
        jobs, self._jobs = self._jobs, {}
        for lease in jobs.values():
            lease.release()
        return [Kept(inspection_id, (), "the evidence worker died") for inspection_id in jobs]
