"""The daemon's half of the evidence: hand a slot to the worker, learn what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

from defectd.camera.feed import SlotLease
from defectd.evidence.collected import Policy, describe, is_wanted
from defectd.inspection.events import Defect, Image, InspectionEvent
from defectd.inspection.record import EngineAnswer
from defectd.inspection.verdict import Judgement
from defectd.workers.process import Died, News, Worker, WorkerLimits, WorkerSpec
from defectd.workers.protocol import MAX_RECORD_BYTES, Kind, Note
from defectd.workers.ring import FrameRing

_JOBS_AT_ONCE = 4  # each holds a slot of a ring that cameras need, too
_COLLECTED_AT_ONCE = 2
_JOB_LIMIT_S = 20.0
_NICE = 10
_COLLECTED = "/collected"  # behind the name of a job; no event has that in its own
_BOXES_DRAWN, _LABEL_CHARS = 100, 40  # a record has its bounds; the event has all defects in full


@dataclass(frozen=True)
class CollectPlan:
    """Which pictures are kept as training data, where, as what (`jpeg`, `png`), how much of them."""

    policy: Policy
    directory: Path
    picture_format: str
    max_bytes: int


@dataclass(frozen=True)
class EvidencePlan:
    """Where, how good, how much, how long."""

    directory: Path
    jpeg_quality: int
    max_bytes: int
    max_age_s: float
    collect: CollectPlan


@dataclass(frozen=True)
class Kept:
    """The pictures of one inspection are on disk; none of them, with the reason, if that failed."""

    inspection_id: str
    images: tuple[Image, ...]
    trouble: str = ""

    @property
    def is_collected(self) -> bool:
        """It was training data, not evidence."""
        return self.inspection_id.endswith(_COLLECTED)


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
            "collect": {
                "directory": str(plan.collect.directory) if plan.collect.policy != "none" else None,
                "picture_format": plan.collect.picture_format,
                "max_bytes": plan.collect.max_bytes,
            },
        }
        limits = WorkerLimits(silence_s=_JOB_LIMIT_S)
        self.worker = Worker(
            WorkerSpec("evidence", "defectd.evidence.worker", lambda: configuration, rings, limits, nice=_NICE)
        )
        self._policy = plan.collect.policy
        self._jobs: dict[str, SlotLease] = {}
        self._collecting: dict[str, SlotLease] = {}

    def keep(self, inspection_id: str, day: str, lease: SlotLease, defects: Sequence[Defect]) -> bool:
        """Write the frame of *lease*, with and without boxes, under *day*; False if there is no room for it, or if
        that id is being written already."""
        boxes = [[*d.bbox_px, f"{d.code[:_LABEL_CHARS]} {d.confidence:.2f}"] for d in defects[:_BOXES_DRAWN]]
        job = Note(Kind.KEEP, {**_where(inspection_id, day, lease), "boxes": boxes})
        return len(self._jobs) < _JOBS_AT_ONCE and self._hand_over(job, lease, self._jobs)

    def collect(
        self,
        name: str,
        event: InspectionEvent,
        trigger: int,
        judgement: Judgement,
        answer: EngineAnswer,
        lease: SlotLease,
    ) -> bool:
        """Write the frame of *lease* as *name*, and what the model saw beside it, if a picture that was judged so is
        wanted as training data; False if there is no room for it. Evidence goes before it."""
        if not is_wanted(self._policy, judgement.verdict, judgement.needs_review):
            return True
        if len(self._collecting) >= _COLLECTED_AT_ONCE:
            return False
        about = describe(event, lease.feed.name, trigger, lease.frame, judgement, answer)
        where = _where(f"{name}{_COLLECTED}", event.started_at.date().isoformat(), lease)
        job = Note(Kind.KEEP, {**where, "name": name, "about": about.model_dump_json()})
        return len(job.pack()) <= MAX_RECORD_BYTES and self._hand_over(job, lease, self._collecting)

    def _hand_over(self, job: Note, lease: SlotLease, jobs: dict[str, SlotLease]) -> bool:
        job_id = job.body["id"]  # a second lease of the same name would never come back
        if job_id in jobs or not self.worker.ready or not self.worker.send(job):
            return False
        lease.hold()
        jobs[job_id] = lease
        return True

    def receive(self) -> list[News | Kept]:
        """What became of the pictures."""
        return self._settle(self.worker.receive())

    def tick(self, now_ns: int) -> list[News | Kept]:
        """See Worker.tick."""
        return self._settle(self.worker.tick(now_ns))

    def _settle(self, news: list[News]) -> list[News | Kept]:
        settled: list[News | Kept] = []
        is_broken = False
        for record in news:
            if isinstance(record, Note) and record.kind is Kind.KEPT:
                kept = None if is_broken else self._kept(record)
                is_broken = kept is None
                settled.extend([] if kept is None else [kept])
            else:
                settled.append(record)
                settled.extend(self._abandon() if isinstance(record, Died) else ())
        return [*settled, *self._settle(self.worker.kill("protocol"))] if is_broken else settled

    def _kept(self, note: Note) -> Kept | None:
        """None if the note makes no sense."""
        try:
            images = tuple(Image(**image) for image in note.body["images"])
            jobs = self._collecting if note.body["id"] in self._collecting else self._jobs
            lease = jobs.pop(note.body["id"])
        except (KeyError, TypeError, ValueError):
            return None
        lease.release()
        return Kept(note.body["id"], images, str(note.body.get("trouble", "")))

    def _abandon(self) -> list[Kept]:
        """The worker is dead: its units go without pictures."""
        jobs = {**self._jobs, **self._collecting}
        self._jobs, self._collecting = {}, {}
        for lease in jobs.values():
            lease.release()
        return [Kept(inspection_id, (), "the evidence worker died") for inspection_id in jobs]


def _where(job_id: str, day: str, lease: SlotLease) -> dict[str, Any]:
    frame = lease.frame
    return {
        "id": job_id,
        "day": day,
        "ring": lease.feed.index,
        "slot": frame.slot,
        "width_px": frame.width_px,
        "height_px": frame.height_px,
    }
