"""The cameras' tables of the TOML, one kind of camera each."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal, Tuple, Union

from pydantic import Field, field_validator, model_validator
from typing_extensions import Annotated  # in typing from Python 3.9 on

from defectd.section import Confidence, Section, TopicLevel

RegionPx = Annotated[Tuple[int, int, int, int], Field(description="[x, y, width, height] in pixels")]


class PresenceSettings(Section):
    """A unit is there when enough of the picture differs from the empty line, and stands still."""

    region: RegionPx | None = None
    min_share: float = Field(default=0.1, gt=0, le=1, description="of pixels that changed: something is there")
    min_change: int = Field(default=25, ge=1, le=255, description="grey levels from which on a pixel has changed")
    settle_frames: int = Field(default=2, ge=0, description="so many alike in a row: then the picture is taken")
    absent_frames: int = Field(default=2, ge=1, description="so many empty ones before the next unit can come")
    stuck_s: float = Field(default=60.0, gt=0, description="there for longer is a fault")
    background: Path | None = Field(default=None, description="file of the empty view; default: in the state directory")


class HealthSettings(Section):
    """Limits of a picture that is fit to be judged; what is not set is not looked at."""

    min_focus: float | None = Field(default=None, gt=0, description="variance of the Laplacian; the log tells today's")
    max_clipped_share: Confidence | None = Field(default=None, description="of pixels at 250 or more: overexposed")
    max_dark_share: Confidence | None = Field(default=None, description="of pixels below 16: underexposed")
    max_mean_drift: float | None = Field(default=None, gt=0, le=255, description="grey levels away from the reference")
    reference_mean: float | None = Field(
        default=None, ge=0, le=255, description="default: learned from the first fit pictures of each start"
    )
    black: bool = Field(default=True, description="a black picture is a fault; false for dark-field light")
    after: int = Field(default=3, ge=1, description="so many in a row begin a fault, and end it")
    reject: bool = Field(default=False, description="an unfit picture is an error unit, instead of being judged")


class CodeSettings(Section):
    """The unit's id is read in the picture."""

    region: RegionPx | None = Field(
        default=None, description="where the code is; default: anywhere, which takes longer"
    )
    formats: list[
        Literal[
            "Aztec", "Codabar", "Code39", "Code93", "Code128", "DataMatrix", "EAN8", "EAN13", "ITF", "MicroQRCode",
            "PDF417", "QRCode", "UPCA", "UPCE",
        ]
    ] = Field(default=["QRCode", "DataMatrix", "Code128"], min_length=1)  # fmt: skip
    required: bool = Field(default=False, description="a unit whose code cannot be read is an error")


class TrackSettings(Section):
    """A free-running camera over a moving web: the same defect in several frames is one event."""

    confirm_frames: int = Field(default=2, ge=1, description="seen so often, it is born")
    lost_frames: int = Field(default=5, ge=1, le=100, description="not seen so often, it is ended")
    min_iou: Confidence = Field(default=0.2, description="overlap from which on it is the same one")
    motion_px_per_s: tuple[float, float] = Field(default=(0.0, 0.0), description="[x, y]: how the web moves, if known")
    report_every_s: float = Field(default=5.0, ge=0.5, le=3600, description="frames are accounted for so often")


class CameraCommon(Section):
    """What all cameras share. `max_pixels` sizes a slot of the frame ring."""

    name: TopicLevel
    mode: Literal["triggered", "free_run"] = "triggered"
    trigger: Literal["camera", "message", "interval", "presence"] = Field(
        default="camera", description="who says that a unit is there: the camera, cmd/unit, a clock, or the picture"
    )
    interval_ms: float | None = Field(default=None, ge=5, description="of trigger = interval")
    unit: TopicLevel | None = Field(default=None, description="cameras with the same one see the same units together")
    shots: int = Field(default=1, ge=1, le=8, description="pictures of each unit")
    max_pixels: int = Field(default=16_000_000, ge=4096, le=200_000_000)
    frozen_after: int | None = Field(default=None, ge=2, description="identical frames in a row that are a fault")
    stall_s: float = Field(
        default=5.0, ge=2.0, description="silence after which the worker is replaced; longer than the camera's pauses"
    )
    presence: PresenceSettings | None = None
    health: HealthSettings | None = None
    code: CodeSettings | None = None
    track: TrackSettings | None = None

    @property
    def commanded(self) -> bool:
        """True if the daemon says when a picture is taken."""
        return self.trigger in ("message", "interval")

    @model_validator(mode="after")
    def _fits_together(self) -> CameraCommon:
        if (self.trigger == "interval") != (self.interval_ms is not None):
            raise ValueError('interval_ms belongs to trigger = "interval": set both or neither')
        if (self.trigger == "presence") != (self.presence is not None):
            raise ValueError('the table presence belongs to trigger = "presence": set both or neither')
        if self.mode == "free_run" and (self.trigger != "camera" or self.unit is not None or self.shots > 1):
            raise ValueError('mode = "free_run" has no units: it goes with neither trigger, unit nor shots')
        timeout_s = getattr(self, "timeout_s", None)
        if timeout_s is not None and timeout_s >= self.stall_s:
            raise ValueError(f"timeout_s: got {timeout_s:g}, expected less than stall_s = {self.stall_s:g}")
        if self.trigger == "presence" and self.shots > 1:
            raise ValueError('trigger = "presence" takes one picture of each unit; expected shots = 1')
        if self.track is not None and self.mode != "free_run":
            raise ValueError('the table track belongs to mode = "free_run"')
        return self


class ReplaySettings(CameraCommon):
    """A folder of pictures, a video, or what `defectd record` saved."""

    kind: Literal["replay"]
    path: Path
    rate_hz: float = Field(default=4.0, gt=0, le=1000)
    loop: bool = False
    pace: Literal["rate", "recorded"] = Field(default="rate", description="recorded: the rhythm of the recording")


class SimulatedSettings(CameraCommon):
    """A production line drawn by us, with known defects."""

    kind: Literal["simulated"]
    rate_hz: float = Field(default=4.0, gt=0, le=1000)
    units: int | None = Field(default=None, ge=1, description="stop after so many; default: for ever")
    seed: int = Field(default=7, ge=0)
    width_px: int = Field(default=640, ge=192, le=8192)
    height_px: int = Field(default=512, ge=192, le=8192)
    defect_rate: Confidence = 0.45


class OpencvSettings(CameraCommon):
    """V4L2 by index or path, RTSP, or a file, through OpenCV."""

    kind: Literal["opencv"]
    source: int | str
    width_px: int | None = Field(default=None, ge=1)
    height_px: int | None = Field(default=None, ge=1)
    rate_hz: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _cannot_be_told(self) -> OpencvSettings:
        if self.commanded:
            raise ValueError(
                f'trigger = "{self.trigger}": OpenCV gives pictures that are older than the command; '
                'expected "camera" or "presence", or kind = "gstreamer" with v4l2src'
            )
        return self


class AravisSettings(CameraCommon):
    """GigE Vision and USB3 Vision through Aravis. Opening by `serial` or `user_name` asks around on `interface`."""

    kind: Literal["aravis"]
    address: str | None = Field(default=None, description="the camera's IP address")
    serial: str | None = None
    user_name: str | None = None
    interface: str | None = Field(default=None, description="network interface to look on; of USB cameras: none")
    pixel_format: str | None = Field(default=None, description="GenICam's name, such as BayerRG8; default: as it is")
    features: dict[str, bool | int | float | str] = Field(
        default={}, description="GenICam features, set in this order and read back"
    )
    trigger_source: str | None = Field(default=None, description="Software, Line0, …; default: the camera runs freely")
    width_px: int | None = Field(default=None, ge=1)
    height_px: int | None = Field(default=None, ge=1)
    packet_size: int | None = Field(default=None, ge=576, le=16_000, description="bytes; default: what the way allows")
    packet_delay_us: float | None = Field(default=None, ge=0)
    socket_buffer_kb: int | None = Field(default=None, ge=64)

    @model_validator(mode="after")
    def _one_name(self) -> AravisSettings:
        if sum(each is not None for each in (self.address, self.serial, self.user_name)) != 1:
            raise ValueError("expected one of address, serial and user_name")
        if self.user_name is not None and self.interface is None:
            raise ValueError("user_name without interface: name the network interface to look on")
        return self

    @field_validator("address")
    @classmethod
    def _is_numeric(cls, address: str | None) -> str | None:
        if address is not None:
            IPv4Address(address)
        return address

    @model_validator(mode="after")
    def _somebody_fires(self) -> AravisSettings:
        if self.trigger_source == "Software" and not self.commanded:
            raise ValueError(
                f'trigger_source = "Software" with trigger = "{self.trigger}": nobody would fire it; expected '
                'trigger = "message" or "interval"'
            )
        return self


class CsiSettings(CameraCommon):
    """A sensor on the Jetson's CSI port, through NVIDIA's Argus. What is set is locked; what is not, is automatic."""

    kind: Literal["csi"]
    sensor_id: int = Field(default=0, ge=0, le=15)
    sensor_mode: int | None = Field(default=None, ge=0)
    width_px: int = Field(default=1920, ge=16, le=16_384)
    height_px: int = Field(default=1080, ge=16, le=16_384)
    rate_hz: float = Field(default=30.0, gt=0, le=1000)
    exposure_us: float | None = Field(default=None, gt=0)
    gain: float | None = Field(default=None, gt=0)
    white_balance: Literal[
        "off", "auto", "incandescent", "fluorescent", "warm-fluorescent", "daylight", "cloudy-daylight", "twilight",
        "shade", "manual",
    ] = "auto"  # fmt: skip
    flip: int = Field(default=0, ge=0, le=7, description="nvvidconv's flip-method")
    timeout_s: float = Field(default=2.0, gt=0, description="no frame for so long: it is opened anew; below stall_s")


class RtspSettings(CameraCommon):
    """An RTSP stream through GStreamer."""

    kind: Literal["rtsp"]
    url: str = Field(pattern=r"^rtsps?://[^\s]+$")
    codec: Literal["h264", "h265", "mjpeg"] = "h264"
    transport: Literal["tcp", "udp"] = "tcp"
    latency_ms: int = Field(default=100, ge=0, le=10_000)
    timeout_s: float = Field(default=2.0, gt=0, description="no frame for so long: it is opened anew; below stall_s")
    decoder: str | None = Field(default=None, description="GStreamer element; default: the first that is there")


class GstreamerSettings(CameraCommon):
    """Any GStreamer pipeline that ends in raw video; the sink is ours."""

    kind: Literal["gstreamer"]
    pipeline: str = Field(min_length=1, description="for example v4l2src device=/dev/v4l/by-path/… ! videoconvert")
    timeout_s: float | None = Field(default=None, gt=0, description="no frame for so long: opened anew; default: never")

    @field_validator("pipeline")
    @classmethod
    def _no_sink(cls, pipeline: str) -> str:
        last = pipeline.rsplit("!", 1)[-1].split()
        if not last or last[0].endswith("sink"):
            raise ValueError("ends in a sink; expected a pipeline without one")
        return pipeline


CameraSettings = Annotated[
    Union[
        ReplaySettings, SimulatedSettings, OpencvSettings, AravisSettings, CsiSettings, RtspSettings, GstreamerSettings
    ],
    Field(discriminator="kind"),
]  # fmt: skip


def units_of(cameras: list[CameraSettings]) -> dict[str, list[CameraSettings]]:
    """Who sees what: the name of the units, which is the camera's own if it is alone, to its cameras.

    Raises ValueError if cameras of one unit do not agree on its trigger.
    """
    units: dict[str, list[CameraSettings]] = {}
    names = {camera.name for camera in cameras}
    for camera in cameras:
        if camera.unit in names:
            raise ValueError(f"unit: {camera.unit!r} is the name of a camera; expected another one")
        units.setdefault(camera.unit or camera.name, []).append(camera)
    for name, members in units.items():
        if len({(member.trigger, member.interval_ms) for member in members}) > 1:
            raise ValueError(f"trigger and interval_ms of the cameras of unit {name!r} must be the same")
    return units
