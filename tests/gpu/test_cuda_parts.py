"""Events, uploads and graph capture on a real GPU."""

from __future__ import annotations

from typing import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
if not torch.cuda.is_available():
    pytest.skip(f"torch {torch.__version__} finds no CUDA device", allow_module_level=True)

from defectd.engine.cuda import EventRing, FrameUpload, Lap, Outputs, capture  # noqa: E402
from defectd.engine.kernels import DeviceLetterbox, pack  # noqa: E402
from defectd.engine.preprocess import CpuLetterbox  # noqa: E402
from defectd.inspection.letterbox import fit  # noqa: E402
from defectd.inspection.yolo import Head  # noqa: E402
from defectd.workers.ring import FrameRing, RingLayout  # noqa: E402

pytestmark = pytest.mark.torch
CUDA = torch.device("cuda")
RANDOM = np.random.default_rng(3)


@pytest.fixture()
def stream() -> Iterator[torch.cuda.Stream]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.inference_mode():
        yield stream
    torch.cuda.synchronize()


RINGS: list[FrameRing] = []  # kept to the end: what is registered with CUDA must stay mapped


@pytest.fixture()
def ring() -> FrameRing:
    RINGS.append(FrameRing.create(RingLayout(slots=3, frame_bytes=480 * 640 * 3)))
    return RINGS[-1]


def test_a_lap_measures_the_work_between_its_marks(stream: torch.cuda.Stream) -> None:
    lap = Lap()
    a = torch.rand(2048, 2048, device=CUDA)
    for _ in range(2):
        lap.mark(0)
        lap.mark(1)
        for _ in range(20):
            a = a @ a
        lap.mark(2)
        lap.mark(3)
        lap.wait()
    assert lap.ms(1, 2) > 10 * lap.ms(0, 1)
    assert lap.ms(0, 3) == pytest.approx(lap.ms(0, 1) + lap.ms(1, 2) + lap.ms(2, 3), rel=0.05)


def test_the_event_ring_uses_its_laps_in_turn(stream: torch.cuda.Stream) -> None:
    ring = EventRing(3)
    laps = [ring.next() for _ in range(6)]
    assert laps[:3] == laps[3:]
    assert len(set(map(id, laps))) == 3


def test_a_frame_in_a_ring_arrives_on_the_device(stream: torch.cuda.Stream, ring: FrameRing) -> None:
    upload = FrameUpload([ring], CUDA)
    for slot, (height, width) in enumerate([(480, 640), (10, 20), (480, 639)]):
        pixels = ring.pixels(slot, height, width)
        pixels[:] = RANDOM.integers(0, 256, pixels.shape, np.uint8)
        arrived = upload(pixels)
        stream.synchronize()
        np.testing.assert_array_equal(arrived.cpu().numpy(), pixels)


def test_a_ring_can_be_registered_as_pinned_memory_on_this_machine(ring: FrameRing) -> None:
    assert FrameUpload([ring], CUDA).note == "1 of 1 rings registered as pinned memory"
    assert torch.from_numpy(ring.pixels(0, 4, 4)).is_pinned()


def test_a_ring_that_cannot_be_registered_goes_through_the_staging_buffer(
    stream: torch.cuda.Stream, ring: FrameRing
) -> None:
    first = FrameUpload([ring], CUDA)
    second = FrameUpload([ring], CUDA)  # CUDA refuses to register the same memory twice
    assert second.note == "0 of 1 rings registered as pinned memory"
    assert float(torch.ones(4, device=CUDA).sum()) == 4  # the refusal does not surface later
    pixels = ring.pixels(0, 480, 640)
    pixels[:] = RANDOM.integers(0, 256, pixels.shape, np.uint8)
    for upload in (first, second):
        arrived = upload(pixels)
        stream.synchronize()
        np.testing.assert_array_equal(arrived.cpu().numpy(), pixels)


@pytest.mark.parametrize("frame_hw", [(64, 96), (480, 640), (33, 47)])
def test_the_letterbox_on_the_gpu_is_that_of_opencv(stream: torch.cuda.Stream, frame_hw: tuple[int, int]) -> None:
    frame = RANDOM.integers(0, 256, (*frame_hw, 3), np.uint8)
    box = fit(frame_hw, (64, 96))
    expected = np.zeros((64, 96, 3), np.float32)
    CpuLetterbox(expected).write(frame, box)
    target = torch.zeros((1, 3, 64, 96), device=CUDA)
    DeviceLetterbox(target).write(torch.from_numpy(frame).to(CUDA), box)
    difference = np.abs(target[0].permute(1, 2, 0).cpu().numpy() - expected)
    assert difference.max() <= 1.01 / 255
    assert difference.mean() < 0.15 / 255


class Doubling:
    """A step whose output is a dense head made from its input."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.input = torch.rand(1, 7, 500, device=CUDA, dtype=dtype)
        self.weight = torch.rand(7, 7, device=CUDA, dtype=dtype)

    def __call__(self) -> Outputs:
        head = torch.einsum("ij,bjk->bik", self.weight, self.input)
        return head, pack(head, Head.DENSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_captured_step_follows_its_input(stream: torch.cuda.Stream, dtype: torch.dtype) -> None:
    step = Doubling(dtype)
    for _ in range(3):
        step()
    replay = capture(step, step.input, stream)
    for _ in range(5):
        step.input.copy_(torch.rand_like(step.input))
        (expected, expected_packed), (head, packed) = step(), replay()
        torch.testing.assert_close(head, expected)
        torch.testing.assert_close(packed[4], expected_packed[4])


def test_a_graph_that_does_not_follow_its_input_is_not_used(stream: torch.cuda.Stream) -> None:
    step = Doubling(torch.float32)
    elsewhere = torch.rand_like(step.input)

    def stale() -> Outputs:
        captured = torch.cuda.is_current_stream_capturing()
        source = elsewhere if captured else step.input
        return source * 2, source[0, :6]

    stale()
    with pytest.raises(RuntimeError, match="replay differs"):
        capture(stale, step.input, stream)


def test_a_step_that_cannot_be_captured_leaves_the_device_usable(stream: torch.cuda.Stream) -> None:
    step = Doubling(torch.float32)

    def waiting() -> Outputs:
        head, packed = step()
        float(head.sum())  # a copy to the host, forbidden in a capture
        return head, packed

    waiting()
    with pytest.raises(RuntimeError):
        capture(waiting, step.input, stream)
    torch.cuda.synchronize()
    assert torch.isfinite(step()[0]).all()
