"""The GPU's torch expressions, run on the CPU against what OpenCV and numpy make of the same."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("cv2", reason="needs OpenCV")

from defectd.engine.kernels import DeviceLetterbox, pack  # noqa: E402
from defectd.engine.preprocess import CpuLetterbox  # noqa: E402
from defectd.engine.torchscript import fuser_is_unsafe  # noqa: E402
from defectd.inspection.letterbox import fit  # noqa: E402
from defectd.inspection.yolo import Head, select  # noqa: E402

pytestmark = pytest.mark.torch
RANDOM = np.random.default_rng(7)
ONE_LEVEL = 1 / 255


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("frame_hw", [(64, 96), (48, 96), (100, 30), (400, 640), (131, 257), (1, 50), (20, 20)])
def test_the_letterbox_of_the_gpu_is_that_of_opencv(frame_hw: tuple[int, int], dtype: torch.dtype) -> None:
    frame = RANDOM.integers(0, 256, (*frame_hw, 3), np.uint8)
    box = fit(frame_hw, (64, 96))
    expected = np.zeros((64, 96, 3), np.float32)
    CpuLetterbox(expected).write(frame, box)
    target = torch.zeros((1, 3, 64, 96), dtype=dtype)
    DeviceLetterbox(target).write(torch.from_numpy(frame), box)
    difference = np.abs(target[0].permute(1, 2, 0).float().numpy() - expected)
    resized = box.resized_hw != frame_hw  # OpenCV interpolates in fixed point: one level up or down
    rounding = 0.07 * ONE_LEVEL if dtype is torch.float16 else 1e-6
    assert difference.max() <= (ONE_LEVEL if resized else 0) + rounding
    assert difference.mean() < 0.15 * ONE_LEVEL


def test_the_letterbox_of_the_cpu_writes_any_memory_layout() -> None:
    frame = RANDOM.integers(0, 256, (50, 50, 3), np.uint8)
    box = fit((50, 50), (64, 96))
    last = torch.zeros((1, 3, 64, 96)).contiguous(memory_format=torch.channels_last)
    first = torch.zeros((1, 3, 64, 96))
    for target in (last, first):
        CpuLetterbox(target[0].permute(1, 2, 0).numpy()).write(frame, box)
    assert torch.equal(last, first)
    assert last[0, :, 0, 0].tolist() == pytest.approx([114 / 255] * 3)


def test_new_geometry_draws_the_padding_anew() -> None:
    target = torch.zeros((1, 3, 64, 96))
    letterbox = DeviceLetterbox(target)
    for frame_hw in ((64, 20), (20, 96)):
        frame = torch.full((*frame_hw, 3), 255, dtype=torch.uint8)
        letterbox.write(frame, fit(frame_hw, (64, 96)))
        assert float(target[0, 0, 32, 48]) == 1.0
        padded = int((target == 114 / 255).sum()) / target.numel()
        box = fit(frame_hw, (64, 96))
        assert padded == pytest.approx(1 - box.resized_hw[0] * box.resized_hw[1] / (64 * 96))


@pytest.mark.parametrize("anchors", [300, 5000])
def test_packed_candidates_of_a_dense_head_are_those_that_numpy_selects(anchors: int) -> None:
    output = RANDOM.random((1, 9, anchors), np.float32)
    output[0, 4:] = RANDOM.permutation(np.linspace(0, 0.6, 5 * anchors, dtype=np.float32)).reshape(5, -1)  # no ties
    packed = pack(torch.from_numpy(output), Head.DENSE).numpy()
    candidates, finite = packed[:, :-1], packed[0, -1]
    assert finite == 1
    threshold = 0.5 if anchors < 1024 else 0.58  # so that fewer than the limit of candidates are above it
    selected = select(output[0], threshold)
    expected = selected[:, np.argsort(-selected[4])]
    np.testing.assert_array_equal(candidates[:, candidates[4] > threshold], expected)


def test_packed_candidates_of_an_end_to_end_head_are_its_rows() -> None:
    output = RANDOM.random((1, 30, 6), np.float32)
    packed = pack(torch.from_numpy(output), Head.END_TO_END).numpy()
    np.testing.assert_array_equal(packed[:, :-1].T, output[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [(0, 0, 0), (0, 5, 4999), (0, 8, 17)])
def test_one_non_finite_number_anywhere_clears_the_flag(value: float, where: tuple[int, int, int]) -> None:
    output = torch.rand(1, 9, 5000) * 0.1
    output[where] = value
    assert float(pack(output, Head.DENSE)[0, -1]) == 0


@pytest.mark.parametrize(
    ("version", "unsafe"),
    [
        ("2.0.1", True),
        ("1.13.0a0+d0d6b1f2.nv22.10", True),
        ("2.1.0a0+41361538.nv23.06", True),
        ("2.1.0", False),
        ("2.1.2+cpu", False),
        ("2.5.0a0+872d972e41.nv24.08", False),
        ("2.13.0", False),
    ],
)
def test_the_fuser_is_off_where_it_can_crash(version: str, unsafe: bool) -> None:
    assert fuser_is_unsafe(version) is unsafe
