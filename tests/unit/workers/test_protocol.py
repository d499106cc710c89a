from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.inspection.detections import CUDA_EVENT, MONOTONIC, EngineTimings
from defectd.inspection.frame import Frame
from defectd.workers.protocol import (
    Alive,
    Framed,
    Grant,
    Infer,
    Inferred,
    Kind,
    Missed,
    Note,
    ProtocolError,
    Refused,
    Triggered,
    unpack,
)

NOW = datetime(2026, 11, 20, 9, 18, 4, 120_001, timezone.utc)


@pytest.mark.parametrize(
    "record",
    [
        Alive(),
        Grant(11),
        Triggered(2**40, 123_456_789_000, NOW, "Prüfling-7 /x"),
        Framed(7, Frame(3, 42, 1920, 1200, None)),
        Framed(7, Frame(3, 42, 1920, 1200, 0)),
        Missed(8, -1, "camera_lost", "the cable\0 fell out"),
        Infer(9, 1, 3, 42, 640, 480),
        Inferred(9, 300, 5, EngineTimings(0.5, 8.25, 0.125, CUDA_EVENT)),
        Inferred(9, 0, 5, EngineTimings(0.5, 8.25, 0.125, MONOTONIC)),
        Refused(9, "frame_torn", ""),
        Note(Kind.READY, {"names": ["a"], "warmup": {"steady": True}}),
    ],
)
def test_every_record_survives_the_socket(record):
    assert unpack(record.pack()) == record


@given(st.binary(max_size=200))
def test_anything_else_is_a_protocol_error_and_never_another_one(data):
    try:
        unpack(data)
    except ProtocolError as error:
        assert "not a record" in str(error)
