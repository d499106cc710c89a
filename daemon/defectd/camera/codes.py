"""Unit ids from bar codes, QR codes and Data Matrix codes in the picture, through zxing-cpp.

The wheels of version 2, the last one for Python 3.8, find a Data Matrix only on the horizontal or vertical centre line
of what they are shown (zxing-cpp #131): there, `region` must be centred on the code.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Sequence

import numpy as np

from defectd.camera.base import Pixels
from defectd.errors import CameraError

MAX_UNIT_ID = 200

Region = Sequence[int]
"""x, y, width, height in pixels of the full frame"""


def why_no_codes() -> str | None:
    """Why no code can be read on this machine, and what to do; None if one can."""
    if importlib.util.find_spec("zxingcpp") is not None:
        return None
    return (
        "zxing-cpp is missing: pip install 'defectd[codes]' (Python 3.8 on aarch64 compiles it: before, "
        "sudo apt-get install g++-10 cmake python3-dev, and CXX=g++-10)"
    )


class CodeReader:
    """Reads the one code that names the unit."""

    def __init__(self, formats: Sequence[str], region: Region | None = None) -> None:
        """*formats* as zxing-cpp calls them: QRCode, DataMatrix, Code128 … Raises CameraError."""
        if (missing := why_no_codes()) is not None:
            raise CameraError(f"camera.code: {missing}")
        try:
            import zxingcpp  # noqa: PLC0415 - only where codes are read
        except ImportError as error:
            raise CameraError(f"camera.code: zxing-cpp cannot be loaded: {error}") from error
        self._zxing: Any = zxingcpp
        self._region = region
        try:
            self._formats = zxingcpp.barcode_formats_from_str(",".join(formats))
        except (ValueError, TypeError) as error:
            raise CameraError(f"camera.code.formats: zxing-cpp does not know {', '.join(formats)}: {error}") from error

    def read(self, pixels: Pixels) -> tuple[str | None, str]:
        """The unit id, or None and why there is none. Two codes that say different things name nobody."""
        area = pixels
        if self._region is not None:
            x, y, width, height = self._region
            area = pixels[y : y + height, x : x + width]
            if area.shape[:2] != (height, width):
                seen = f"the picture has {pixels.shape[1]}x{pixels.shape[0]} pixels"
                return None, f"camera.code.region = {list(self._region)} lies outside: {seen}"
        try:
            found = self._zxing.read_barcodes(np.ascontiguousarray(area), self._formats)
        except (IndexError, ValueError, RuntimeError) as error:  # of some pictures, in version 2 (zxing-cpp #773)
            return None, f"zxing-cpp failed: {error}"
        texts = sorted({each.text.strip() for each in found} - {""})
        if not texts:
            return None, "no code was read"
        if len(texts) > 1:
            return None, f"{len(texts)} codes were read, expected one: {', '.join(text[:40] for text in texts[:5])}"
        if len(texts[0]) > MAX_UNIT_ID:
            return None, f"the code has {len(texts[0])} characters, expected {MAX_UNIT_ID} at most"
        return texts[0], ""
