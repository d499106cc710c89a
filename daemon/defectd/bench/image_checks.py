"""What each check of a picture costs in the camera's process: `python -m defectd.bench.image_checks`.

One thread. Every check takes its turn beside a copy of the same frame; the ratio to that copy holds on other machines.
"""

from __future__ import annotations

import statistics
import time
from typing import Callable, Dict

import cv2
import numpy as np

from defectd.camera.base import Pixels
from defectd.camera.boards import BoardLine
from defectd.camera.codes import CodeReader, why_no_codes
from defectd.camera.examination import FrozenPicture
from defectd.camera.measuring import measure
from defectd.camera.presence import PresenceLimits, PresenceRule, small_view

SIZES = ((1920, 1080), (4000, 3000))
FORMATS = ("QRCode", "DataMatrix", "Code128")
_TURNS = 25
_COPY = "copy of the frame"

Checks = Dict[str, Callable[[], object]]


def main() -> None:
    """Print one table."""
    cv2.setNumThreads(1)
    print(
        "| check | " + " | ".join(f"{width * height / 1e6:.0f} MP, ms | to the copy" for width, height in SIZES) + " |"
    )
    print("|---|" + "---|---|" * len(SIZES))
    columns = [samples_ms(checks(BoardLine(7, width, height).board(1).image)) for width, height in SIZES]
    for name in columns[0]:
        figures = []
        for column in columns:
            middle_ms = statistics.median(column[name])
            figures.append(f"{middle_ms:.2f} | {middle_ms / statistics.median(column[_COPY]):.1f}")
        print(f"| {name} | " + " | ".join(figures) + " |")
    if (missing := why_no_codes()) is not None:
        print(f"\nno codes: {missing}")


def checks(picture: Pixels) -> Checks:
    """By name. The board has no code on it: looking everywhere in vain is what takes longest."""
    target = np.empty_like(picture)
    frozen, rule = FrozenPicture(10), PresenceRule(PresenceLimits())
    found: Checks = {
        _COPY: lambda: np.copyto(target, picture),
        "frozen": lambda: frozen.see(picture),
        "health": lambda: measure(picture),
        "presence": lambda: rule.see(small_view(picture, None)),
    }
    if why_no_codes() is None:
        whole, region = CodeReader(FORMATS), CodeReader(FORMATS, [100, 100, 400, 400])
        found["code, 400x400 region"] = lambda: region.read(picture)
        found["code, whole picture"] = lambda: whole.read(picture)
    return found


def samples_ms(found: Checks) -> dict[str, list[float]]:
    """All checks in turns, so that whatever else the machine does hits each of them."""
    samples: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(_TURNS + 2):
        for name, check in found.items():
            began_s = time.perf_counter()
            check()
            if turn >= 2:
                samples[name].append((time.perf_counter() - began_s) * 1e3)
    return samples


if __name__ == "__main__":
    main()
