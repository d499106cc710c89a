"""The wire: every message that leaves the station, as frozen models. `docs/wire.md` is generated from here.

Consumers ignore fields they do not know; a new optional field is a minor step of `schema`, anything else a
new topic root. Units are part of the names: `_ms` milliseconds, `_px` pixels of the full frame.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import uuid6
from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["passed", "failed", "error", "aborted", "skipped"]
ErrorReason = Literal[
    "deadline_exceeded",
    "frame_missing",
    "frame_undecodable",
    "frame_too_large",
    "frame_torn",
    "frame_frozen",
    "camera_lost",
    "camera_overrun",
    "engine_unavailable",
    "engine_failed",
    "non_finite_output",
]


def new_id() -> str:
    """A UUIDv7: unique, and ordered by creation within this process even when the wall clock steps back."""
    return str(uuid6.uuid7())


class WireModel(BaseModel):
    """Frozen, and strict about what we send; consumers are told to be lenient."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    def to_json(self) -> bytes:
        """UTF-8 JSON as it goes on the wire."""
        return self.model_dump_json(by_alias=True).encode()


class StoredEvent(WireModel):
    """An event that goes through the outbox: it is on disk before it is published, and de-duplicated by `id`.

    The outbox gives it `epoch` (changes only when the state is recreated) and `seq` (consecutive per stream and
    epoch) at the moment it accepts it; until then they are empty.
    """

    stream: ClassVar[str]

    schema_: str = Field(alias="schema")
    id: str = Field(default_factory=new_id, description="UUIDv7; de-duplicate on it")
    epoch: str = Field(default="", description="UUID of the outbox; a new one means that `seq` begins anew")
    seq: int = Field(default=0, description="Consecutive per stream and epoch; a hole is explained by evt/gap")
    station: str
    boot_id: str = Field(description="UUID of this start of the daemon")
    created_at: datetime
    replayed: bool = Field(default=False, description="True when it is sent again on request")

    def stamped(self, epoch: str, seq: int) -> StoredEvent:
        """The same event with its place in the stream."""
        return self.model_copy(update={"epoch": epoch, "seq": seq})

    @property
    def expendable(self) -> bool:
        """True if this event may be dropped, and counted, before others when the disk bound is reached."""
        return False


class Recipe(WireModel):
    """The product type that the unit was judged as."""

    name: str
    revision: str


class Model(WireModel):
    """The model that judged the unit, for audit."""

    name: str
    version: str
    sha256: str
    runtime: str = Field(description="For example torchscript-fp16-cuda")


class FrameInfo(WireModel):
    """Where the picture came from; its size is null when there was none."""

    camera: str
    trigger: int = Field(description="Consecutive per camera, also over restarts: a hole shows a lost unit")
    frame_id: int | None = Field(description="The camera's own counter, where it has one")
    width_px: int | None
    height_px: int | None
    dropped_before: int = Field(default=0, description="Free-run: frames given up for this newer one")


class TimingMs(WireModel):
    """Milliseconds. A stage that was not reached is null."""

    queue: float | None = Field(description="Frame complete to engine start")
    preprocess: float | None
    inference: float | None
    postprocess: float | None
    capture_to_verdict: float


class Conditions(WireModel):
    """What the device was doing. Null: it does not tell."""

    throttled: bool | None = Field(description="Heat or current held the clocks down")
    gpu_clock_mhz: float | None
    clock: Literal["ntp-synced", "unsynced", "unknown"] = Field(description="Whether wall clock times can be believed")


class Defect(WireModel):
    """One finding."""

    code: str = Field(description="The recipe's defect code")
    category: str
    class_name: str = Field(description="The model's class")
    description: str
    confidence: float = Field(ge=0, le=1)
    priority: int = Field(description="1 is the highest")
    bbox_px: tuple[float, float, float, float] = Field(description="[x, y, width, height], origin top left")


class Image(WireModel):
    """A picture kept on the station."""

    role: Literal["raw", "annotated"]
    path: str = Field(description="Relative to the station's evidence directory")
    mime: Literal["image/jpeg"] = "image/jpeg"
    bytes: int
    sha256: str


class InspectionEvent(StoredEvent):
    """One judgement of one unit. One per unit, good ones too."""

    stream: ClassVar[str] = "inspection"

    schema_: Literal["defectd.inspection/1.1"] = Field(default="defectd.inspection/1.1", alias="schema")
    unit_id: str
    unit_id_source: Literal["file", "counter"]
    recipe: Recipe
    model: Model | None = Field(description="null when no model was serving")
    settings_sha256: str = Field(description="Of the effective settings, secrets left out")
    started_at: datetime = Field(description="The moment of capture")
    ended_at: datetime = Field(description="The moment of the verdict")
    verdict: Verdict
    needs_review: bool
    error: ErrorReason | None = Field(description="Why the verdict is `error`")
    error_detail: str | None
    simulated: bool = Field(description="True for generated or replayed pictures")
    frame: FrameInfo
    timing_ms: TimingMs
    inference_clock: Literal["cuda_event", "monotonic"] | None
    conditions: Conditions | None = Field(default=None, description="Under which it was judged; null if unknown")
    defects: list[Defect]
    defect_count: int
    images: list[Image]

    def after_drops(self, dropped: int) -> InspectionEvent:
        """The same event, saying that so many frames of its camera gave way before it."""
        if dropped == 0:
            return self
        return self.model_copy(update={"frame": self.frame.model_copy(update={"dropped_before": dropped})})

    @property
    def expendable(self) -> bool:
        """Passed units are rolled into the gap's counters before anything else is dropped."""
        return self.verdict == "passed" and not self.needs_review


class FaultEvent(StoredEvent):
    """Something is wrong with the station (`raised`), or is right again (`cleared`)."""

    stream: ClassVar[str] = "fault"

    schema_: Literal["defectd.fault/1.0"] = Field(default="defectd.fault/1.0", alias="schema")
    component: str = Field(description="camera/NAME, engine, outbox, mqtt, evidence")
    code: str
    state: Literal["raised", "cleared", "noted"] = Field(description="`noted` has no end: it happened once")
    detail: str
    data: dict[str, Any] = Field(default_factory=dict)


class GapEvent(StoredEvent):
    """Events that were lost, and why. Every hole in a `seq` is covered by one of these."""

    stream: ClassVar[str] = "gap"

    schema_: Literal["defectd.gap/1.0"] = Field(default="defectd.gap/1.0", alias="schema")
    of_stream: str
    from_seq: int
    to_seq: int
    ranges: list[tuple[int, int]] = Field(description="The lost [first, last] runs within from_seq..to_seq")
    lost: int
    lost_by_verdict: dict[str, int] = Field(default_factory=dict)
    reason: Literal["outbox_full", "disk_full", "rejected_by_broker", "payload_too_large"]


class ActiveFault(WireModel):
    """A fault that holds now."""

    component: str
    code: str
    detail: str
    since: datetime


class Status(WireModel):
    """Retained; the broker publishes the `offline` one when the station disappears."""

    schema_: Literal["defectd.status/1.0"] = Field(default="defectd.status/1.0", alias="schema")
    state: Literal["online", "offline"]
    condition: Literal["starting", "inspecting", "degraded", "stopping", "stopped", "lost"]
    detail: str
    boot_id: str
    ts: datetime
    faults: list[ActiveFault] = Field(default_factory=list)


class WarmupReport(WireModel):
    """How the engine became warm. `steady` is false if it gave up at the limit of iterations."""

    cold_first_call_ms: float
    iterations: int
    steady: bool
    steady_p50_ms: float
    steady_p99_ms: float


class CameraInfo(WireModel):
    """One of the station's cameras."""

    name: str
    kind: str
    mode: Literal["triggered", "free_run"]
    first_trigger: int = Field(description="The first trigger number of this start")


class ClassCode(WireModel):
    """What the recipe calls a class of the model."""

    class_name: str
    code: str
    min_confidence: float


class Birth(WireModel):
    """Retained; what this station is and speaks. Sent on every connection, and whenever faults or the engine change."""

    schema_: Literal["defectd.birth/1.0"] = Field(default="defectd.birth/1.0", alias="schema")
    station: str
    boot_id: str
    ts: datetime
    defectd: str = Field(description="Version of the daemon")
    epoch: str
    next_seq: dict[str, int]
    schemas: dict[str, str] = Field(description="Topic under the station's prefix to schema")
    settings_sha256: str
    recipe: Recipe
    classes: list[ClassCode]
    deadline_ms: float
    cameras: list[CameraInfo]
    model: Model | None
    warmup: WarmupReport | None


class ModelRef(WireModel):
    """A bundle, as a rollout names it."""

    name: str
    version: str
    release_seq: int
    manifest_sha256: str


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


class RolloutEvent(StoredEvent):
    """A rollout went one step further; docs/rollout.md has the table of states."""

    stream: ClassVar[str] = "rollout"

    schema_: Literal["defectd.rollout/1.0"] = Field(default="defectd.rollout/1.0", alias="schema")
    request_id: str
    action: str
    from_state: str | None = Field(description="null for the first step")
    state: str
    code: str = Field(description="Empty while all goes well")
    detail: str
    manifest_sha256: str | None
    attempts: int


class RolloutReport(WireModel):
    """Where the rollout is, or how the last one ended."""

    request_id: str
    seq: int
    action: Literal["deploy", "rollback"]
    state: str
    successful: bool = Field(description="True only after live units: it is committed")
    finished: bool = Field(description="The state is final")
    code: str = Field(description="Why it ended, for machines; empty while all goes well")
    detail: str = Field(description="The same for a technician, with what to do")
    waits_for: str | None = Field(description="approve, or what else, such as window 22:00-04:30; null if it works")
    percent: float | None = Field(ge=0, le=100, description="Of the present state, where there is one")
    attempts: int
    target: ModelRef | None = Field(description="null until its manifest is verified")
    gates: dict[str, dict[str, Any]] = Field(description="golden, shadow, probation: their numbers")
    received_at: datetime
    changed_at: datetime


class CommandReport(WireModel):
    """What became of the last command that arrived."""

    request_id: str | None = Field(description="null if it could not be read")
    seq: int | None
    accepted: bool
    code: str = Field(description="accepted, again, or why not: signature, expired, stale, conflict, not_for_us, …")
    detail: str
    ts: datetime


class ModelReported(WireModel):
    """Retained; which models this station has, and where its rollout is."""

    schema_: Literal["defectd.model_reported/1.0"] = Field(default="defectd.model_reported/1.0", alias="schema")
    station: str = Field(description="site/area/line/station")
    groups: list[str]
    boot_id: str
    ts: datetime
    current: ModelRef | None
    previous: ModelRef | None
    candidate: ModelRef | None
    factory: ModelRef | None
    floor_release_seq: int = Field(description="Older bundles need a signed allow_downgrade")
    floor_command_seq: int = Field(description="The next command needs a higher `seq`")
    rollout: RolloutReport | None
    last_command: CommandReport | None


class ModelProgress(WireModel):
    """Not retained; for a progress bar, at most twice a second."""

    schema_: Literal["defectd.model_progress/1.0"] = Field(default="defectd.model_progress/1.0", alias="schema")
    request_id: str
    state: str
    percent: float | None = Field(ge=0, le=100)
    detail: str
    ts: datetime


STORED_EVENTS: tuple[type[StoredEvent], ...] = (InspectionEvent, FaultEvent, GapEvent, SlowDownEvent, RolloutEvent)
ALL_MESSAGES: tuple[type[WireModel], ...] = (
    *STORED_EVENTS, Status, Birth, DeviceTelemetry, ModelReported, ModelProgress,
)  # fmt: skip
