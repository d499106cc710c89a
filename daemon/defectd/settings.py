"""One TOML file plus the environment, parsed once into frozen types. Settings stop at `app.py`.

`DEFECTD_MQTT__PASSWORD=…` sets `[mqtt] password`; the environment wins over the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import Annotated  # in typing from Python 3.9 on

TOPIC_LEVEL = r"^[A-Za-z0-9_-]{1,64}$"
TopicLevel = Annotated[str, Field(pattern=TOPIC_LEVEL)]
Confidence = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A table of the TOML: frozen, and a key that it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class StationSettings(Section):
    """Where the station stands; the topic prefix is defectd/v1/{site}/{area}/{line}/{station}."""

    site: TopicLevel
    area: TopicLevel
    line: TopicLevel
    station: TopicLevel


class TlsSettings(Section):
    """Setting `ca` turns TLS on; `cert` and `key` are the station's own, for mutual TLS."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _pairs(self) -> TlsSettings:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: set both or neither")
        if self.cert is not None and self.ca is None:
            raise ValueError("cert without ca: name the CA that signed the broker's certificate")
        return self


class MqttSettings(Section):
    """The broker. `password_file` holds the password alone; DEFECTD_MQTT__PASSWORD does as well."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=1883, ge=1, le=65535)
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    client_id: str | None = Field(default=None, description="default: defectd-{station}")
    tls: TlsSettings = TlsSettings()
    keepalive_s: int = Field(default=30, ge=5, le=3600)
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    window: int = Field(default=20, ge=1, le=100, description="unacknowledged messages at most")
    backlog_rate_hz: float = Field(default=200.0, ge=0, description="events per second at most; 0 is unlimited")
    reconnect_max_s: float = Field(default=60.0, ge=1)


class ModelSettings(Section):
    """What judges. `path` is a bundle (a directory that `defectd model export` made), or a stock Ultralytics
    TorchScript export."""

    path: Path
    trust: Path | None = Field(default=None, description="the root.json whose keys sign bundles; needed for a bundle")
    runtime: Literal["auto", "torchscript", "compiled", "tensorrt", "torch-tensorrt"] = Field(
        default="auto", description="auto serves the fastest that is proven on this device"
    )
    trial_s: float = Field(default=1200.0, gt=0, description="a runtime that takes longer to prove is dropped")
    name: str | None = Field(default=None, description="of a single file; default: its stem. A bundle has its own")
    version: str | None = Field(default=None, description="of a single file; default: 0. A bundle has its own")
    device: Literal["auto", "cuda", "cpu"] = "auto"
    precision: Literal["fp16", "fp32", "int8"] = Field(default="fp16", description="int8: of TensorRT alone")
    dla_core: int | None = Field(default=None, ge=0, le=7, description="of TensorRT: build for this DLA core")
    workspace_mb: int = Field(default=1024, ge=16, description="of TensorRT: memory while it builds, at most")
    nms_iou: Confidence | None = Field(default=None, description="default: the bundle's, or 0.7")
    max_detections: int = Field(default=300, ge=1, le=300)
    warmup_min: int | None = Field(default=None, ge=3)
    warmup_max: int | None = Field(default=None, ge=3)
    keep_warm_s: float = Field(default=2.0, ge=0, description="dummy inference after so long idle; 0 is off")
    hang_s: float = Field(default=5.0, gt=0, description="an inference that takes longer means a new engine")
    start_timeout_s: float = Field(default=300.0, gt=0)
    threads: int | None = Field(default=None, ge=1, description="CPU threads of the engine")


class CameraCommon(Section):
    """What all cameras share. `max_pixels` sizes a slot of the frame ring."""

    name: TopicLevel
    mode: Literal["triggered", "free_run"] = "triggered"
    max_pixels: int = Field(default=16_000_000, ge=4096, le=200_000_000)
    frozen_after: int | None = Field(default=None, ge=2, description="identical frames in a row that are a fault")
    stall_s: float = Field(
        default=5.0, ge=2.0, description="silence after which the worker is replaced; longer than the camera's pauses"
    )


class ReplaySettings(CameraCommon):
    """A folder of pictures or a video."""

    kind: Literal["replay"]
    path: Path
    rate_hz: float = Field(default=4.0, gt=0, le=1000)
    loop: bool = False


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


CameraSettings = Annotated[Union[ReplaySettings, SimulatedSettings, OpencvSettings], Field(discriminator="kind")]


class DefectSettings(Section):
    """One class that matters: what makes a detection of it a defect, and how MES calls it."""

    class_name: str = Field(min_length=1)
    code: str = Field(min_length=1)
    min_confidence: Confidence = 0.5
    review_from: Confidence | None = Field(
        default=None, description="detections from here up to min_confidence set needs_review"
    )
    min_area_px: float = Field(default=0.0, ge=0)
    allowed_count: int = Field(default=0, ge=0, description="so many are tolerated")
    category: str = ""
    description: str = ""
    priority: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _band(self) -> DefectSettings:
        if self.review_from is not None and self.review_from > self.min_confidence:
            raise ValueError(f"review_from {self.review_from} is above min_confidence {self.min_confidence}")
        return self


class RegionSettings(Section):
    """A polygon in pixels of the full frame; a box counts by its centre."""

    kind: Literal["include", "exclude"]
    polygon: list[tuple[float, float]] = Field(min_length=3, description="[[x, y], …], three corners or more")
    camera: str | None = Field(default=None, description="default: all cameras")


class InspectionSettings(Section):
    """The recipe and the deadline."""

    deadline_ms: float = Field(default=250.0, gt=0, le=60_000)
    recipe: str = "default"
    revision: str = "1"
    defect: list[DefectSettings] = Field(min_length=1)
    region: list[RegionSettings] = []

    @field_validator("defect")
    @classmethod
    def _unique(cls, defects: list[DefectSettings]) -> list[DefectSettings]:
        names = [defect.class_name for defect in defects]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"class_name {', '.join(twice)} stands twice: one entry per class")
        return defects


class EvidenceSettings(Section):
    """Pictures of failed and error units, under the state directory."""

    enabled: bool = True
    max_mb: int = Field(default=2048, ge=1)
    max_age_days: float = Field(default=30.0, gt=0)
    jpeg_quality: int = Field(default=90, ge=10, le=100)


class StateSettings(Section):
    """Where the outbox and the evidence live."""

    directory: Path = Path("/var/lib/defectd")
    outbox_max_mb: int = Field(default=512, ge=1)
    keep_delivered_h: float = Field(default=72.0, ge=0)


class TelemetrySettings(Section):
    """What the device does, on `tele/device`. jetson-stats is asked too if `jtop` is set; it must be installed."""

    every_s: float = Field(default=5.0, ge=1.0, le=3600)
    jtop: bool = False


class ThermalSettings(Section):
    """What is done about heat, by the hottest zone. Each level is left 3 °C below, and after ten seconds."""

    warn_c: float = Field(default=85.0, ge=20, le=120, description="a fault is raised")
    shed_c: float = Field(default=90.0, ge=20, le=120, description="no shadow, no pictures with boxes")
    slow_c: float = Field(default=94.0, ge=20, le=120, description="evt/slow_down asks the line to slow down")
    alarm_c: float = Field(default=98.0, ge=20, le=120, description="the same, and a fault that says alarm")

    @model_validator(mode="after")
    def _rising(self) -> ThermalSettings:
        if not self.warn_c < self.shed_c < self.slow_c < self.alarm_c:
            raise ValueError("expected warn_c < shed_c < slow_c < alarm_c")
        return self


class WebSettings(Section):
    """/metrics for Prometheus, /healthz and /readyz. Without this table there is no web server."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=9464, ge=1, le=65535)


class RolloutSource(Section):
    """Where bundles may be fetched from, under a name that commands use: a web server, or a folder (a USB stick)."""

    alias: TopicLevel
    url: str | None = Field(
        default=None, pattern=r"^https://[^@?#\s]+$", description="https, without user name; paths are below it"
    )
    ca: Path | None = Field(default=None, description="the CA of that server; needed with url")
    directory: Path | None = None

    @model_validator(mode="after")
    def _one_of(self) -> RolloutSource:
        if (self.url is None) == (self.directory is None):
            raise ValueError("expected either url (with ca) or directory")
        if (self.url is None) != (self.ca is None):
            raise ValueError("url and ca belong together: name the CA that signed the server's certificate")
        return self


class RolloutSettings(Section):
    """Model rollouts over the air. Without a source the station takes no commands."""

    source: list[RolloutSource] = []
    groups: list[TopicLevel] = Field(default=[], description="audiences of commands that this station belongs to")
    max_bundle_mb: int = Field(default=2048, ge=1)
    download_rate_mbps: float = Field(default=0.0, ge=0, description="megabits per second at most; 0 is unlimited")
    download_s: float = Field(default=3600.0, gt=0, description="a download takes at most so long")

    @field_validator("source")
    @classmethod
    def _unique(cls, sources: list[RolloutSource]) -> list[RolloutSource]:
        names = [source.alias for source in sources]
        if len(set(names)) != len(names):
            raise ValueError(f"alias must differ, got {', '.join(names)}")
        return sources


class LogSettings(Section):
    """To the journal under systemd, to the terminal elsewhere."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(BaseSettings):
    """All of it."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="DEFECTD_",
        env_nested_delimiter="__",
        protected_namespaces=(),
    )

    station: StationSettings
    mqtt: MqttSettings = MqttSettings()
    model: ModelSettings
    camera: list[CameraSettings] = Field(min_length=1)
    inspection: InspectionSettings
    evidence: EvidenceSettings = EvidenceSettings()
    state: StateSettings = StateSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    thermal: ThermalSettings = ThermalSettings()
    web: WebSettings | None = None
    rollout: RolloutSettings = RolloutSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the file (which arrives as keyword arguments)."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @field_validator("camera")
    @classmethod
    def _unique_names(cls, cameras: list[Any]) -> list[Any]:
        names = [camera.name for camera in cameras]
        if len(set(names)) != len(names):
            raise ValueError(f"camera names must differ, got {', '.join(names)}")
        return cameras

    @model_validator(mode="after")
    def _regions_name_cameras(self) -> Settings:
        names = {camera.name for camera in self.camera}
        for region in self.inspection.region:
            if region.camera is not None and region.camera not in names:
                raise ValueError(
                    f"inspection.region.camera: got {region.camera!r}, expected one of {', '.join(sorted(names))}"
                )
        return self

    def masked(self) -> dict[str, Any]:
        """The effective settings as JSON values, secrets as asterisks."""
        dump = self.model_dump(mode="json")
        for camera in dump["camera"]:
            if isinstance(camera.get("source"), str):
                camera["source"] = without_password(camera["source"])
        return dump

    def sha256(self) -> str:
        """Fingerprint of the effective settings without secrets, for audit. Hex."""
        canonical = json.dumps(self.masked(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def without_password(source: str) -> str:
    """*source* as it may be shown: `rtsp://user:secret@host/…` without what is between the colon and the @."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:**********@", source)
