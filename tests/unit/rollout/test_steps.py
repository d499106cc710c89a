from __future__ import annotations

from datetime import time

import pytest

pytest.importorskip("cryptography")

from defectd.rollout.policy import Policy
from defectd.rollout.states import FINAL, State
from defectd.rollout.steps import STEPS, _waits_for, in_window


def test_every_state_that_a_rollout_can_be_found_in_has_a_step():
    assert set(STEPS) == set(State) - FINAL - {State.ROLLING_BACK}, "rolling back is finished where it begins"


@pytest.mark.parametrize(
    ("window", "now", "inside"),
    [
        ("08:00-16:30", time(8), True), ("08:00-16:30", time(16, 30), False), ("08:00-16:30", time(3), False),
        ("22:00-04:30", time(23), True), ("22:00-04:30", time(4, 29), True), ("22:00-04:30", time(12), False),
    ],
)  # fmt: skip
def test_a_window_may_go_over_midnight(window, now, inside):
    assert in_window(window, now) == inside


def test_a_staged_rollout_says_what_it_waits_for():
    policy = Policy(approval=True, window="22:00-04:30", idle_s=60)
    noon, night = time(12), time(23)
    assert _waits_for(policy, {}, 0, noon, "") == "approve"
    assert _waits_for(policy, {"approval": {}}, 0, noon, "") == "window 22:00-04:30"
    assert "12 of 60 s" in (_waits_for(policy, {"approval": {}}, 12, night, "") or "")
    assert "tensorrt" in (_waits_for(policy, {"approval": {}}, 61, night, "tensorrt: building 40%") or "")
    assert _waits_for(policy, {"approval": {}}, 61, night, "") is None
