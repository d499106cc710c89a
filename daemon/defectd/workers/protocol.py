"""The records between the daemon and its workers: fixed binary structs, one per datagram, never a pickle.

Set-up (CONFIGURE, READY) and rare news (FAULT) are JSON; everything per unit is a struct. Little-endian, no padding.
Times are CLOCK_MONOTONIC nanoseconds, which all processes of one boot share.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import IntEnum
from typing import Any, ClassVar, Union, cast, get_args

from defectd.inspection.detections import CUDA_EVENT, MONOTONIC, EngineTimings
from defectd.inspection.events import ErrorReason
from defectd.inspection.frame import Frame

MAX_RECORD_BYTES = 64 * 1024
NO_FRAME_ID = -1
NO_SLOT = -1
_REASONS = get_args(ErrorReason)


class Kind(IntEnum):
    """First byte of every record."""

    CONFIGURE = 1
    READY = 2
    ALIVE = 3
    FAULT = 4
    ENDED = 5
    STAGE = 6
    GRANT = 10
    TRIGGERED = 11
    FRAMED = 12
    MISSED = 13
    SHOOT = 14
    NAMED = 15
    INFER = 20
    INFERRED = 21
    REFUSED = 22
    KEEP = 30
    KEPT = 31


@dataclass(frozen=True)
class Note:
    """A JSON record: CONFIGURE (to the worker), READY (its report), FAULT (`code`, `state`, `detail`),
    ENDED (the source has no more units), STAGE (how far a start is), KEEP and KEPT (evidence)."""

    kind: Kind
    body: dict[str, Any]

    def pack(self) -> bytes:
        """As it goes through the socket."""
        return bytes([self.kind]) + json.dumps(self.body).encode()


@dataclass(frozen=True)
class Alive:
    """The worker is waiting on purpose (for a trigger, a request), not stuck."""

    def pack(self) -> bytes:
        """As it goes through the socket."""
        return bytes([Kind.ALIVE])


@dataclass(frozen=True)
class Grant:
    """To the camera: slot *slot* is yours to write one frame."""

    slot: int
    layout: ClassVar[struct.Struct] = struct.Struct("<BI")

    def pack(self) -> bytes:
        """As it goes through the socket."""
        return self.layout.pack(Kind.GRANT, self.slot)


@dataclass(frozen=True)
class Triggered:
    """From the camera: unit *number* is here; it is owed a verdict from now on."""

    number: int
    captured_ns: int
    captured_at: datetime
    unit_id: str
    layout: ClassVar[struct.Struct] = struct.Struct("<Bqqd")

    def pack(self) -> bytes:
        """As it goes through the socket."""
        head = self.layout.pack(Kind.TRIGGERED, self.number, self.captured_ns, self.captured_at.timestamp())
        return head + self.unit_id.encode(errors="backslashreplace")  # a file's name need not be UTF-8


@dataclass(frozen=True)
class Shoot:
    """To the camera: take picture *number* now, of a unit that was born at *asked_ns*."""

    number: int
    asked_ns: int
    layout: ClassVar[struct.Struct] = struct.Struct("<Bqq")

    def pack(self) -> bytes:
        """As it goes through the socket."""
        return self.layout.pack(Kind.SHOOT, self.number, self.asked_ns)


@dataclass(frozen=True)
class Named:
    """From the camera, before the picture is: what the code on unit *number* says."""

    number: int
    unit_id: str
    layout: ClassVar[struct.Struct] = struct.Struct("<Bq")

    def pack(self) -> bytes:
        """As it goes through the socket."""
        return self.layout.pack(Kind.NAMED, self.number) + self.unit_id.encode(errors="backslashreplace")


@dataclass(frozen=True)
class Framed:
    """From the camera: the pixels of unit *number* are complete."""

    number: int
    frame: Frame
    layout: ClassVar[struct.Struct] = struct.Struct("<BqIQIIq")

    def pack(self) -> bytes:
        """As it goes through the socket."""
        f = self.frame
        frame_id = NO_FRAME_ID if f.frame_id is None else f.frame_id
        return self.layout.pack(Kind.FRAMED, self.number, f.slot, f.generation, f.width_px, f.height_px, frame_id)


@dataclass(frozen=True)
class Missed:
    """From the camera: unit *number* will have no pixels. *slot* is the grant that was not used, or NO_SLOT."""

    number: int
    slot: int
    reason: ErrorReason
    detail: str
    layout: ClassVar[struct.Struct] = struct.Struct("<Bqi")

    def pack(self) -> bytes:
        """As it goes through the socket."""
        tail = f"{self.reason}\0{self.detail[:1000]}"
        return self.layout.pack(Kind.MISSED, self.number, self.slot) + tail.encode()


@dataclass(frozen=True)
class Infer:
    """To the engine: judge the frame in *slot* of ring number *ring*."""

    request: int
    ring: int
    slot: int
    generation: int
    width_px: int
    height_px: int
    layout: ClassVar[struct.Struct] = struct.Struct("<BqHIQII")

    def pack(self) -> bytes:
        """As it goes through the socket."""
        return self.layout.pack(
            Kind.INFER, self.request, self.ring, self.slot, self.generation, self.width_px, self.height_px
        )


@dataclass(frozen=True)
class Inferred:
    """From the engine: *count* detections lie in the slot."""

    request: int
    count: int
    started_ns: int
    timings: EngineTimings
    layout: ClassVar[struct.Struct] = struct.Struct("<BqIqddd?")

    def pack(self) -> bytes:
        """As it goes through the socket."""
        t = self.timings
        return self.layout.pack(
            Kind.INFERRED,
            self.request,
            self.count,
            self.started_ns,
            t.preprocess_ms,
            t.inference_ms,
            t.postprocess_ms,
            t.inference_clock == CUDA_EVENT,
        )


@dataclass(frozen=True)
class Refused:
    """From the engine: no answer for this request."""

    request: int
    reason: ErrorReason
    detail: str
    layout: ClassVar[struct.Struct] = struct.Struct("<Bq")

    def pack(self) -> bytes:
        """As it goes through the socket."""
        return self.layout.pack(Kind.REFUSED, self.request) + f"{self.reason}\0{self.detail[:1000]}".encode()


Record = Union[Note, Alive, Grant, Triggered, Shoot, Named, Framed, Missed, Infer, Inferred, Refused]


class ProtocolError(Exception):
    """The other side sent something that is no record: it is broken and must be replaced."""


def unpack(data: bytes) -> Record:
    """The record in one datagram. Raises ProtocolError on anything else."""
    try:
        return _unpack(Kind(data[0]), data)
    except (ValueError, IndexError, KeyError, OverflowError, OSError, struct.error) as error:
        raise ProtocolError(f"not a record: {data[:32]!r}: {error}") from error


def _unpack(kind: Kind, data: bytes) -> Record:  # noqa: PLR0911 - one return per record
    if kind is Kind.ALIVE:
        return Alive()
    if kind is Kind.GRANT:
        return Grant(Grant.layout.unpack(data)[1])
    if kind is Kind.TRIGGERED:
        _, number, captured_ns, captured_at_s = Triggered.layout.unpack_from(data)
        captured_at = datetime.fromtimestamp(captured_at_s, timezone.utc)
        return Triggered(number, captured_ns, captured_at, data[Triggered.layout.size :].decode())
    if kind is Kind.SHOOT:
        return Shoot(*Shoot.layout.unpack(data)[1:])
    if kind is Kind.NAMED:
        return Named(Named.layout.unpack_from(data)[1], data[Named.layout.size :].decode())
    if kind is Kind.FRAMED:
        _, number, slot, generation, width, height, frame_id = Framed.layout.unpack(data)
        return Framed(number, Frame(slot, generation, width, height, None if frame_id < 0 else frame_id))
    if kind is Kind.MISSED:
        _, number, slot = Missed.layout.unpack_from(data)
        reason, detail = _reason(data[Missed.layout.size :])
        return Missed(number, slot, reason, detail)
    if kind is Kind.INFER:
        return Infer(*Infer.layout.unpack(data)[1:])
    if kind is Kind.INFERRED:
        _, request, count, started_ns, *stages, cuda = Inferred.layout.unpack(data)
        timings = EngineTimings(stages[0], stages[1], stages[2], CUDA_EVENT if cuda else MONOTONIC)
        return Inferred(request, count, started_ns, timings)
    if kind is Kind.REFUSED:
        return Refused(Refused.layout.unpack_from(data)[1], *_reason(data[Refused.layout.size :]))
    body = json.loads(data[1:])
    if not isinstance(body, dict):
        raise ValueError("expected an object")  # noqa: TRY004 - of the other side's making
    return Note(kind, body)


def _reason(tail: bytes) -> tuple[ErrorReason, str]:
    reason, _, detail = tail.decode(errors="replace").partition("\0")
    if reason not in _REASONS:
        raise ValueError(f"unknown reason {reason!r}")
    return cast(ErrorReason, reason), detail
