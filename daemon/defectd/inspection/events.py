"""The wire: what each message is made of, and what inspection says. `docs/wire.md` is generated from these models.

Heat is in `telemetry_wire.py`, rollouts are in `rollout_wire.py`, the list of all messages is `messages.py`.
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
    "frame_incomplete",
    "image_unfit",
    "view_missing",
    "wrong_recipe",
    "camera_lost",
    "camera_overrun",
    "engine_unavailable",
    "engine_failed",
    "non_finite_output",
]


UnitIdSource = Literal["file", "counter", "message", "code"]


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
    """Where the picture came from; its size is null when there was none, and where there are several `views`."""

    camera: str = Field(description="Or the name of the units, where several cameras see one")
    trigger: int = Field(description="Consecutive per camera, also over restarts: a hole shows a lost unit")
    frame_id: int | None = Field(description="The camera's own counter, where it has one")
    width_px: int | None
    height_px: int | None
    dropped_before: int = Field(default=0, description="Free-run: frames given up for this newer one")


class TimingMs(WireModel):
    """Milliseconds. A stage that was not reached is null. Of several views: of the one that waited longest."""

    queue: float | None = Field(description="Frame complete to engine start")
    preprocess: float | None
    inference: float | None
    postprocess: float | None
    capture_to_verdict: float


class ViewInfo(WireModel):
    """One of several looks at one unit."""

    camera: str = Field(description="Its name; top#2 is the second shot of a camera that takes several of each unit")
    trigger: int = Field(description="Consecutive per camera")
    frame_id: int | None
    width_px: int | None
    height_px: int | None
    verdict: Verdict | None = Field(description="Of this view alone; null if it came too late to matter")
    error: ErrorReason | None
    inference_ms: float | None


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
    camera: str | None = Field(default=None, description="The view that shows it, where there are several")


class Image(WireModel):
    """A picture kept on the station."""

    role: Literal["raw", "annotated"]
    path: str = Field(description="Relative to the station's evidence directory")
    mime: Literal["image/jpeg"] = "image/jpeg"
    bytes: int
    sha256: str
    camera: str | None = Field(default=None, description="The view, where there are several")


class InspectionEvent(StoredEvent):
    """One judgement of one unit. One per unit, good ones too."""

    stream: ClassVar[str] = "inspection"

    schema_: Literal["defectd.inspection/1.2"] = Field(default="defectd.inspection/1.2", alias="schema")
    unit_id: str
    unit_id_source: UnitIdSource = Field(description="Who says that this is the unit; `code` was read in the picture")
    position: str | None = Field(default=None, description="As the message said that named the unit")
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
    views: list[ViewInfo] = Field(default_factory=list, description="Empty where one camera looks once")
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
