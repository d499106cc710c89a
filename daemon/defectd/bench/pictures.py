"""Pictures of the simulated line, for a benchmark that was given none."""

from __future__ import annotations

from pathlib import Path

import cv2

from defectd.camera.boards import BoardLine

_SEED = 7
_JPEG_QUALITY = 95


def draw_boards(folder: Path, count: int) -> Path:
    """Write so many boards into *folder*, which must not exist, as JPEGs; returns it."""
    folder.mkdir(parents=True)
    line = BoardLine(_SEED)
    for number in range(1, count + 1):
        picture = line.board(number).image
        cv2.imwrite(str(folder / f"board{number:04d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return folder
