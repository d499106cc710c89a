"""What a free-running camera over a moving web says: defects that come and go, and how its frames are accounted for."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal, Tuple

from pydantic import Field

from defectd.inspection.events import Image, Model, Recipe, StoredEvent

Box = Tuple[float, float, float, float]
"""[x, y, width, height] in pixels, origin top left."""


class TrackEvent(StoredEvent):
    """One defect on the web, seen in several frames: it was `born`, or has `ended`. Published instead of one
    evt/inspection for each frame."""

    stream: ClassVar[str] = "track"

    schema_: Literal["defectd.track/1.0"] = Field(default="defectd.track/1.0", alias="schema")
    track_id: str = Field(description="UUIDv7; the same when it is born and when it has ended")
    state: Literal["born", "ended"]
    reason: Literal["gone", "stopped", "tracker_failed"] | None = Field(description="Why it ended; null when born")
    camera: str
    recipe: Recipe
    model: Model | None = Field(description="The one that judged the last frame")
    simulated: bool
    first_trigger: int = Field(description="The frame that showed it first")
    last_trigger: int = Field(description="The last one so far")
    first_seen_at: datetime
    last_seen_at: datetime
    frames: int = Field(description="Frames that showed it")
    code: str = Field(description="The defect code that it had most often")
    codes: dict[str, int] = Field(description="How often it had which")
    category: str
    class_name: str
    description: str
    priority: int = Field(description="1 is the highest")
    confidence: float = Field(ge=0, le=1, description="The best")
    best_trigger: int = Field(description="The frame with the best confidence")
    first_bbox_px: Box
    best_bbox_px: Box
    last_bbox_px: Box
    web_px_per_s: tuple[float, float] = Field(description="[x, y]: how fast the web moved, as the station saw it")
    images: list[Image] = Field(description="Of the frame in which it was born")


class StretchEvent(StoredEvent):
    """All frames of a tracked camera since the last of these events: none is left out between two of them.

    `frames` = `inspected` + `dropped` + `lost`, and `inspected` is the sum of `verdicts`.
    """

    stream: ClassVar[str] = "stretch"

    schema_: Literal["defectd.stretch/1.0"] = Field(default="defectd.stretch/1.0", alias="schema")
    camera: str
    from_trigger: int = Field(description="One more than `to_trigger` of the stretch before, also over restarts")
    to_trigger: int
    from_at: datetime = Field(description="When the first frame of this start was captured; `lost` ones are older")
    to_at: datetime
    frames: int = Field(description="to_trigger - from_trigger + 1")
    inspected: int
    dropped: int = Field(description="Given up for a newer frame")
    lost: int = Field(
        description="Frames before a crash of the daemon, but for its last second: their verdicts are unknown"
    )
    verdicts: dict[Literal["passed", "failed", "error", "aborted"], int]
    errors: dict[str, int] = Field(description="Frames with the verdict `error`, by reason")
    needs_review: int
    tracks_born: int
    tracks_ended: int
    tracks_open: int = Field(description="Defects that are in the picture at the end of this stretch")
    flickers: int = Field(description="What was seen in too few frames to be born")
    left_out: int = Field(
        default=0, description="Defects beyond the 50 most confident ones of their frame: not followed"
    )
