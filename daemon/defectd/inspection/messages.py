"""Every message that leaves the station."""

from __future__ import annotations

from defectd.inspection.events import Birth, FaultEvent, GapEvent, InspectionEvent, Status, StoredEvent, WireModel
from defectd.inspection.rollout_wire import ModelProgress, ModelReported, RolloutEvent
from defectd.inspection.telemetry_wire import DeviceTelemetry, SlowDownEvent
from defectd.inspection.web_wire import StretchEvent, TrackEvent

STORED_EVENTS: tuple[type[StoredEvent], ...] = (
    InspectionEvent, FaultEvent, GapEvent, SlowDownEvent, RolloutEvent, TrackEvent, StretchEvent,
)  # fmt: skip
ALL_MESSAGES: tuple[type[WireModel], ...] = (
    *STORED_EVENTS, Status, Birth, DeviceTelemetry, ModelReported, ModelProgress,
)  # fmt: skip
