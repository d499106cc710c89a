from __future__ import annotations

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'defectd[camera]'")


@pytest.mark.parametrize("ending", ["bmp", "png"])
@pytest.mark.parametrize("width_px", [1, 2, 3, 4, 5, 641])
def test_a_picture_of_any_width_is_read_again_as_it_was(tmp_path, ending, width_px):
    from defectd.recording.pictures import bytes_at_most, save

    pixels = np.random.default_rng(width_px).integers(0, 256, (7, width_px, 3), np.uint8)
    file = tmp_path / f"a.{ending}"
    assert save(file, pixels) == file.stat().st_size <= bytes_at_most(width_px, 7)
    assert np.array_equal(cv2.imread(str(file)), pixels)


def test_nothing_is_left_of_a_picture_that_cannot_be_written(tmp_path):
    from defectd.recording.pictures import save

    with pytest.raises(OSError, match="No such file"):
        save(tmp_path / "none" / "a.bmp", np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())
