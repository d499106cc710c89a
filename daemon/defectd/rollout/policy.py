"""What a technician may ask of a rollout. Signed with the command, so whole numbers only."""

from __future__ import annotations

from pydantic import Field

from defectd.models.manifest import Strict


class Policy(Strict):
    """When to begin, what the gates ask for, and what is allowed. The defaults suit a line of 240 units a minute."""

    approval: bool = Field(default=False, description="wait, when all is on disk, for `approve`")
    window: str | None = Field(
        default=None,
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$",
        description="begin only then, in the station's local time, such as 22:00-04:30",
    )
    idle_s: int = Field(default=0, ge=0, le=86_400, description="begin only after so long without a unit; 0: at once")
    shadow_units: int = Field(default=300, ge=0, le=1_000_000, description="judged by both models; 0: no shadow")
    shadow_s: int = Field(default=3600, ge=1, le=604_800, description="the shadow takes at most so long")
    max_disagree_permille: int = Field(default=20, ge=0, le=1000, description="of the units, at most")
    max_shift_permille: int = Field(
        default=10, ge=0, le=1000, description="a one-sided change of verdicts that is tolerated, of the units"
    )
    max_other_codes_permille: int = Field(
        default=50, ge=0, le=1000, description="of the units: those that both fail, for different defect codes"
    )
    probation_units: int = Field(default=5000, ge=0, le=10_000_000, description="decided by the candidate, at least")
    probation_s: int = Field(default=1800, ge=0, le=604_800, description="of a running line, at least")
    max_error_permille: int = Field(default=1, ge=0, le=1000, description="of the units in probation")
    max_slower_percent: int = Field(default=15, ge=0, le=10_000, description="of the old p99; the deadline bounds it")
    max_drift_permille: int = Field(
        default=5, ge=0, le=1000, description="of the share of failed units; three sigma if that is more"
    )
    max_temp_c: int = Field(default=95, ge=1, le=150, description="of the hottest zone in probation")
    min_free_mb: int = Field(default=256, ge=0, le=1_000_000, description="MemAvailable in probation, at least")
    allow_downgrade: bool = Field(default=False, description="a release_seq below the station's floor")
    allow_pause: bool = Field(
        default=False, description="stop inspecting while the model changes, if memory does not allow two"
    )
