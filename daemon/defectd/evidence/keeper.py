"""The daemon's half of the evidence: hand a slot to the worker, learn what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from defectd.camera.feed import SlotLease
from defectd.inspection.events import Defect, Image
from defectd.workers.process import Died, News, Worker, WorkerLimits, WorkerSpec
from defectd.workers.protocol import Kind, Note
from defectd.workers.ring import FrameRing

_JOBS_AT_ONCE = 4  # each holds a slot of a ring that cameras need, too
_JOB_LIMIT_S = 20.0
_NICE = 10
_BOXES_DRAWN, _LABEL_CHARS = 100, 40  # a record has its bounds; the event has all defects in full


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
        self._jobs: dict[str, SlotLease] = {}

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
            "boxes": [[*d.bbox_px, f"{d.code[:_LABEL_CHARS]} {d.confidence:.2f}"] for d in defects[:_BOXES_DRAWN]],
        }
        if len(self._jobs) >= _JOBS_AT_ONCE or not self.worker.ready or not self.worker.send(Note(Kind.KEEP, job)):
            return False
        lease.hold()
        self._jobs[inspection_id] = lease
        return True

    def receive(self) -> list[News | Kept]:
        """What became of the pictures."""
        return self._settle(self.worker.receive())

    def tick(self, now_ns: int) -> list[News | Kept]:
        """See Worker.tick."""
        return self._settle(self.worker.tick(now_ns))

    def _settle(self, news: list[News]) -> list[News | Kept]:
        settled: list[News | Kept] = []
        for record in news:
            if isinstance(record, Note) and record.kind is Kind.KEPT:
                kept = self._kept(record)
                if kept is None:
                    return [*settled, *self._settle(self.worker.kill("protocol"))]
                settled.append(kept)
            else:
                settled.append(record)
                settled.extend(self._abandon() if isinstance(record, Died) else ())
        return settled

    def _kept(self, note: Note) -> Kept | None:
        """None if the note makes no sense."""
        try:
            images = tuple(Image(**image) for image in note.body["images"])
            lease = self._jobs.pop(note.body["id"])
        except (KeyError, TypeError, ValueError):
            return None
        lease.release()
        return Kept(note.body["id"], images, str(note.body.get("trouble", "")))

    def _abandon(self) -> list[Kept]:
        """The worker is dead: its units go without pictures."""
        jobs, self._jobs = self._jobs, {}
        for lease in jobs.values():
            lease.release()
        return [Kept(inspection_id, (), "the evidence worker died") for inspection_id in jobs]
