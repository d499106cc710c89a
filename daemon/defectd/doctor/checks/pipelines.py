"""What the pipelines of cameras need of GStreamer."""

from __future__ import annotations

from typing import Iterator, Sequence

from defectd.camera.pipelines import PIPELINES
from defectd.doctor.asking import Told, told_by
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok

_LOAD_S = 60.0  # after each upgrade it looks at all of its plug-ins again


def check_gstreamer(patient: Patient) -> Iterator[Finding]:
    """For cameras of kind csi, rtsp and gstreamer only. None of them is opened: that is done elsewhere."""
    if patient.settings is None:
        return
    cameras = [camera.model_dump(mode="json") for camera in patient.settings.camera if camera.kind in PIPELINES]
    if cameras:
        told = told_by("gstreamer_build", {"cameras": cameras}, _LOAD_S)
        yield from gstreamer_findings([camera["name"] for camera in cameras], told)


def gstreamer_findings(cameras: Sequence[str], told: Told) -> Iterator[Finding]:
    """Pure."""
    trouble = told.trouble or told.facts.get("trouble")
    if trouble is not None:
        yield error("GStreamer", str(trouble), "gst-inspect-1.0 shows whether GStreamer itself works")
        return
    version, troubles = str(told.facts["version"]), told.facts["troubles"]
    for name, problem in troubles.items():
        yield error(f"pipeline of {name}", str(problem), f"correct camera {name}, or install what is missing")
    fine = [name for name in cameras if name not in troubles]
    if fine:
        yield ok("GStreamer", f"{version}, has all elements of {', '.join(fine)}", version=version)
