"""From camera settings to what each camera worker is told, and which trigger it goes on with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Mapping

from defectd.camera.feed import CameraPlan
from defectd.camera_settings import CameraSettings, units_of
from defectd.line import LinePlan
from defectd.settings import InspectionSettings

_OF_THE_DAEMON = {"name", "mode", "kind", "trigger", "interval_ms", "unit", "shots", "track", "max_pixels", "stall_s"}
_POSITION_BITS = 62  # a position is a signed 64-bit integer


def plan_cameras(
    cameras: list[CameraSettings], positions: Mapping[str, int], deadline_ms: float, state: Path | None = None
) -> list[CameraPlan]:
    """Trigger numbers go on where they stopped. After a crash (no clean stop) with the same camera settings, a
    replay goes on with the picture that was next; else it begins with the first one. Of a tracked camera `seen` is
    ahead of `trigger`: these frames were given numbers, and are told as lost. The empty view of a presence rule is
    kept in the directory *state* unless its settings say where."""
    plans = []
    for camera in cameras:
        next_trigger = max(positions.get(f"{each}/{camera.name}", 0) for each in ("trigger", "seen")) + 1
        crashed = positions.get("clean", 1) == 0 and positions.get(f"source/{camera.name}") == _fingerprint(camera)
        first = positions[f"first/{camera.name}"] if crashed and camera.kind == "replay" else next_trigger
        source = {"name": camera.name, **camera.model_dump(mode="json", exclude=_OF_THE_DAEMON)}
        if source["frozen_after"] is None and camera.kind not in ("replay", "simulated"):
            source["frozen_after"] = 10
        if camera.presence is not None and camera.presence.background is None and state is not None:
            source["presence"]["background"] = str(state / f"presence-{camera.name}.npy")
        is_replay = camera.kind == "replay"
        plans.append(
            CameraPlan(
                name=camera.name,
                kind=camera.kind,
                mode=camera.mode,
                unit_id_source="file" if is_replay and camera.presence is None else "counter",
                simulated=camera.kind in ("replay", "simulated"),
                patient=is_replay and not camera.commanded,
                frame_bytes=camera.max_pixels * 3,
                stall_s=camera.stall_s,
                first_trigger=first,
                next_trigger=next_trigger,
                source=source,
                unit=camera.unit or camera.name,
                shots=camera.shots,
                commanded=camera.commanded,
                shot_s=deadline_ms / 1000,
            )
        )
    return plans


def plan_lines(
    settings: InspectionSettings, cameras: list[CameraSettings], positions: Mapping[str, int]
) -> list[LinePlan]:
    """One for each kind of unit, in the order of their first cameras."""
    return [
        LinePlan(
            name,
            positions.get(f"trigger/{name}", 0) + 1,
            settings.deadline_ms,
            settings.pair_within_ms,
            members[0].interval_ms,
            settings.announced_ids,
        )
        for name, members in units_of(cameras).items()
    ]


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
