from __future__ import annotations

import os

import numpy as np
import pytest

from defectd.inspection.detections import Detections
from defectd.workers.ring import MAX_DETECTIONS, FrameRing, Leases, RingLayout


@pytest.fixture
def ring():
    ring = FrameRing.create(RingLayout(slots=3, frame_bytes=40 * 30 * 3))
    yield ring
    ring.close()


def test_pixels_written_in_one_mapping_are_read_in_another(ring):
    other = FrameRing(os.dup(ring.fd), ring.layout)
    ring.pixels(1, 30, 40)[:] = 77
    assert (other.pixels(1, 30, 40) == 77).all()
    assert not other.pixels(0, 30, 40).any() and not other.pixels(2, 30, 40).any()
    other.close()


def test_a_frame_that_does_not_fit_a_slot_is_refused(ring):
    with pytest.raises(ValueError, match="does not fit"):
        ring.pixels(0, 31, 40)


@pytest.mark.parametrize("slot", [-1, 3])
def test_a_slot_that_does_not_exist_is_refused(ring, slot):
    with pytest.raises(ValueError, match="is not one of 3"):
        ring.pixels(slot, 1, 1)


def test_the_generation_is_odd_only_while_a_frame_is_written(ring):
    ring.begin_write(0)
    assert ring.generation(0) % 2 == 1
    first = ring.end_write(0)
    assert first == ring.generation(0) and first % 2 == 0
    ring.begin_write(0)
    assert ring.end_write(0) > first


def test_a_writer_that_died_half_way_leaves_a_slot_that_can_be_written_again(ring):
    ring.begin_write(0)
    ring.begin_write(0)
    assert ring.end_write(0) % 2 == 0


def test_detections_survive_the_slot(ring):
    detections = Detections(
        np.array([[1, 2, 3, 4], [5.5, 6, 7, 8]], np.float32),
        np.array([0.9, 0.25], np.float32),
        np.array([5, 2**31 - 1], np.int32),
    )
    ring.write_detections(2, detections)
    read = ring.read_detections(2, 2)
    for column in ("xyxy", "scores", "class_ids"):
        np.testing.assert_array_equal(getattr(read, column), getattr(detections, column))


def test_more_detections_than_fit_are_cut(ring):
    many = MAX_DETECTIONS + 5
    ring.write_detections(
        0, Detections(np.ones((many, 4), np.float32), np.ones(many, np.float32), np.zeros(many, np.int32))
    )
    assert not ring.pixels(0, 30, 40).any()


def test_no_worker_can_shrink_the_ring(ring):
    with pytest.raises(PermissionError):
        os.ftruncate(ring.fd, 4096)


def test_every_slot_is_leased_once():
    leases = Leases(2)
    assert {leases.take(), leases.take()} == {0, 1}
    assert leases.take() is None
    leases.give_back(1)
    assert leases.take() == 1


def test_returning_a_slot_twice_is_an_error():
    leases = Leases(2)
    slot = leases.take()
    leases.give_back(slot)
    with pytest.raises(KeyError):
        leases.give_back(slot)
