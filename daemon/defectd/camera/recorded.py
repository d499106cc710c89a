"""What a recording looks like on disk: pictures as files, and one line about each unit in recording.jsonl.

The first line says what was recorded; `defectd record` writes it, and a replay reads it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from defectd.errors import CameraError
from defectd.inspection.events import ErrorReason

INDEX = "recording.jsonl"


class Line(BaseModel):
    """Frozen; a reader ignores what a newer writer added."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    def to_line(self) -> bytes:
        """UTF-8 JSON and a line feed."""
        return self.model_dump_json().encode() + b"\n"


class RecordingHeader(Line):
    """The first line. `camera` is the camera's settings, without passwords."""

    format: Literal["defectd.recording/1"] = "defectd.recording/1"
    defectd: str
    station: str
    started_at: datetime
    camera: dict[str, Any]


class RecordedUnit(Line):
    """One unit: `file`, or in `lost` why there is none. `offset_ms` is the time since the first unit, by the monotonic
    clock; from it a replay has the intervals."""

    trigger: int
    unit_id: str
    captured_at: datetime
    offset_ms: float = Field(ge=0)
    frame_id: int | None = None
    file: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    bytes: int | None = None
    lost: ErrorReason | None = None
    detail: str = ""

    @field_validator("file")
    @classmethod
    def _beside_the_index(cls, file: str | None) -> str | None:
        if file is not None and Path(file).name != file:
            raise ValueError("expected the name of a file beside the index")
        return file


def is_recording(folder: Path) -> bool:
    """True if *folder* has an index, so that its pictures are more than files."""
    return (folder / INDEX).is_file()


def read_recording(folder: Path) -> list[RecordedUnit]:
    """The units of *folder* in the order of their triggers. Raises CameraError, which names the line that is wrong.

    A last line without its end is left out: the recorder was killed while it wrote it.
    """
    index = folder / INDEX
    try:
        *lines, _ = index.read_bytes().split(b"\n")
    except OSError as error:
        raise CameraError(f"{index}: {error.strerror}; expected what `defectd record` wrote") from error
    units = []
    for number, line in enumerate(lines, 1):
        try:
            if number == 1:
                RecordingHeader.model_validate_json(line)
            else:
                units.append(RecordedUnit.model_validate_json(line))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ": ".join([f"{index}: line {number}", *map(str, problem["loc"])])
            raise CameraError(f"{where}: {problem['msg']}") from error
    if not units:
        raise CameraError(f"{index}: no units; expected a line for each")
    return sorted(units, key=lambda unit: unit.trigger)
