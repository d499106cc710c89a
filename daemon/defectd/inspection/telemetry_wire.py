"""What the station says of heat, clocks and latency. Null: this device does not tell."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from defectd.inspection.events import StoredEvent, WireModel


class SlowDownEvent(StoredEvent):
    """The station is too hot for the line's speed: please slow down (`raised`), or do as you like again (`cleared`)."""

    stream: ClassVar[str] = "slow_down"

    schema_: Literal["defectd.slow_down/1.0"] = Field(default="defectd.slow_down/1.0", alias="schema")
    state: Literal["raised", "cleared"]
    level: Literal["slow", "alarm"] | None = Field(description="null when cleared")
    detail: str
    hottest_c: float | None
    current_rate_hz: float | None = Field(description="Units per second now")
    sustainable_rate_hz: float | None = Field(description="Units per second at which no unit would be late")


class LatencyFigures(WireModel):
    """One stage over the last minute, milliseconds."""

    camera: str
    model: str | None = Field(description="Name and version; null if none judged")
    stage: Literal["queue", "preprocess", "inference", "postprocess", "capture_to_verdict"]
    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    jitter_ms: float = Field(description="Mean difference of one unit to the next")


class SlowUnit(WireModel):
    """A unit that took far longer than usual, and why, where that can be said."""

    camera: str
    trigger: int
    capture_to_verdict_ms: float
    because: str | None


class DeviceTelemetry(WireModel):
    """What the device did, and what the line felt, in the same interval. Null: this device does not tell."""

    schema_: Literal["defectd.device/1.0"] = Field(default="defectd.device/1.0", alias="schema")
    station: str
    boot_id: str
    ts: datetime
    source: Literal["sysfs", "jtop"]
    board: str
    l4t: str | None
    clock: Literal["ntp-synced", "unsynced", "unknown"]
    uptime_s: float
    power_mode: str | None
    throttled: bool
    throttle_causes: list[str]
    thermal_level: Literal["normal", "warn", "shed", "slow", "alarm"]
    hottest_c: float | None
    temps_c: dict[str, float]
    gpu_load: float | None = Field(description="0..1")
    gpu_clock_mhz: float | None
    gpu_clock_max_mhz: float | None = Field(description="The limit in force")
    cpu_clock_mhz: float | None
    cpu_clock_max_mhz: float | None
    emc_clock_mhz: float | None
    power_w: float | None = Field(description="The whole module, where a rail says so")
    rails_w: dict[str, float]
    fan_rpm: float | None
    fan_share: float | None = Field(description="0..1 of its full speed")
    mem_available_mb: float | None
    mem_total_mb: float | None
    nvmap_mb: float | None
    swap_used_mb: float | None
    disk_free_mb: float | None
    disk_total_mb: float | None
    disk_wear: float | None = Field(description="0..1 of its life used")
    rss_mb: dict[str, float]
    units: int = Field(description="Decided since the last message")
    deadline_misses: int = Field(description="The same, of those that were late")
    dropped: int = Field(description="Free-run: frames given up since the last message")
    queue_ms: float | None = Field(description="The longest wait for the engine since the last message")
    outbox_pending: int
    latency: list[LatencyFigures]
    slow_units: list[SlowUnit] = Field(description="The slowest few since the last message")
