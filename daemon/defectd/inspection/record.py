"""From a judgement to the event that goes on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Sequence

from defectd.clock import ms_between, utc_now
from defectd.inspection.detections import Detections, EngineTimings
from defectd.inspection.events import (
    Conditions,
    FrameInfo,
    InspectionEvent,
    Model,
    Recipe,
    TimingMs,
    UnitIdSource,
    ViewInfo,
)
from defectd.inspection.frame import Frame, Trigger
from defectd.inspection.verdict import Judgement


@dataclass(frozen=True)
class StationIdentity:
    """What every event of this start has in common."""

    station: str
    boot_id: str
    settings_sha256: str
    recipe: Recipe


@dataclass(frozen=True)
class EngineAnswer:
    """When the engine began, what it took, and what it saw; `names` are its classes by id, `model` is the one."""

    queue_ms: float
    timings: EngineTimings
    detections: Detections = field(default_factory=Detections.none)
    names: tuple[str, ...] = ()
    model: Model | None = None


@dataclass(frozen=True)
class Look:
    """One view of the unit: which camera, its trigger, and what became of it."""

    name: str
    number: int
    frame: Frame | None
    judgement: Judgement | None
    answer: EngineAnswer | None


def record(
    station: StationIdentity,
    trigger: Trigger,
    looks: Sequence[Look],
    judgement: Judgement,
    serving: Model | None,
    *,
    is_single: bool,
    verdict_ns: int,
    unit_id_source: UnitIdSource,
    simulated: bool,
    position: str | None = None,
    conditions: Conditions | None = None,
) -> InspectionEvent:
    """The event of one judged unit; *serving* is the model of those that none has judged. `ended_at` follows the
    monotonic clock, so a step of the wall clock between capture and verdict cannot show in it."""
    elapsed_ms = ms_between(trigger.captured_ns, verdict_ns)
    frame = looks[0].frame if is_single and looks else None
    answers = [look.answer for look in looks if look.answer is not None]
    answer = max(answers, key=lambda each: each.queue_ms) if answers else None
    timings = answer.timings if answer else None
    return InspectionEvent(
        station=station.station,
        boot_id=station.boot_id,
        created_at=utc_now(),
        unit_id=trigger.unit_id,
        unit_id_source=unit_id_source,
        position=position,
        recipe=station.recipe,
        model=answer.model if answer is not None and answer.model is not None else serving,
        settings_sha256=station.settings_sha256,
        started_at=trigger.captured_at,
        ended_at=trigger.captured_at + timedelta(milliseconds=elapsed_ms),
        verdict=judgement.verdict,
        needs_review=judgement.needs_review,
        error=judgement.error,
        error_detail=judgement.error_detail,
        simulated=simulated,
        frame=FrameInfo(
            camera=trigger.camera,
            trigger=trigger.number,
            frame_id=frame.frame_id if frame else None,
            width_px=frame.width_px if frame else None,
            height_px=frame.height_px if frame else None,
        ),
        views=[] if is_single else [_view(look) for look in looks],
        timing_ms=TimingMs(
            queue=round(answer.queue_ms, 3) if answer else None,
            preprocess=round(timings.preprocess_ms, 3) if timings else None,
            inference=round(timings.inference_ms, 3) if timings else None,
            postprocess=round(timings.postprocess_ms, 3) if timings else None,
            capture_to_verdict=round(elapsed_ms, 3),
        ),
        inference_clock=timings.inference_clock if timings else None,
        conditions=conditions,
        defects=list(judgement.defects),
        defect_count=len(judgement.defects),
        images=[],
    )


def _view(look: Look) -> ViewInfo:
    return ViewInfo(
        camera=look.name,
        trigger=look.number,
        frame_id=look.frame.frame_id if look.frame else None,
        width_px=look.frame.width_px if look.frame else None,
        height_px=look.frame.height_px if look.frame else None,
        verdict=look.judgement.verdict if look.judgement else None,
        error=look.judgement.error if look.judgement else None,
        inference_ms=round(look.answer.timings.inference_ms, 3) if look.answer else None,
    )
