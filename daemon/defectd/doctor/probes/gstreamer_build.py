"""Which GStreamer there is, and whether it knows the pipelines of the cameras. Opens no camera."""

from __future__ import annotations

from typing import Any, Mapping

from defectd.camera.pipelines import plan_pipeline
from defectd.camera.running import has_element, load_gstreamer, make_pipeline
from defectd.doctor.probes.answering import answer
from defectd.errors import CameraError


def probe(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """`version`, and in `troubles` why a camera's pipeline cannot be made, by its name. `trouble`: no GStreamer."""
    try:
        gst = load_gstreamer()
    except CameraError as error:
        return {"trouble": str(error)}
    troubles = {}
    for camera in request["cameras"]:
        try:
            make_pipeline(gst, plan_pipeline(camera, lambda name: has_element(gst, name)))
        except CameraError as error:
            troubles[camera["name"]] = str(error)
    return {"version": ".".join(str(part) for part in gst.version()[:3]), "troubles": troubles}


if __name__ == "__main__":
    answer(probe)
