"""What a rollout learns from the line: units that two models judged, and units that one of them decided."""

from __future__ import annotations

from dataclasses import dataclass

from defectd.inspection.events import ErrorReason, Verdict


@dataclass(frozen=True)
class ShadowUnit:
    """One unit that both models judged. The verdict of the serving one went to the line."""

    served: Verdict
    shadow: Verdict
    served_inference_ms: float
    shadow_inference_ms: float | None
    detail: str = ""
    """Why `shadow` is an error."""
    same_codes: bool = True
    """False if both failed it, for different sets of defect codes."""


@dataclass(frozen=True)
class JudgedUnit:
    """One decided unit. `model_sha256` is None if no model judged it; times are CLOCK_MONOTONIC."""

    verdict: Verdict
    error: ErrorReason | None
    capture_to_verdict_ms: float
    model_sha256: str | None
    at_ns: int
