from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectd.inspection.letterbox import fit

sides = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("frame_hw", "resized_hw", "left_top_right_bottom"),
    [  # as printed by Ultralytics 8.4.190: LetterBox((640, 640)).get_params({"img": ...})
        ((640, 640), (640, 640), (0, 0, 0, 0)),
        ((480, 640), (480, 640), (0, 80, 0, 80)),
        ((1200, 1920), (400, 640), (0, 120, 0, 120)),
        ((517, 333), (640, 412), (114, 0, 114, 0)),
        ((1080, 1919), (360, 640), (0, 140, 0, 140)),
        ((333, 517), (412, 640), (0, 114, 0, 114)),
        ((1, 3000), (1, 640), (0, 319, 0, 320)),
        ((1025, 1024), (640, 639), (0, 0, 1, 0)),
    ],
)
def test_geometry_is_that_of_ultralytics(
    frame_hw: tuple[int, int], resized_hw: tuple[int, int], left_top_right_bottom: tuple[int, int, int, int]
) -> None:
    box = fit(frame_hw, (640, 640))
    assert box.resized_hw == resized_hw
    assert (box.pad_left, box.pad_top, box.pad_right, box.pad_bottom) == left_top_right_bottom


@settings(deadline=None)
@given(sides, sides, sides, sides)
def test_frame_and_padding_fill_the_input_exactly(h: int, w: int, input_h: int, input_w: int) -> None:
    box = fit((h, w), (input_h, input_w))
    assert box.resized_hw[0] + box.pad_top + box.pad_bottom == input_h
    assert box.resized_hw[1] + box.pad_left + box.pad_right == input_w
    assert min(box.resized_hw) >= 1
    assert min(box.pad_left, box.pad_top, box.pad_right, box.pad_bottom) >= 0


@settings(deadline=None)
@given(sides, sides, sides, sides)
def test_the_corners_of_the_frame_come_back(h: int, w: int, input_h: int, input_w: int) -> None:
    box = fit((h, w), (input_h, input_w))
    whole = np.array(
        [
            box.pad_left,
            box.pad_top,
            box.pad_left + box.resized_hw[1],
            box.pad_top + box.resized_hw[0],
        ],
        np.float32,
    )
    np.testing.assert_allclose(box.to_frame(whole[None])[0], [0, 0, w, h], rtol=1e-5)


def test_boxes_in_the_padding_are_clipped_to_the_frame() -> None:
    box = fit((480, 640), (640, 640))
    mapped = box.to_frame(np.array([[-5, 10, 700, 639]], np.float32))
    assert mapped.tolist() == [[0, 0, 640, 480]]


def test_mapping_leaves_its_input_alone() -> None:
    boxes = np.array([[0, 80, 10, 90]], np.float32)
    fit((480, 640), (640, 640)).to_frame(boxes)
    assert boxes.tolist() == [[0, 80, 10, 90]]


def test_no_boxes_map_to_no_boxes() -> None:
    assert fit((480, 640), (640, 640)).to_frame(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("frame_hw", [(0, 640), (640, 0), (0, 0)])
def test_a_frame_without_pixels_is_refused(frame_hw: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no pixels"):
        fit(frame_hw, (640, 640))


def test_only_a_frame_of_the_input_size_is_the_identity() -> None:
    assert fit((640, 512), (640, 512)).is_identity
    assert not fit((320, 256), (640, 512)).is_identity
