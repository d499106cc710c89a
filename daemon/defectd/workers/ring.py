"""The frame ring: pixels in shared memory without a name, passed to the workers by descriptor.

A slot is one page-aligned block: a header (generation), room for detections, and the pixels. The daemon owns the
leases: who may write or read a slot is decided by messages, so a killed worker leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectd.inspection.detections import Detections

MAX_DETECTIONS = 300
_HEADER_BYTES = 64
_BOX_BYTES = 24  # x1 y1 x2 y2 score as float32, class id as int32
_DETECTION_BYTES = MAX_DETECTIONS * _BOX_BYTES
_F_ADD_SEALS, _SEAL_SHRINK_AND_GROW = 1033, 0x2 | 0x4  # <linux/fcntl.h>; fcntl names them from Python 3.9 on


@dataclass(frozen=True)
class RingLayout:
    """`slots` frames of at most `frame_bytes` each (height × width × 3)."""

    slots: int
    frame_bytes: int

    @property
    def pixels_offset(self) -> int:
        """Bytes from the start of a slot to its pixels; a multiple of the page size."""
        return _round_to_page(_HEADER_BYTES + _DETECTION_BYTES)

    @property
    def slot_bytes(self) -> int:
        """Bytes from one slot to the next."""
        return self.pixels_offset + _round_to_page(self.frame_bytes)

    @property
    def total_bytes(self) -> int:
        """Size of the mapping. Pages that no frame has touched cost nothing."""
        return self.slots * self.slot_bytes


class FrameRing:
    """A mapping of the ring; the same class in the daemon and in its workers."""

    def __init__(self, fd: int, layout: RingLayout) -> None:
        """Map *fd*, which stays open for passing on. Raises ValueError if it is smaller than *layout*."""
        self.fd, self.layout = fd, layout
        self._memory = mmap.mmap(fd, layout.total_bytes)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8)

    @classmethod
    def create(cls, layout: RingLayout) -> FrameRing:
        """A new ring in anonymous memory; sealed, so that no worker can shrink it under another's feet."""
        fd = os.memfd_create("defectd-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, layout.total_bytes)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEAL_SHRINK_AND_GROW)
        return cls(fd, layout)

    def pixels(self, slot: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
        """The frame in *slot* as a (height_px, width_px, 3) uint8 view, no copy."""
        size = height_px * width_px * 3
        if size > self.layout.frame_bytes:
            raise ValueError(f"{width_px}x{height_px} does not fit a slot of {self.layout.frame_bytes} bytes")
        start = self._start(slot) + self.layout.pixels_offset
        return self._bytes[start : start + size].reshape(height_px, width_px, 3)

    def all_pixels(self) -> NDArray[np.uint8]:
        """The whole mapping, for registering it as pinned memory."""
        return self._bytes

    def begin_write(self, slot: int) -> None:
        """Mark the slot as being written: until `end_write` its generation is odd and matches no frame."""
        self._generation(slot)[0] |= 1

    def end_write(self, slot: int) -> int:
        """The frame is complete; return its generation."""
        generation = self._generation(slot)
        generation[0] += 1
        return int(generation[0])

    def generation(self, slot: int) -> int:
        """The write counter of the slot; odd while it is being written."""
        return int(self._generation(slot)[0])

    def write_detections(self, slot: int, detections: Detections) -> None:
        """Leave at most MAX_DETECTIONS boxes in the slot for the daemon."""
        count = min(len(detections), MAX_DETECTIONS)
        floats, integers = self._boxes(slot)
        floats[:count, :4] = detections.xyxy[:count]
        floats[:count, 4] = detections.scores[:count]
        integers[:count, 5] = detections.class_ids[:count]

    def read_detections(self, slot: int, count: int) -> Detections:
        """A copy of the *count* boxes that the engine left in the slot."""
        floats, integers = self._boxes(slot)
        return Detections(floats[:count, :4].copy(), floats[:count, 4].copy(), integers[:count, 5].copy())

    def close(self) -> None:
        """Close the descriptor; the mapping goes when its last view does."""
        os.close(self.fd)

    def _start(self, slot: int) -> int:
        if not 0 <= slot < self.layout.slots:
            raise ValueError(f"slot {slot} is not one of {self.layout.slots}")
        return slot * self.layout.slot_bytes

    def _generation(self, slot: int) -> NDArray[np.int64]:
        start = self._start(slot)
        return self._bytes[start : start + 8].view(np.int64)

    def _boxes(self, slot: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        start = self._start(slot) + _HEADER_BYTES
        block = self._bytes[start : start + _DETECTION_BYTES]
        return block.view(np.float32).reshape(-1, 6), block.view(np.int32).reshape(-1, 6)


class Leases:
    """The daemon's list of free slots. Every slot is free or leased once; returning twice is a bug and raises."""

    def __init__(self, slots: int) -> None:
        self._free = deque(range(slots))
        self._leased: set[int] = set()

    def take(self) -> int | None:
        """A free slot, or None when all are leased."""
        if not self._free:
            return None
        slot = self._free.popleft()
        self._leased.add(slot)
        return slot

    def give_back(self, slot: int) -> None:
        """The slot may be written again."""
        self._leased.remove(slot)
        self._free.append(slot)

    @property
    def free(self) -> int:
        """How many slots are free."""
        return len(self._free)


def _round_to_page(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
