"""From camera settings to what each camera worker is told, and which trigger it goes on with."""

from __future__ import annotations

import hashlib
import json
from typing import Mapping

from defectd.camera.feed import CameraPlan
from defectd.settings import CameraSettings

_POSITION_BITS = 62  # a position is a signed 64-bit integer


def plan_cameras(cameras: list[CameraSettings], positions: Mapping[str, int]) -> list[CameraPlan]:
    """Trigger numbers go on where they stopped. After a crash (no clean stop) with the same camera settings, a
    replay goes on with the picture that was next; else it begins with the first one."""
    plans = []
    for camera in cameras:
        next_trigger = positions.get(f"trigger/{camera.name}", 0) + 1
        crashed = positions.get("clean", 1) == 0 and positions.get(f"source/{camera.name}") == _fingerprint(camera)
        first = positions[f"first/{camera.name}"] if crashed and camera.kind == "replay" else next_trigger
        common = {"name", "mode", "kind", "max_pixels", "stall_s"}
        source = {"name": camera.name, **camera.model_dump(mode="json", exclude=common)}
        if source["frozen_after"] is None and camera.kind == "opencv":
            source["frozen_after"] = 10
        plans.append(
            CameraPlan(
                name=camera.name,
                kind=camera.kind,
                mode=camera.mode,
                unit_id_source="file" if camera.kind == "replay" else "counter",
                simulated=camera.kind != "opencv",
                patient=camera.kind == "replay",
                frame_bytes=camera.max_pixels * 3,
                stall_s=camera.stall_s,
                first_trigger=first,
                next_trigger=next_trigger,
                source=source,
            )
        )
    return plans


def opening_positions(cameras: list[CameraSettings], plans: list[CameraPlan]) -> dict[str, int]:
    """What the outbox remembers of this start, in case it ends in a crash."""
    opening = {"clean": 0}
    for camera, plan in zip(cameras, plans):
        opening[f"first/{camera.name}"] = plan.first_trigger
        opening[f"source/{camera.name}"] = _fingerprint(camera)
    return opening


def _fingerprint(camera: CameraSettings) -> int:
    text = json.dumps(camera.model_dump(mode="json"), sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - _POSITION_BITS)
