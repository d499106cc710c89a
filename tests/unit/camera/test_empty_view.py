"""The empty view of a worker before is used whole, for the same place, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from defectd.camera.empty_view import read_empty_view, write_empty_view

REGION, PICTURE_PX = (0, 200, 1920, 400), (1080, 1920)
VIEW = np.arange(600, dtype=np.float32).reshape(20, 30)


@pytest.fixture
def file(tmp_path):
    write_empty_view(tmp_path / "presence-top.npy", VIEW, REGION, PICTURE_PX)
    return tmp_path / "presence-top.npy"


def test_it_comes_back_and_can_follow_the_light(file):
    view = read_empty_view(file, list(REGION), PICTURE_PX)
    assert view.dtype == np.float32 and np.array_equal(view, VIEW)
    view += 1
    assert [each.name for each in file.parent.iterdir()] == ["presence-top.npy"]


@pytest.mark.parametrize(
    "region, picture_px", [(None, PICTURE_PX), ((0, 201, 1920, 400), PICTURE_PX), (REGION, (1200, 1920))]
)
def test_one_of_another_region_or_size_is_not_used(file, region, picture_px, caplog):
    assert read_empty_view(file, region, picture_px) is None
    assert "another region or size" in caplog.text


def test_no_damage_is_taken_for_a_view(file):
    """Bits that turned, in the header above all; ends that are missing, or were added."""
    whole, rng = file.read_bytes(), np.random.default_rng(2)
    for turn in range(1000):
        spoilt = bytearray(whole)
        for place in rng.integers(0, 128 if turn % 2 else len(whole), rng.choice([1, 2, 4])):
            spoilt[place] ^= int(rng.integers(1, 256))
        if turn % 5 == 0:
            spoilt = spoilt[: rng.integers(len(spoilt))]
        file.write_bytes(spoilt if spoilt != whole else whole + b"x")
        assert read_empty_view(file, REGION, PICTURE_PX) is None


def test_where_there_is_none_nothing_is_said_and_what_cannot_be_read_is(tmp_path, caplog):
    assert read_empty_view(tmp_path / "none.npy", None, PICTURE_PX) is None
    assert not caplog.records
    assert read_empty_view(tmp_path, None, PICTURE_PX) is None
    assert "Is a directory" in caplog.text
