"""Codes as a label printer makes them, by zxing-cpp's own writer (its interface changed with version 3)."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import zxingcpp

LOOKS_EVERYWHERE = int(version("zxing-cpp").split(".")[0]) >= 3
"""The wheels of version 2 find a Data Matrix on the centre lines only."""


def label(text: str, kind: str = "DataMatrix", module_px: int = 4) -> np.ndarray:
    """A (H, W, 3) white label with the code; every module is *module_px* pixels, with its quiet zone around."""
    wanted = getattr(zxingcpp.BarcodeFormat, kind)
    if LOOKS_EVERYWHERE:
        modules = np.array(zxingcpp.create_barcode(text, wanted).to_image(scale=1, add_quiet_zones=False))
    else:
        modules = np.array(zxingcpp.write_barcode(wanted, text, 0, 0, 0))
    if modules.shape[0] == 1:  # bars have no height of their own
        modules = np.repeat(modules, 20, axis=0)
    grown = np.kron(modules, np.ones((module_px, module_px), np.uint8))
    return np.repeat(np.pad(grown, 6 * module_px, constant_values=255)[..., None], 3, axis=2)


def stick(picture: np.ndarray, sticker: np.ndarray, x: int, y: int) -> np.ndarray:
    """A copy of *picture* with the label at that place."""
    labelled = picture.copy()
    labelled[y : y + sticker.shape[0], x : x + sticker.shape[1]] = sticker
    return labelled
