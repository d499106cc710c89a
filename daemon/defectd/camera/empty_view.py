"""The empty view of a presence rule on disk, for the worker that comes after this one.

An .npy, and behind it a SHA-256 of that, of the region and of the size of the picture: a view that is damaged, or of
another place, would show units where there are none, or hide them.
"""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Sequence

import numpy as np
from numpy.typing import NDArray

from defectd.storage import write_durably

log = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size
_LARGEST_BYTES = 4_000_000  # ten times the largest view


def write_empty_view(
    file: Path, view: NDArray[np.float32], region: Sequence[int] | None, picture_px: tuple[int, int]
) -> None:
    """Replace *file*. *picture_px* is the height and width of the whole picture. Raises OSError."""
    array = io.BytesIO()
    np.save(array, view, allow_pickle=False)
    write_durably(file, array.getvalue(), _digest(array.getvalue(), region, picture_px))


def read_empty_view(
    file: Path, region: Sequence[int] | None, picture_px: tuple[int, int]
) -> NDArray[np.float32] | None:
    """What was written for the same region of pictures of that size; None, and a line in the log, if there is no such
    view in *file*."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s: %s; the empty view is learned anew", file, error.strerror)
        return None
    array, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if digest != _digest(array, region, picture_px):
        log.warning("%s: damaged, or of another region or size; the empty view is learned anew", file)
        return None
    return np.asarray(np.load(io.BytesIO(array), allow_pickle=False), np.float32)


def _digest(array: bytes, region: Sequence[int] | None, picture_px: tuple[int, int]) -> bytes:
    place = f"{None if region is None else list(region)} of {picture_px[1]}x{picture_px[0]}"
    return hashlib.sha256(place.encode() + array).digest()
