"""What OpenCV was built with."""

from __future__ import annotations

from typing import Any, Mapping

from defectd.doctor.probes.answering import answer


def probe(_: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises ImportError, as of a missing libGL."""
    import cv2  # noqa: PLC0415 - it is what is examined

    return {"version": cv2.__version__, "file": cv2.__file__, "build": cv2.getBuildInformation()}


if __name__ == "__main__":
    answer(probe)
