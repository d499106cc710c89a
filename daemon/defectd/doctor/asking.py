"""Asks a probe, and puts what its process did into words."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Mapping

from defectd.engine.background import Patience, ask


@dataclass(frozen=True)
class Told:
    """What the probe said, or its `trouble`: an exception of its own, a crash, or silence. `absent`: the very module
    that it examines is not installed."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    trouble: str | None = None
    absent: bool = False


def told_by(
    probe: str, request: Mapping[str, Any], seconds: float, *, needs_mb: int = 0, module: str = "", nice: int = 10
) -> Told:
    """What `probes/*probe*.py` says to *request* within *seconds*; its process is killed then, whatever it does."""
    command = (sys.executable, "-m", f"defectd.doctor.probes.{probe}")
    answer = ask(command, request, Patience(seconds, needs_mb, nice=nice))
    if answer.problem is not None:
        return Told(trouble=f"the probe {answer.problem}")
    said = answer.last.get("error")
    if said is not None:
        return Told(trouble=str(said), absent=bool(module) and f"No module named '{module}'" in str(said))
    return Told(answer.last)
