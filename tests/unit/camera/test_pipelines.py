"""From settings to the text of a pipeline."""

from __future__ import annotations

import pytest

from defectd.camera.pipelines import SINK, decoder_of, missing_element, package_of, plan_pipeline
from defectd.camera_settings import CsiSettings, GstreamerSettings, RtspSettings
from defectd.errors import CameraError

JETSON = {"nvv4l2decoder", "nvvidconv", "avdec_h264"}
LAPTOP = {"avdec_h264", "openh264dec", "avdec_h265", "jpegdec"}
URL = "rtsp://viewer:s3cret@192.168.10.7:554/stream1"


def plan(settings, elements=LAPTOP):
    return plan_pipeline(settings.model_dump(mode="json"), elements.__contains__)


def csi(**changes):
    return plan(CsiSettings(name="top", kind="csi", **changes))


def rtsp(elements=LAPTOP, **changes):
    return plan(RtspSettings(name="top", kind="rtsp", url=URL, **changes), elements)


def test_a_csi_sensor_comes_by_the_route_that_nvidia_documents():
    assert csi().text == (
        "nvarguscamerasrc sensor-id=0 wbmode=1 ! "
        "video/x-raw(memory:NVMM),width=1920,height=1080,framerate=30/1,format=NV12 ! "
        f"nvvidconv ! video/x-raw,format=BGRx ! {SINK}"
    )


def test_exposure_and_gain_that_are_set_are_locked():
    text = csi(exposure_us=8000, gain=2.5, white_balance="daylight").text
    assert 'exposuretimerange="8000000 8000000"' in text
    assert 'gainrange="2.5 2.5" ispdigitalgainrange="1 1"' in text
    assert "aelock=true" in text and "wbmode=5 awblock=true" in text


@pytest.mark.parametrize("one", [{"exposure_us": 100.0}, {"gain": 1.0}])
def test_what_is_not_set_is_still_found_by_the_sensor(one):
    assert "aelock" not in csi(**one).text and "awblock" not in csi(**one).text


def test_the_rate_is_a_fraction_and_the_rest_is_told_only_if_it_is_set():
    text = csi(sensor_id=1, sensor_mode=3, rate_hz=29.97, flip=2).text
    assert "sensor-id=1 sensor-mode=3" in text and "framerate=2997/100" in text and "nvvidconv flip-method=2" in text


def test_an_rtsp_stream_is_decoded_by_what_there_is():
    assert rtsp().text == (
        "rtspsrc name=stream protocols=tcp latency=100 buffer-mode=none ! rtph264depay name=depayloader ! h264parse ! "
        f"avdec_h264 ! {SINK}"
    )
    assert "h264parse ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert" in rtsp(JETSON).text
    assert "rtph265depay name=depayloader ! h265parse ! avdec_h265" in rtsp(codec="h265").text
    assert "rtpjpegdepay name=depayloader ! jpegparse ! jpegdec" in rtsp(codec="mjpeg").text
    assert "! openh264dec !" in rtsp(decoder="openh264dec").text


def test_the_address_with_its_password_is_no_part_of_the_text():
    found = rtsp(timeout_s=1.5)
    assert "s3cret" not in found.text and "192.168" not in found.text
    assert found.properties["stream"] == {"location": URL, "tcp-timeout": 1_500_000, "timeout": 1_500_000}


def test_a_decoder_that_is_missing_is_named_with_its_package():
    with pytest.raises(CameraError, match=r"no decoder of h264 .*avdec_h264: sudo apt-get install gstreamer1\.0-libav"):
        rtsp(set())
    with pytest.raises(
        CameraError, match=r"camera.decoder: GStreamer has no element openh264dec: sudo apt-get install"
    ):
        decoder_of("h264", "openh264dec", {"avdec_h264"}.__contains__)


def test_what_a_user_wrote_gets_our_sink_and_waits_as_long_as_it_takes():
    found = plan(GstreamerSettings(name="top", kind="gstreamer", pipeline="v4l2src device=/dev/video0 ! jpegdec"))
    assert found.text == f"v4l2src device=/dev/video0 ! jpegdec ! {SINK}"
    assert found.timeout_s is None and not found.own_clock


def test_a_command_is_followed_by_the_time_that_a_picture_needs_to_arrive():
    assert rtsp(latency_ms=250).delay_ns == 250_000_000
    assert csi(rate_hz=40).delay_ns == 100_000_000


def test_a_timeout_is_shorter_than_the_silence_that_costs_the_worker_its_life():
    with pytest.raises(ValueError, match="timeout_s: got 5, expected less than stall_s = 5"):
        RtspSettings(name="top", kind="rtsp", url=URL, timeout_s=5.0)


def test_elements_of_the_jetson_are_not_looked_for_elsewhere():
    assert package_of("nvarguscamerasrc") == "nvidia-l4t-gstreamer"
    assert missing_element("nvvidconv").endswith("(a Jetson only)")
    assert "gst-inspect-1.0" in missing_element("somethingelse")
