"""What the station says of its models and of the rollout under way; docs/rollout.md tells the life of one."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import Field

from defectd.inspection.events import StoredEvent, WireModel


class ModelRef(WireModel):
    """A bundle, as a rollout names it."""

    name: str
    version: str
    release_seq: int
    manifest_sha256: str


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
