"""The tables of the TOML about the device: what it does, what is done about heat, and who may ask."""

from __future__ import annotations

from pydantic import Field, model_validator

from defectd.section import Section


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
