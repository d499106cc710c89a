"""Pictures that say which one they are, so that a verdict can be held against the picture it claims to be of.

Black, 96x64. Every third one is good; the others have their number in red blocks, bit by bit, and the tiny model of
`support.models` (BrightestBlock) reports each red block as a defect `open` of 16x16 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import cv2
import numpy as np

HEIGHT_PX, WIDTH_PX, BLOCK_PX = 64, 96, 8
BITS = WIDTH_PX // BLOCK_PX
CODE_CLASS = "open"
_ROW = 3  # blocks from the top; the frame around them stays black


def write_pictures(folder: Path, count: int, scale: int = 1) -> Path:
    """*count* PNGs, unit-0001 and so on, *scale* times as wide and high."""
    if count >= 1 << BITS:
        raise ValueError(f"{count} pictures cannot be told apart by {BITS} bits")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        enlarged = picture(number).repeat(scale, axis=0).repeat(scale, axis=1)
        cv2.imwrite(str(folder / f"{unit_id(number)}.png"), enlarged)
    return folder


def unit_id(number: int) -> str:
    """The stem of its file."""
    return f"unit-{number:04d}"


def picture(number: int) -> Any:
    """(64, 96, 3) uint8 BGR."""
    image = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for bit in range(BITS):
        if code_of(number) >> bit & 1:
            image[_ROW * BLOCK_PX : (_ROW + 1) * BLOCK_PX, bit * BLOCK_PX : (bit + 1) * BLOCK_PX, 2] = 255
    return image


def code_of(number: int) -> int:
    """What its blocks spell: 0 for a good one."""
    return 0 if number % 3 == 0 else number


def misjudged(event: Mapping[str, Any]) -> str:
    """What is wrong if the passed or failed *event* is not of the picture that its unit_id names; "" if it is."""
    number = int(event["unit_id"].rpartition("-")[2])
    seen, block_px = 0, event["frame"]["width_px"] / BITS
    for defect in event["defects"]:
        x, _, width, _ = defect["bbox_px"]
        seen |= 1 << int((x + width / 2) / block_px)
    if seen == code_of(number):
        return ""
    return f"{event['unit_id']} was judged by another picture: it spells {seen}, expected {code_of(number)}"
