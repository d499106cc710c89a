"""The port that every kind of camera implements, inside its worker process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Callable, Protocol

import numpy as np
from numpy.typing import NDArray

from defectd.inspection.events import ErrorReason

Pixels = NDArray[np.uint8]
Allocate = Callable[[int, int], Pixels]
"""(height_px, width_px) -> a writable (height_px, width_px, 3) uint8 array in the frame ring. Raises FrameTooLarge."""


@dataclass(frozen=True)
class Arrival:
    """A unit is in front of the camera. `captured_ns` is CLOCK_MONOTONIC. `lost` says why, if it passed without a
    picture."""

    unit_id: str
    captured_ns: int
    captured_at: datetime
    frame_id: int | None = None
    lost: ErrorReason | None = None


class SourceEnded(Exception):
    """No more units will come. Not a fault."""


class FrameTooLarge(Exception):
    """The picture does not fit a slot of the frame ring."""


class Undecodable(Exception):
    """There is a unit, but its data is no picture."""


class Source(Protocol):
    """A camera. Calls alternate: `wait` until it returns an Arrival, then at most one `fetch`.

    Where the daemon says when a picture is taken, `shoot` comes before each `wait`, and `idle` in the pauses.
    """

    patient: bool
    """True if units can wait for a free slot (files); False if they pass by (a line)."""

    def wait(self, number: int, timeout_s: float) -> Arrival | None:
        """Wait for trigger *number*; None if it did not come within *timeout_s*. Raises CameraLost, SourceEnded."""

    def shoot(self) -> None:
        """Take a picture now: the next `wait` gives one that was exposed after this call. Raises CameraLost."""

    def idle(self) -> None:
        """No picture is wanted: drop what has come, and look whether the camera is still there; must not wait.
        Called a few times a second. Raises CameraLost."""

    def fetch(self, allocate: Allocate) -> None:
        """Write the picture of the last arrival into the array that *allocate* gives.

        Raises Undecodable, FrameTooLarge, CameraLost.
        """

    def close(self) -> None:
        """Release the device. May be called twice."""
