"""`cmd/unit`: the message that begins a unit, or names the one that comes next."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from defectd.inspection.events import WireModel

MAX_BYTES = 4096


class UnitCommand(WireModel):
    """To the station, QoS 1, not retained: a unit is here, or will come. The same `id` again is the same message."""

    schema_: Literal["defectd.unit/1.0"] = Field(default="defectd.unit/1.0", alias="schema")
    id: str = Field(min_length=1, max_length=64, description="Unique; a message that arrives twice is obeyed once")
    unit_id: str = Field(min_length=1, max_length=200, description="As the events will name it")
    sent_at: datetime | None = Field(default=None, description="An old message takes no picture: the unit is an error")
    unit: str | None = Field(default=None, description="Camera or units; needed if the station has several")
    recipe: str | None = Field(default=None, description="If the station has another one, the unit is an error")
    position: str | None = Field(default=None, max_length=200, description="As the event repeats it")

    @field_validator("sent_at")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("expected a time with its zone, such as 2026-11-20T09:18:04Z")
        return value


def read_unit_command(payload: bytes) -> UnitCommand:
    """Raises ValueError in words for whoever sent it."""
    if len(payload) > MAX_BYTES:
        raise ValueError(f"{len(payload)} bytes; expected at most {MAX_BYTES}")
    try:
        return UnitCommand.model_validate_json(payload)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'message'}: {each['msg']}" for each in error.errors())
        raise ValueError(told) from error
