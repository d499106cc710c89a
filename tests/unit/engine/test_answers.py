"""What the worker answers, with a ring that is real and an engine that does as it is told."""

from __future__ import annotations

from typing import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from defectd.engine.worker import answer
from defectd.inspection.detections import MONOTONIC, Detections, EngineTimings
from defectd.inspection.yolo import MalformedOutput, NonFiniteOutput
from defectd.workers.child import Broken
from defectd.workers.protocol import Infer, Inferred, Refused
from defectd.workers.ring import FrameRing, RingLayout

TIMINGS = EngineTimings(0.5, 10.0, 0.25, MONOTONIC)
ONE_BOX = Detections(np.array([[1, 2, 3, 4]], np.float32), np.array([0.5], np.float32), np.array([2], np.int32))


class ObedientEngine:
    """Runs *script* instead of a model."""

    runtime, device, device_name = "none", "cpu", "none"

    def __init__(self, script: Callable[[NDArray[np.uint8]], Detections]) -> None:
        self.script = script
        self.dead = False

    def infer(self, pixels: NDArray[np.uint8]) -> tuple[Detections, EngineTimings]:
        return self.script(pixels), TIMINGS

    def settle(self, breathe: Callable[[], None]) -> list[str]:
        return []

    def check(self) -> None:
        if self.dead:
            raise RuntimeError("CUDA error: unspecified launch failure")


def failing(error: Exception) -> ObedientEngine:
    def script(pixels: NDArray[np.uint8]) -> Detections:
        raise error

    return ObedientEngine(script)


@pytest.fixture()
def ring() -> Iterator[FrameRing]:
    ring = FrameRing.create(RingLayout(slots=2, frame_bytes=6 * 8 * 3))
    yield ring
    ring.close()


def put(ring: FrameRing) -> Infer:
    """A complete frame in slot 1, and the request for it."""
    ring.begin_write(1)
    ring.pixels(1, 6, 8)[:] = 7
    return Infer(request=5, ring=0, slot=1, generation=ring.end_write(1), width_px=8, height_px=6)


def test_detections_are_left_in_the_slot(ring: FrameRing) -> None:
    request = put(ring)
    reply = answer(ObedientEngine(lambda pixels: ONE_BOX), [ring], request)
    assert isinstance(reply, Inferred)
    assert (reply.request, reply.count, reply.timings) == (5, 1, TIMINGS)
    assert ring.read_detections(1, 1).xyxy.tolist() == [[1, 2, 3, 4]]


def test_the_engine_sees_the_pixels_of_the_slot(ring: FrameRing) -> None:
    seen: list[tuple[tuple[int, ...], int]] = []

    def script(pixels: NDArray[np.uint8]) -> Detections:
        seen.append((pixels.shape, int(pixels.max())))
        return Detections.none()

    answer(ObedientEngine(script), [ring], put(ring))
    assert seen == [((6, 8, 3), 7)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"generation": 4}, "frame_torn"),
        ({"width_px": 0}, "frame_undecodable"),
        ({"height_px": 0}, "frame_undecodable"),
        ({"width_px": 4000, "height_px": 3000}, "frame_too_large"),
        ({"slot": 9}, "engine_failed"),
        ({"ring": 3}, "engine_failed"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(ring: FrameRing, change: dict[str, int], reason: str) -> None:
    request = Infer(**{**put(ring).__dict__, **change})
    reply = answer(failing(AssertionError("not reached")), [ring], request)
    assert isinstance(reply, Refused)
    assert (reply.request, reply.reason) == (5, reason)
    assert reply.detail


def test_a_frame_that_is_written_while_it_is_read_is_torn_and_its_slot_left_alone(ring: FrameRing) -> None:
    def overwritten(pixels: NDArray[np.uint8]) -> Detections:
        ring.begin_write(1)
        return ONE_BOX

    reply = answer(ObedientEngine(overwritten), [ring], put(ring))
    assert isinstance(reply, Refused)
    assert reply.reason == "frame_torn"
    assert ring.read_detections(1, 1).scores.tolist() == [0.0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NonFiniteOutput("NaN"), "non_finite_output"),
        (MalformedOutput("a class id outside 0..1"), "engine_failed"),
        (RuntimeError("shape '[7, -1, 11]' is invalid for input of size 18432"), "engine_failed"),
    ],
)
def test_an_error_of_one_frame_refuses_that_frame(ring: FrameRing, error: Exception, reason: str) -> None:
    reply = answer(failing(error), [ring], put(ring))
    assert isinstance(reply, Refused)
    assert reply.reason == reason
    assert str(error) in reply.detail


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED"),
        MemoryError(),
    ],
)
def test_an_error_that_outlives_the_frame_ends_the_process(ring: FrameRing, error: Exception) -> None:
    with pytest.raises(Broken):
        answer(failing(error), [ring], put(ring))


def test_an_innocent_looking_error_ends_the_process_if_it_left_the_device_broken(ring: FrameRing) -> None:
    engine = failing(RuntimeError("something odd"))
    engine.dead = True
    with pytest.raises(Broken, match="something odd; then RuntimeError: CUDA error"):
        answer(engine, [ring], put(ring))
