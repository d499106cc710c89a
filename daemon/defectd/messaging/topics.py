"""Where each message goes: `{root}/v1/{site}/{area}/{line}/{station}/…`."""

from __future__ import annotations

from dataclasses import dataclass

ROOT = "defectd/v1"


@dataclass(frozen=True)
class Topics:
    """The topics of one station."""

    site: str
    area: str
    line: str
    station: str

    @property
    def levels(self) -> str:
        """site/area/line/station."""
        return f"{self.site}/{self.area}/{self.line}/{self.station}"

    @property
    def prefix(self) -> str:
        """Topic prefix of the station, without a trailing slash."""
        return f"{ROOT}/{self.levels}"

    @property
    def status(self) -> str:
        """Retained, and the will."""
        return f"{self.prefix}/status"

    @property
    def birth(self) -> str:
        """Retained."""
        return f"{self.prefix}/birth"

    def event(self, stream: str) -> str:
        """The topic of a stored stream: inspection, fault, gap."""
        return f"{self.prefix}/evt/{stream}"
