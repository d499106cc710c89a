"""Events as the daemon sends them, made from the wire models."""

from __future__ import annotations

from datetime import datetime, timezone

from defectd.inspection import events

PREFIX = "defectd/v1/plant1/smt/line1/aoi1"
STATION = "plant1/smt/line1/aoi1"
NOW = datetime(2026, 11, 20, 11, 35, 28, 120000, tzinfo=timezone.utc)
MODEL = events.Model(name="boards", version="1", sha256="ab" * 32, runtime="torchscript-fp32-cpu")
RECIPE = events.Recipe(name="boards", revision="1")
COMMON = {"station": "aoi1", "boot_id": "boot", "created_at": NOW}


def defect(code="PCB-SHORT", class_name="short", confidence=0.9, bbox_px=(10.0, 20.0, 14.0, 15.0)):
    return events.Defect(
        code=code, category="", class_name=class_name, description="", confidence=confidence, priority=1,
        bbox_px=bbox_px,
    )  # fmt: skip


def inspection(seq=1, trigger=None, verdict="passed", defects=(), latency_ms=27.0, **changes):
    trigger = seq if trigger is None else trigger
    values = {
        **COMMON, "epoch": "epoch", "seq": seq, "unit_id": f"board-{trigger:08d}", "unit_id_source": "counter",
        "recipe": RECIPE, "model": MODEL, "settings_sha256": "s", "started_at": NOW, "ended_at": NOW,
        "verdict": verdict, "needs_review": False, "error": None, "error_detail": None, "simulated": True,
        "frame": events.FrameInfo(camera="top", trigger=trigger, frame_id=None, width_px=640, height_px=512),
        "timing_ms": events.TimingMs(
            queue=0.2, preprocess=1.0, inference=12.0, postprocess=0.4, capture_to_verdict=latency_ms
        ),
        "inference_clock": "monotonic", "defects": list(defects), "defect_count": len(defects), "images": [],
    }  # fmt: skip
    return events.InspectionEvent(**{**values, **changes})


def fault(state="raised", component="camera/top", code="camera_lost", detail="gone"):
    return events.FaultEvent(**COMMON, component=component, code=code, state=state, detail=detail)


def gap(*ranges, of_stream="inspection"):
    lost = sum(high - low + 1 for low, high in ranges)
    return events.GapEvent(
        **COMMON, of_stream=of_stream, from_seq=ranges[0][0], to_seq=ranges[-1][1], ranges=list(ranges), lost=lost,
        reason="outbox_full",
    )  # fmt: skip


def status(condition="inspecting", faults=(), state="online"):
    return events.Status(
        state=state, condition=condition, detail="words", boot_id="boot", ts=NOW, faults=list(faults)
    )  # fmt: skip


def birth(deadline_ms=250.0):
    return events.Birth(
        station="aoi1", boot_id="boot", ts=NOW, defectd="0.1.0", epoch="epoch", next_seq={"inspection": 1}, schemas={},
        settings_sha256="s", recipe=RECIPE, classes=[], deadline_ms=deadline_ms,
        cameras=[events.CameraInfo(name="top", kind="simulated", mode="triggered", first_trigger=1)], model=MODEL,
        warmup=None,
    )  # fmt: skip
