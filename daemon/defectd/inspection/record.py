"""From a judgement to the event that goes on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from defectd.clock import ms_between, utc_now
from defectd.inspection.detections import EngineTimings
from defectd.inspection.events import Conditions, FrameInfo, InspectionEvent, Model, Recipe, TimingMs
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
    """When the engine began, and what it took."""

    queue_ms: float
    timings: EngineTimings


def record(
    station: StationIdentity,
    trigger: Trigger,
    frame: Frame | None,
    judgement: Judgement,
    answer: EngineAnswer | None,
    model: Model | None,
    *,
    verdict_ns: int,
    unit_id_source: str,
    simulated: bool,
    conditions: Conditions | None = None,
) -> InspectionEvent:
    """The event of one judged unit. `ended_at` follows the monotonic clock, so a step of the wall clock between
    capture and verdict cannot show in it."""
    elapsed_ms = ms_between(trigger.captured_ns, verdict_ns)
    timings = answer.timings if answer else None
    return InspectionEvent(
        station=station.station,
        boot_id=station.boot_id,
        created_at=utc_now(),
        unit_id=trigger.unit_id,
        unit_id_source=unit_id_source,
        recipe=station.recipe,
        model=model,
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
