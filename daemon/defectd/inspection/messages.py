"""Every message of the wire: what leaves the station, and what it listens to."""

from __future__ import annotations

from defectd.inspection.events import Birth, FaultEvent, GapEvent, InspectionEvent, Status, StoredEvent, WireModel
from defectd.inspection.rollout_wire import ModelProgress, ModelReported, RolloutEvent
from defectd.inspection.telemetry_wire import DeviceTelemetry, SlowDownEvent
from defectd.inspection.unit_command import UnitCommand
from defectd.inspection.web_wire import StretchEvent, TrackEvent

STORED_EVENTS: tuple[type[StoredEvent], ...] = (
    InspectionEvent, FaultEvent, GapEvent, SlowDownEvent, RolloutEvent, TrackEvent, StretchEvent,
)  # fmt: skip
ALL_MESSAGES: tuple[type[WireModel], ...] = (
    *STORED_EVENTS, Status, Birth, DeviceTelemetry, ModelReported, ModelProgress, UnitCommand,
)  # fmt: skip
