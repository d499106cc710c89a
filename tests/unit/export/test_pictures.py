from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV")
from defectd.errors import ModelError
from defectd.export.pictures import network_input, noise_pictures, pictures_in, probes, read_picture, to_png


def test_a_golden_picture_survives_its_file(tmp_path: Path) -> None:
    pixels = noise_pictures((64, 96))[1]
    (tmp_path / "a.png").write_bytes(to_png(pixels))
    assert np.array_equal(read_picture(tmp_path / "a.png"), pixels)


def test_noise_is_the_same_each_time_and_needs_the_letterbox() -> None:
    pictures, again = noise_pictures((64, 96)), noise_pictures((64, 96))
    assert all(np.array_equal(one, other) for one, other in zip(pictures, again))
    assert {one.shape for one in pictures} == {(64, 96, 3), (48, 96, 3)}


def test_the_network_sees_rgb_in_0_to_1_with_grey_around() -> None:
    blue = np.zeros((32, 96, 3), np.uint8)
    blue[..., 0] = 255
    seen = network_input(blue, (64, 96))
    assert seen.tensor.shape == (1, 3, 64, 96)
    assert seen.tensor.dtype == np.float32
    assert seen.tensor[0, :, 32, 48].tolist() == [0, 0, 1]
    assert seen.tensor[0, :, 0, 0] == pytest.approx([114 / 255] * 3)


def test_probes_are_inputs_and_differ() -> None:
    inputs = probes((32, 64))
    assert all(one.shape == (1, 3, 32, 64) and one.dtype == np.float32 for one in inputs)
    assert len({float(one.mean()) for one in inputs}) == len(inputs)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ModelError, match=r"a.jpg: .*no picture"):
        read_picture(tmp_path / "a.jpg")


def test_only_pictures_are_listed(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.png").write_bytes(b"")
    assert [one.name for one in pictures_in(tmp_path)] == ["a.png", "b.JPG"]
    assert len(pictures_in(tmp_path, deep=True)) == 3
