"""A unit's image, by reference: the pixels stay in the frame ring."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True)
class Trigger:
    """One unit arrived in front of *camera*; from here on it is owed a verdict. Where several cameras see one unit,
    `camera` is the name of the units.

    `number` is consecutive per camera, also over restarts, so that a hole in it shows.
    `captured_ns` is CLOCK_MONOTONIC, `captured_at` the same instant in UTC.
    """

    camera: str
    number: int
    unit_id: str
    captured_ns: int
    captured_at: datetime

    def named(self, unit_id: str) -> Trigger:
        """The same one, of which is known now what it is called."""
        return replace(self, unit_id=unit_id)


@dataclass(frozen=True)
class Frame:
    """The pixels of a trigger: (height_px, width_px, 3) uint8 BGR in `slot` of its camera's ring.

    `generation` is the write counter of the slot; a reader that finds another one has a torn frame.
    `frame_id` is the camera's own counter, where it has one.
    """

    slot: int
    generation: int
    width_px: int
    height_px: int
    frame_id: int | None
