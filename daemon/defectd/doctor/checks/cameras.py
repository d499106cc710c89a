"""Each camera opens and gives a picture. A running daemon has them: then nobody else may."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from defectd.camera_plans import plan_cameras
from defectd.camera_settings import CameraSettings
from defectd.doctor.asking import Told, told_by
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, error, ok, skipped, warning

_START_S = 20.0  # a process, OpenCV, and a camera that wakes up
_PICTURE_S = 8.0
_DARK, _BRIGHT = 4.0, 251.0  # means of 0..255


def check_cameras(patient: Patient) -> Iterator[Finding]:
    """One after the other."""
    if patient.settings is None:
        yield skipped("cameras", patient.unread)
        return
    if patient.busy:
        watch = f"defectd watch --config {patient.config}"
        yield skipped("cameras", f"{patient.busy}, and the cameras are its own; what they deliver: {watch}")
        return
    plans = plan_cameras(patient.settings.camera, {}, patient.settings.inspection.deadline_ms)
    for camera, plan in zip(patient.settings.camera, plans):
        source = {
            **plan.source, "kind": plan.kind, "first_trigger": plan.first_trigger, "next_trigger": plan.next_trigger,
            "origin_ns": 0, "commanded": plan.commanded,
        }  # fmt: skip
        told = told_by("one_frame", {"camera": source, "seconds": _PICTURE_S}, _START_S + _PICTURE_S)
        yield camera_finding(camera, told)


def camera_finding(camera: CameraSettings, told: Told) -> Finding:
    """Pure."""
    subject, facts = f"camera {camera.name}", told.facts
    if told.trouble is not None:
        stuck = "took longer" in told.trouble
        return error(subject, told.trouble, "its driver hangs: unplug it, or sudo systemctl restart nvargus-daemon"
                     if stuck else "see OpenCV above, and dmesg | tail")  # fmt: skip
    if "trouble" in facts:
        return error(subject, str(facts["trouble"]), _remedy(camera))
    if "silent_s" in facts:
        return warning(subject, f"opens, and gives no picture within {facts['silent_s']:g} s",
                       "if the line stands still, that is right; else see to its trigger")  # fmt: skip
    return _picture(subject, camera, facts)


def _picture(subject: str, camera: CameraSettings, facts: Mapping[str, Any]) -> Finding:
    width_px, height_px = facts["size"]
    found = f"{width_px}x{height_px}, first picture after {facts['opened_ms'] + facts['picture_ms']:.0f} ms"
    figures = {"width_px": width_px, "height_px": height_px, "brightness": facts["brightness"]}
    if width_px * height_px > camera.max_pixels:
        return error(subject, f"{found}: more than max_pixels = {camera.max_pixels}",
                     f"set max_pixels = {width_px * height_px} of this camera", **figures)  # fmt: skip
    wanted = (getattr(camera, "width_px", None), getattr(camera, "height_px", None))
    if None not in wanted and wanted != (width_px, height_px):
        return warning(subject, f"{found}, asked for {wanted[0]}x{wanted[1]}", "the camera does not have that size: "
                       "v4l2-ctl --list-formats-ext shows those that it has", **figures)  # fmt: skip
    if facts["brightness"] < _DARK:
        return warning(subject, f"{found}, but it is black", "lens cap, light, exposure time", **figures)
    if facts["brightness"] > _BRIGHT:
        return warning(subject, f"{found}, but it is white", "light, exposure time, gain", **figures)
    return ok(subject, found, **figures)


def _remedy(camera: CameraSettings) -> str:
    if camera.kind == "opencv":
        if "://" in str(camera.source):
            return "see that the address, the login and the network are right: ffprobe shows the same"
        return "see that it is plugged in and that nobody else has it: sudo fuser -v /dev/video*; dmesg | tail"
    return _REMEDIES.get(camera.kind, "correct camera.path")


_REMEDIES = {
    "aravis": "which cameras answer: defectd cameras --interface NAME, or --usb; end what else has it open",
    "rtsp": "see that the address, the login and the network are right: gst-discoverer-1.0 URL shows the same",
    "csi": "is the sensor there: ls /dev/video*; then sudo systemctl restart nvargus-daemon",
    "gstreamer": "try it by hand: gst-launch-1.0 with the same pipeline and ! fakesink",
}
