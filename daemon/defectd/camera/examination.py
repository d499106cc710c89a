"""What the camera worker finds out about a picture before the engine gets it: frozen, fit, and which unit it shows."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from typing import Any

from defectd.camera.base import Pixels
from defectd.camera.codes import CodeReader
from defectd.camera.health import ImageHealth, Limits, Say
from defectd.inspection.events import ErrorReason

log = logging.getLogger(__name__)

_SAMPLED_ROWS = 16  # every so manieth row tells a frozen picture: sensor noise makes any two of them differ


@dataclass(frozen=True)
class Finding:
    """`refused` says why the picture must not be judged; `unit_id` is what the code in it says."""

    refused: tuple[ErrorReason, str] | None = None
    unit_id: str | None = None


class Examination:
    """All checks that one camera is configured for."""

    def __init__(self, camera: dict[str, Any], say: Say) -> None:
        """Raises CameraError if codes are to be read and cannot be."""
        self._say = say
        self._frozen = FrozenPicture(camera["frozen_after"])
        health, code = camera.get("health"), camera.get("code")
        self._health = None if health is None else ImageHealth(Limits(**health), say)
        self._codes = None if code is None else CodeReader(code["formats"], code["region"])
        self._code_required = code is not None and code["required"]

    def examine(self, pixels: Pixels) -> Finding:
        """Of a unit's picture. The unit is named even if the picture is refused."""
        unit_id, refused = None, self._health_refuses(pixels)
        if self._codes is not None:
            unit_id, why_none = self._codes.read(pixels)
            if unit_id is None:
                log.info("%s", why_none)
                if self._code_required and refused is None:
                    refused = "image_unfit", f"{why_none}, and [camera.code] requires one"
        return Finding(refused, unit_id)

    def stands_still(self, pixels: Pixels) -> str | None:
        """Why it is no new picture; each frame must be shown once."""
        before = self._frozen.frozen
        now = self._frozen.see(pixels)
        if now and not before:
            self._say("camera_frozen", "begin", f"{self._frozen.repeats} identical pictures in a row")
        elif before and not now:
            self._say("camera_frozen", "end", "the picture changes again")
        return f"the same picture {self._frozen.repeats} times in a row" if now else None

    def _health_refuses(self, pixels: Pixels) -> tuple[ErrorReason, str] | None:
        if self._health is None:
            return None
        from defectd.camera.measuring import measure  # noqa: PLC0415 - OpenCV, only where it is needed

        wrong = self._health.see(measure(pixels))
        return None if wrong is None else ("image_unfit", wrong)


class FrozenPicture:
    """Counts identical pictures in a row; *limit* of them are a frozen camera (None: never)."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._last, self.repeats = limit, -1, 0

    @property
    def frozen(self) -> bool:
        """True while the picture stands still."""
        return self._limit is not None and self.repeats >= self._limit

    def see(self, pixels: Pixels) -> bool:
        """Take note of a picture; True if the camera is frozen."""
        if self._limit is None:
            return False
        checksum = zlib.crc32(pixels[::_SAMPLED_ROWS].tobytes())
        self.repeats = self.repeats + 1 if checksum == self._last else 1
        self._last = checksum
        return self.frozen
