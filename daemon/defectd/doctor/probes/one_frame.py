"""Opens a camera as its worker would, and takes one picture."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np

from defectd.camera.base import Pixels, SourceEnded, Undecodable
from defectd.camera.worker import open_source
from defectd.clock import NS_PER_S, monotonic_ns, ms_between
from defectd.doctor.probes.answering import answer
from defectd.errors import CameraError, CameraLost

_WAIT_S = 0.5


def probe(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """`opened_ms`; then `picture_ms`, `size` and `brightness` (0..255), or in `trouble` why there is none."""
    camera, seconds = dict(request["camera"]), float(request["seconds"])
    started_ns = monotonic_ns()
    try:
        source = open_source(camera, camera["next_trigger"])
    except (CameraLost, CameraError) as error:
        return {"trouble": str(error)}
    found: dict[str, Any] = {"opened_ms": round(ms_between(started_ns, monotonic_ns()), 1)}
    pictures: list[Pixels] = []

    def allocate(height_px: int, width_px: int) -> Pixels:
        pictures.append(np.zeros((height_px, width_px, 3), np.uint8))
        return pictures[-1]

    opened_ns = monotonic_ns()
    try:
        arrival = None
        if camera["commanded"]:
            source.shoot()
        while arrival is None and monotonic_ns() - opened_ns < seconds * NS_PER_S:
            arrival = source.wait(camera["next_trigger"], _WAIT_S)
        if arrival is None:
            return {**found, "silent_s": seconds}
        source.fetch(allocate)
    except (CameraLost, Undecodable) as error:
        return {**found, "trouble": str(error)}
    except SourceEnded:
        return {**found, "trouble": "it has no pictures"}
    finally:
        source.close()
    height_px, width_px = pictures[-1].shape[:2]
    return {
        **found,
        "picture_ms": round(ms_between(opened_ns, monotonic_ns()), 1),
        "size": [width_px, height_px],
        "brightness": round(float(pictures[-1].mean()), 1),
    }


if __name__ == "__main__":
    answer(probe)
