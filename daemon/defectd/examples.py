"""One example of every message, as the documents show it and the tests validate it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Mapping

from defectd.inspection import events, rollout_wire, telemetry_wire, web_wire
from defectd.inspection.unit_command import UnitCommand

_NOON = datetime(2026, 11, 20, 9, 18, 4, 120_000, timezone.utc)
_EPOCH = "5b1c6a3e-4a0f-4a56-8b84-0a0c3f0a7f11"
_BOOT = "9f0e2a54-9a0e-4d7c-8f4e-2f7d5b1f6f3d"
_SETTINGS = "3f6d0c7a9b" + "0" * 54
_RECIPE = events.Recipe(name="pcb-top", revision="7")
_MODEL = events.Model(name="boards", version="2026.11.3", sha256="ab12cd34" + "0" * 56, runtime="torchscript-fp16-cuda")

_STORED = {"epoch": _EPOCH, "station": "aoi1", "boot_id": _BOOT, "created_at": _NOON + timedelta(milliseconds=45)}

_REQUEST = "0190b6d9-1f42-7b0c-9d17-6a2f1f3c8e20"
_STATION = "plant1/smt/line3/aoi1"
_OLD = rollout_wire.ModelRef(name="boards", version="2026.11.3", release_seq=41, manifest_sha256=_MODEL.sha256)
_NEW = rollout_wire.ModelRef(name="boards", version="2026.11.4", release_seq=42, manifest_sha256="cd56ef78" + "0" * 56)

EXAMPLES: Mapping[type[events.WireModel], events.WireModel] = {
    events.InspectionEvent: events.InspectionEvent(
        **_STORED,
        id="0190b6d2-7c1e-7f3a-9a55-3d0f6f2b9c11",
        seq=48211,
        unit_id="board-00048310",
        unit_id_source="counter",
        recipe=_RECIPE,
        model=_MODEL,
        settings_sha256=_SETTINGS,
        started_at=_NOON,
        ended_at=_NOON + timedelta(milliseconds=31),
        verdict="failed",
        needs_review=False,
        error=None,
        error_detail=None,
        simulated=False,
        frame=events.FrameInfo(camera="top", trigger=48310, frame_id=48310, width_px=1920, height_px=1200),
        timing_ms=events.TimingMs(queue=0.2, preprocess=1.1, inference=8.9, postprocess=0.4, capture_to_verdict=31.4),
        inference_clock="cuda_event",
        conditions=events.Conditions(throttled=False, gpu_clock_mhz=918.0, clock="ntp-synced"),
        defects=[
            events.Defect(
                code="PCB-SHORT",
                category="etching",
                class_name="short",
                description="Two nets are connected",
                confidence=0.934,
                priority=1,
                bbox_px=(812.0, 440.0, 46.0, 38.0),
            )
        ],
        defect_count=1,
        images=[
            events.Image(
                role="raw", path="2026-11-20/0190b6d2-7c1e-7f3a-9a55-3d0f6f2b9c11.jpg", bytes=182_334, sha256="c0" * 32
            )
        ],
    ),
    events.FaultEvent: events.FaultEvent(
        **_STORED,
        id="0190b6d2-7c20-7a01-8f00-0d9b1d3c5e77",
        seq=17,
        component="camera/top",
        code="camera_lost",
        state="raised",
        detail="/dev/video0: no frame",
    ),
    events.GapEvent: events.GapEvent(
        **_STORED,
        id="0190b6d2-7c22-7c44-9d21-6a0f2f7e9b02",
        seq=1,
        of_stream="inspection",
        from_seq=100,
        to_seq=240,
        ranges=[(100, 180), (190, 240)],
        lost=132,
        lost_by_verdict={"passed": 132},
        reason="outbox_full",
    ),
    events.Status: events.Status(
        state="online",
        condition="degraded",
        detail="48211 units: 47100 passed, 1102 failed, 9 errors, p99 34 ms; broker connected, 0 events to send",
        boot_id=_BOOT,
        ts=_NOON,
        faults=[
            events.ActiveFault(component="camera/top", code="camera_lost", detail="/dev/video0: no frame", since=_NOON)
        ],
    ),
    events.Birth: events.Birth(
        station="aoi1",
        boot_id=_BOOT,
        ts=_NOON,
        defectd="0.1.0",
        epoch=_EPOCH,
        next_seq={"inspection": 48212, "fault": 18, "gap": 2},
        schemas={"evt/inspection": "defectd.inspection/1.2"},
        settings_sha256=_SETTINGS,
        recipe=_RECIPE,
        classes=[events.ClassCode(class_name="short", code="PCB-SHORT", min_confidence=0.4)],
        deadline_ms=250.0,
        cameras=[events.CameraInfo(name="top", kind="opencv", mode="triggered", first_trigger=48001)],
        model=_MODEL,
        warmup=events.WarmupReport(
            cold_first_call_ms=812.0, iterations=150, steady=True, steady_p50_ms=8.7, steady_p99_ms=9.4
        ),
    ),
    telemetry_wire.SlowDownEvent: telemetry_wire.SlowDownEvent(
        **_STORED,
        id="0190b6d8-52aa-7d10-8c3e-55e1f0c9a201",
        seq=1,
        state="raised",
        level="slow",
        detail="tj 95.5 °C, the GPU is held at 510 of 918 MHz: 3.1 units/s can be judged in time, 4.0 come",
        hottest_c=95.5,
        current_rate_hz=4.0,
        sustainable_rate_hz=3.1,
    ),
    telemetry_wire.DeviceTelemetry: telemetry_wire.DeviceTelemetry(
        station="aoi1",
        boot_id=_BOOT,
        ts=_NOON,
        source="sysfs",
        board="NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        l4t="36.4.3",
        clock="ntp-synced",
        uptime_s=86_512.0,
        power_mode="MAXN",
        throttled=False,
        throttle_causes=[],
        thermal_level="normal",
        hottest_c=61.5,
        temps_c={"cpu": 60.1, "gpu": 58.9, "tj": 61.5},
        gpu_load=0.31,
        gpu_clock_mhz=918.0,
        gpu_clock_max_mhz=918.0,
        cpu_clock_mhz=1984.0,
        cpu_clock_max_mhz=1984.0,
        emc_clock_mhz=None,
        power_w=14.2,
        rails_w={"VDD_IN": 14.2, "VDD_CPU_GPU_CV": 5.1, "VDD_SOC": 2.9},
        fan_rpm=2210.0,
        fan_share=0.42,
        mem_available_mb=9120.0,
        mem_total_mb=15_656.0,
        nvmap_mb=1420.0,
        swap_used_mb=0.0,
        disk_free_mb=181_000.0,
        disk_total_mb=233_000.0,
        disk_wear=0.02,
        rss_mb={"daemon": 58.0, "engine": 2210.0, "camera/top": 96.0},
        units=20,
        deadline_misses=0,
        dropped=0,
        queue_ms=0.4,
        outbox_pending=0,
        latency=[
            telemetry_wire.LatencyFigures(
                camera="top",
                model="boards 2026.11.3",
                stage="capture_to_verdict",
                count=240,
                p50_ms=29.1,
                p95_ms=31.8,
                p99_ms=33.0,
                max_ms=41.2,
                jitter_ms=0.9,
            )
        ],
        slow_units=[
            telemetry_wire.SlowUnit(
                camera="top", trigger=48299, capture_to_verdict_ms=41.2, because="the GPU was at 306 of 918 MHz: cold"
            )
        ],
    ),
    rollout_wire.RolloutEvent: rollout_wire.RolloutEvent(
        **_STORED,
        id="0190b6da-0a11-7c3e-8b02-91f4c7d2e6aa",
        seq=9,
        request_id=_REQUEST,
        action="deploy",
        from_state="probation",
        state="committed",
        code="",
        detail="5000 units decided by the candidate: 1 error, p99 33.1 ms (36.1 ms allowed), 2.4 % failed",
        manifest_sha256=_NEW.manifest_sha256,
        attempts=1,
    ),
    rollout_wire.ModelReported: rollout_wire.ModelReported(
        station=_STATION,
        groups=["pilot"],
        boot_id=_BOOT,
        ts=_NOON,
        current=_OLD,
        previous=None,
        candidate=_NEW,
        factory=_OLD,
        floor_release_seq=41,
        floor_command_seq=12,
        rollout=rollout_wire.RolloutReport(
            request_id=_REQUEST,
            seq=12,
            action="deploy",
            state="staged",
            successful=False,
            finished=False,
            code="",
            detail="",
            waits_for="window 22:00-04:30",
            percent=None,
            attempts=1,
            target=_NEW,
            gates={},
            received_at=_NOON - timedelta(minutes=3),
            changed_at=_NOON - timedelta(minutes=1),
        ),
        last_command=rollout_wire.CommandReport(
            request_id=_REQUEST,
            seq=12,
            accepted=True,
            code="accepted",
            detail="Release 42 will be fetched from factory-server.",
            ts=_NOON - timedelta(minutes=3),
        ),
    ),
    rollout_wire.ModelProgress: rollout_wire.ModelProgress(
        request_id=_REQUEST, state="downloading", percent=37.5, detail="model.onnx: 9.4 of 25.0 MB", ts=_NOON
    ),
    web_wire.TrackEvent: web_wire.TrackEvent(
        **_STORED,
        id="0190b6db-33c0-7d21-9a0e-5f7b2f6a1c04",
        seq=311,
        track_id="0190b6db-33b8-7a90-8d55-1c9c6f3f0e21",
        state="born",
        reason=None,
        camera="web",
        recipe=_RECIPE,
        model=_MODEL,
        simulated=False,
        first_trigger=90211,
        last_trigger=90212,
        first_seen_at=_NOON - timedelta(milliseconds=33),
        last_seen_at=_NOON,
        frames=2,
        code="WEB-HOLE",
        codes={"WEB-HOLE": 2},
        category="web",
        class_name="pin-hole",
        description="A hole",
        priority=1,
        confidence=0.91,
        best_trigger=90212,
        first_bbox_px=(640.0, 2.0, 31.0, 28.0),
        best_bbox_px=(640.5, 42.0, 31.0, 30.0),
        last_bbox_px=(640.5, 42.0, 31.0, 30.0),
        web_px_per_s=(0.4, 1211.8),
        images=[],
    ),
    web_wire.StretchEvent: web_wire.StretchEvent(
        **_STORED,
        id="0190b6db-4f02-7b1d-a5c3-0e7a9d2b8f10",
        seq=3007,
        camera="web",
        from_trigger=90150,
        to_trigger=90299,
        from_at=_NOON - timedelta(seconds=2),
        to_at=_NOON + timedelta(seconds=3),
        frames=150,
        inspected=148,
        dropped=2,
        lost=0,
        verdicts={"passed": 131, "failed": 16, "error": 1},
        errors={"frame_incomplete": 1},
        needs_review=0,
        tracks_born=3,
        tracks_ended=2,
        tracks_open=1,
        flickers=1,
    ),
    UnitCommand: UnitCommand(
        id="01JD3W6Z9Q4M8T", unit_id="SN-4711", sent_at=_NOON, position="fixture 2", recipe="pcb-top"
    ),
}
