"""The tables of the TOML about rollouts over the air."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from defectd.section import Section, TopicLevel


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

    source: list[RolloutSource] = Field(default=[])
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
