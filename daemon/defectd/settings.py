"""One TOML file plus the environment, parsed once into frozen types. Settings stop at `app.py`.

`DEFECTD_MQTT__PASSWORD=…` sets `[mqtt] password`; the environment wins over the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from defectd.camera_settings import CameraSettings, units_of
from defectd.rollout_settings import RolloutSettings
from defectd.section import Confidence, Section, TopicLevel
from defectd.telemetry_settings import TelemetrySettings, ThermalSettings, WebSettings


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
    pair_within_ms: float = Field(
        default=100.0, gt=0, le=60_000,
        description="triggers of several cameras so near are of one unit; shorter than the pause between two units",
    )  # fmt: skip
    announced_ids: bool = Field(default=False, description="cmd/unit names the next unit that a camera triggers")
    recipe: str = "default"
    revision: str = "1"
    defect: list[DefectSettings] = Field(min_length=1)
    region: list[RegionSettings] = Field(default=[])

    @field_validator("defect")
    @classmethod
    def _unique(cls, defects: list[DefectSettings]) -> list[DefectSettings]:
        names = [defect.class_name for defect in defects]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"class_name {', '.join(twice)} stands twice: one entry per class")
        return defects


class EvidenceSettings(Section):
    """Pictures of failed and error units, under the state directory; and those that are worth training with."""

    enabled: bool = True
    max_mb: int = Field(default=2048, ge=1)
    max_age_days: float = Field(default=30.0, gt=0)
    jpeg_quality: int = Field(default=90, ge=10, le=100)
    collect: Literal["none", "needs_review", "failed_and_review"] = Field(
        default="none", description="pictures that are kept as training data, with what the model saw in them"
    )
    collect_as: Literal["jpeg", "png"] = Field(default="jpeg", description="jpeg is of quality 95, png lossless")
    collect_max_mb: int = Field(default=4096, ge=1, description="the oldest of them go first; they have no age")

    @model_validator(mode="after")
    def _collects(self) -> EvidenceSettings:
        if self.collect != "none" and not self.enabled:
            raise ValueError('collect needs enabled = true; expected that, or collect = "none"')
        return self


class StateSettings(Section):
    """Where the outbox and the evidence live."""

    directory: Path = Path("/var/lib/defectd")
    outbox_max_mb: int = Field(default=512, ge=1)
    keep_delivered_h: float = Field(default=72.0, ge=0)


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
        units_of(cameras)
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

    @model_validator(mode="after")
    def _views_can_meet(self) -> Settings:
        """Pictures of several cameras that trigger themselves are of one unit if they come close together."""
        for name, members in units_of(self.camera).items():
            if members[0].commanded or (len(members) == 1 and members[0].shots == 1):
                continue
            if self.inspection.pair_within_ms >= self.inspection.deadline_ms:
                raise ValueError(
                    f"inspection.pair_within_ms: got {self.inspection.pair_within_ms:g}; expected less than "
                    f"deadline_ms ({self.inspection.deadline_ms:g}), because unit {name!r} has several views"
                )
            alone = [member.name for member in members if member.kind in ("replay", "simulated")]
            if alone:
                raise ValueError(
                    f"camera {', '.join(alone)}: its pictures do not come together with others of unit {name!r}; "
                    'expected trigger = "interval" or "message"'
                )
        return self

    def masked(self) -> dict[str, Any]:
        """The effective settings as JSON values, secrets as asterisks."""
        dump = self.model_dump(mode="json")
        for camera in dump["camera"]:
            for key in ("source", "url", "pipeline"):
                if isinstance(camera.get(key), str):
                    camera[key] = without_password(camera[key])
        return dump

    def sha256(self) -> str:
        """Fingerprint of the effective settings without secrets, for audit. Hex."""
        canonical = json.dumps(self.masked(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def without_password(source: str) -> str:
    """*source* as it may be shown: `rtsp://user:secret@host/…` without what is between the colon and the @."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:**********@", source)
