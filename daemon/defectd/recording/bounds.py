"""When a recording ends. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from defectd.evidence.retention import Disk


@dataclass(frozen=True)
class Bounds:
    """At most so many pictures, seconds and bytes; None: as many as the others allow."""

    max_bytes: int
    pictures: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Taken:
    """What has been recorded: pictures with those that are being written, which are `pending_bytes` at most."""

    pictures: int
    bytes: int
    pending_bytes: int
    seconds: float


def full(bounds: Bounds, taken: Taken) -> str:
    """Why no more is recorded; empty while it goes on."""
    if bounds.pictures is not None and taken.pictures >= bounds.pictures:
        return f"{bounds.pictures} pictures were asked for"
    if bounds.seconds is not None and taken.seconds >= bounds.seconds:
        return f"{bounds.seconds:g} s were asked for"
    return ""


def no_room(bounds: Bounds, taken: Taken, disk: Disk, next_bytes: int) -> str:
    """Why a picture of *next_bytes* has no room any more; empty if it has."""
    coming = taken.pending_bytes + next_bytes
    if taken.bytes + coming > bounds.max_bytes:
        return f"the next picture would exceed {bounds.max_bytes / 1e6:g} MB"
    if disk.free_bytes - coming < disk.reserve_bytes:
        return f"the next picture would leave less than {disk.reserve_bytes / 1e6:.0f} MB of the disk free"
    return ""
