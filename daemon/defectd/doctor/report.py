"""What was found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Mapping, Sequence

SCHEMA = "defectd.doctor/1.0"


class Level(str, Enum):
    """How bad it is. SKIPPED: it was not looked at, and the words say why."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and what to do about it. `figures` are for programs."""

    level: Level
    subject: str
    found: str
    remedy: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.remedy or self.level in (Level.OK, Level.SKIPPED), f"{self.subject}: nobody is told what to do"


def ok(subject: str, found: str, **figures: Any) -> Finding:
    """As it should be."""
    return Finding(Level.OK, subject, found, figures=figures)


def skipped(subject: str, why: str) -> Finding:
    """Not looked at."""
    return Finding(Level.SKIPPED, subject, why)


def warning(subject: str, found: str, remedy: str, **figures: Any) -> Finding:
    """The station works, but not as well or as long as it could."""
    return Finding(Level.WARNING, subject, found, remedy, figures)


def error(subject: str, found: str, remedy: str, **figures: Any) -> Finding:
    """Something that a station needs is missing, or wrong."""
    return Finding(Level.ERROR, subject, found, remedy, figures)


@dataclass(frozen=True)
class Report:
    """All findings, by section, in the order in which they were made."""

    machine: str
    config: str
    findings: Sequence[tuple[str, Finding]]
    took_s: float

    @property
    def counts(self) -> Mapping[Level, int]:
        """How many of each level."""
        return Counter(finding.level for _, finding in self.findings)

    @property
    def is_fit(self) -> bool:
        """Without an error."""
        return self.counts.get(Level.ERROR, 0) == 0

    def to_json(self, version: str, at: str) -> dict[str, Any]:
        """For programs; *version* is defectd's, *at* the moment."""
        return {
            "schema": SCHEMA,
            "defectd": version,
            "at": at,
            "machine": self.machine,
            "config": self.config,
            "took_s": round(self.took_s, 1),
            "ok": self.is_fit,
            "counts": {level.value: self.counts.get(level, 0) for level in Level},
            "findings": [
                {
                    "section": section, "subject": one.subject, "level": one.level.value, "found": one.found,
                    "remedy": one.remedy or None, "figures": dict(one.figures),
                }
                for section, one in self.findings
            ],
        }  # fmt: skip
