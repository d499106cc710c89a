"""What the doctor says of cameras that are pipelines of GStreamer."""

from __future__ import annotations

import pytest

from defectd.camera_settings import CsiSettings, GstreamerSettings, RtspSettings
from defectd.doctor.asking import Told
from defectd.doctor.checks.cameras import camera_finding
from defectd.doctor.checks.pipelines import gstreamer_findings
from defectd.doctor.report import Level


def test_a_gstreamer_that_knows_all_elements_is_fit():
    (finding,) = gstreamer_findings(["top", "side"], Told({"version": "1.20.3", "troubles": {}}))
    assert finding.level is Level.OK and "1.20.3" in finding.found and "top, side" in finding.found


def test_the_camera_whose_element_is_missing_is_named_and_the_others_are_fit():
    told = Told(
        {"version": "1.20.3", "troubles": {"top": "GStreamer has no element h264parse: sudo apt-get install x"}}
    )
    bad, fit = gstreamer_findings(["top", "side"], told)
    assert bad.level is Level.ERROR and bad.subject == "pipeline of top" and "apt-get" in bad.found
    assert fit.level is Level.OK and "top" not in fit.found


@pytest.mark.parametrize("told", [Told({"trouble": "no gi"}), Told(trouble="no gi")])
def test_no_gstreamer_is_one_error(told):
    (finding,) = gstreamer_findings(["top"], told)
    assert finding.level is Level.ERROR and finding.found == "no gi"


@pytest.mark.parametrize(
    ("camera", "remedy"),
    [
        (RtspSettings(name="top", kind="rtsp", url="rtsp://10.0.0.7/a"), "gst-discoverer-1.0"),
        (CsiSettings(name="top", kind="csi"), "nvargus-daemon"),
        (GstreamerSettings(name="top", kind="gstreamer", pipeline="v4l2src"), "gst-launch-1.0"),
    ],
)
def test_a_camera_that_does_not_open_has_a_remedy_of_its_kind(camera, remedy):
    finding = camera_finding(camera, Told({"trouble": "top: no answer within 2 s"}))
    assert finding.level is Level.ERROR and remedy in str(finding.remedy)
