"""From a camera's settings to a GStreamer pipeline. Pure: which elements exist is asked, not looked up.

The sink gets BGRx as it comes from the Jetson's converter and grey as it comes from a mono camera: they become BGR in
the ring, in one pass with the copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Callable, Mapping

from defectd.clock import NS_PER_MS, NS_PER_S
from defectd.errors import CameraError

FORMATS = ("BGR", "BGRx", "GRAY8")
STREAM, DEPAYLOADER, PICTURES = "stream", "depayloader", "pictures"
"""Names of elements that the source looks up."""

SINK = (
    f"videoconvert ! video/x-raw,format={{{','.join(FORMATS)}}} ! "
    f"appsink name={PICTURES} max-buffers=1 drop=true sync=false async=false"
)
PIPELINES = ("csi", "rtsp", "gstreamer")
"""Kinds of cameras that are one."""
BINDINGS = "python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base"
INSTEAD = 'an RTSP stream can also come through FFmpeg: kind = "opencv", source = its URL'

_DECODERS = {
    "h264": ("nvv4l2decoder", "avdec_h264", "openh264dec"),
    "h265": ("nvv4l2decoder", "avdec_h265", "libde265dec"),
    "mjpeg": ("jpegdec", "avdec_mjpeg"),
}
_PARTS = {
    "h264": ("H264", "rtph264depay", "h264parse"),
    "h265": ("H265", "rtph265depay", "h265parse"),
    "mjpeg": ("JPEG", "rtpjpegdepay", "jpegparse"),
}
_WHITE_BALANCE = (
    "off", "auto", "incandescent", "fluorescent", "warm-fluorescent", "daylight", "cloudy-daylight", "twilight",
    "shade", "manual",
)  # fmt: skip
_ARGUS_DEPTH = 4  # pictures that are between the sensor and us, at most

_PACKAGES = {
    "gstreamer1.0-plugins-base": (
        "appsink", "audioconvert", "playbin", "uridecodebin", "decodebin", "videoconvert", "videorate", "videoscale",
        "videotestsrc",
    ),
    "gstreamer1.0-plugins-good": (
        "deinterlace", "imagefreeze", "jpegdec", "matroskademux", "multifilesrc", "pngdec", "qtdemux", "rtpbin",
        "rtph264depay", "rtph265depay", "rtpjitterbuffer", "rtpjpegdepay", "rtspsrc", "udpsrc", "v4l2src", "videocrop",
        "videoflip",
    ),
    "gstreamer1.0-plugins-bad": (
        "bayer2rgb", "h264parse", "h265parse", "jpegparse", "openh264dec", "srtsrc", "tsdemux", "v4l2codecs",
    ),
    "gstreamer1.0-libav": ("avdec_h264", "avdec_h265", "avdec_mjpeg"),
    "nvidia-l4t-gstreamer": (
        "nvarguscamerasrc", "nvjpegdec", "nvv4l2camerasrc", "nvv4l2decoder", "nvvidconv",
    ),
    "gstreamer1.0-libde265": ("libde265dec",),
}  # fmt: skip


@dataclass(frozen=True)
class PipelinePlan:
    """What runs. `text` is in the language of gst-launch-1.0 and holds no secret; `properties` go to named elements
    afterwards, those of `wishes` only where this release of GStreamer has them.

    `timeout_s`: no picture for so long means lost; None: never. `delay_ns`: a picture that was asked for may arrive
    so much later than it was exposed, without anybody being able to tell. `own_clock`: it never pauses, and
    its timestamps are of a clock that we do not know. `encoding` is what an RTSP server calls the codec.
    """

    text: str
    properties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    wishes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timeout_s: float | None = None
    delay_ns: int = 0
    own_clock: bool = True
    encoding: str | None = None


def plan_pipeline(camera: Mapping[str, Any], exists: Callable[[str], bool]) -> PipelinePlan:
    """Of a camera of one of those kinds; *exists* says whether GStreamer has an element. Raises CameraError."""
    if camera["kind"] == "csi":
        return _csi(camera)
    if camera["kind"] == "rtsp":
        return _rtsp(camera, exists)
    return PipelinePlan(f"{camera['pipeline']} ! {SINK}", timeout_s=camera["timeout_s"], own_clock=False)


def package_of(element: str) -> str:
    """The Debian package that brings *element*; "" if that is not known here."""
    return next((package for package, elements in _PACKAGES.items() if element in elements), "")


def missing_element(element: str) -> str:
    """What a person reads."""
    package = package_of(element)
    remedy = f"sudo apt-get install {package}" if package else "see gst-inspect-1.0 for what there is"
    if package.startswith("nvidia-"):
        remedy += " (a Jetson only)"
    return f"GStreamer has no element {element}: {remedy}"


def decoder_of(codec: str, wanted: str | None, exists: Callable[[str], bool]) -> str:
    """*wanted*, or the best one for *codec*. Raises CameraError if it is not there."""
    candidates = (wanted,) if wanted else _DECODERS[codec]
    for candidate in candidates:
        if exists(candidate):
            return candidate
    if wanted:
        raise CameraError(f"camera.decoder: {missing_element(wanted)}")
    on_any_machine = next(each for each in candidates if not each.startswith("nv"))
    others = ", ".join(candidates)
    raise CameraError(f"no decoder of {codec} (looked for {others}): {missing_element(on_any_machine)}; {INSTEAD}")


def _csi(camera: Mapping[str, Any]) -> PipelinePlan:
    rate = Fraction(camera["rate_hz"]).limit_denominator(1001)
    source = ["nvarguscamerasrc", f"sensor-id={camera['sensor_id']}"]
    if camera["sensor_mode"] is not None:
        source.append(f"sensor-mode={camera['sensor_mode']}")
    exposure_us, gain, balance = camera["exposure_us"], camera["gain"], camera["white_balance"]
    if exposure_us is not None:
        exposure_ns = round(exposure_us * 1000)
        source.append(f'exposuretimerange="{exposure_ns} {exposure_ns}"')
    if gain is not None:
        source.append(f'gainrange="{gain:g} {gain:g}" ispdigitalgainrange="1 1"')
    if exposure_us is not None and gain is not None:
        source.append("aelock=true")  # with only one of them, the other one must still be found
    source.append(f"wbmode={_WHITE_BALANCE.index(balance)}")
    if balance != "auto":
        source.append("awblock=true")
    size = f"width={camera['width_px']},height={camera['height_px']}"
    sensor = f"video/x-raw(memory:NVMM),{size},framerate={rate.numerator}/{rate.denominator},format=NV12"
    text = f"{' '.join(source)} ! {sensor} ! {_from_nvmm(camera['flip'])} ! {SINK}"
    delay_ns = round(_ARGUS_DEPTH * NS_PER_S / camera["rate_hz"])
    return PipelinePlan(text, timeout_s=camera["timeout_s"], delay_ns=delay_ns)


def _rtsp(camera: Mapping[str, Any], exists: Callable[[str], bool]) -> PipelinePlan:
    """The timestamps are the camera's own (`buffer-mode=none`): a jitter buffer that smooths them would hide how late
    a picture is. It drops nothing that is late, either: all pictures until the next key frame would be lost with it,
    and nobody could count them."""
    decoder = decoder_of(camera["codec"], camera["decoder"], exists)
    encoding, depayloader, parser = _PARTS[camera["codec"]]
    source = f"rtspsrc name={STREAM} protocols={camera['transport']} latency={camera['latency_ms']} buffer-mode=none"
    decode = f"{decoder} ! {_from_nvmm(0)}" if decoder.startswith("nv") else decoder
    timeout_us = round(camera["timeout_s"] * 1_000_000)
    return PipelinePlan(
        f"{source} ! {depayloader} name={DEPAYLOADER} ! {parser} ! {decode} ! {SINK}",
        {STREAM: {"location": camera["url"], "tcp-timeout": timeout_us, "timeout": timeout_us}},
        # a picture that is built on lost packets looks like one: rather none until the next key frame
        {DEPAYLOADER: {"wait-for-keyframe": True, "request-keyframe": True}},
        timeout_s=camera["timeout_s"],
        delay_ns=camera["latency_ms"] * NS_PER_MS,
        encoding=encoding,
    )


def _from_nvmm(flip: int) -> str:
    turned = f" flip-method={flip}" if flip else ""
    return f"nvvidconv{turned} ! video/x-raw,format=BGRx"
