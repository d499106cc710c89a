from __future__ import annotations

from defectd.camera_plans import plan_cameras
from defectd.camera_settings import ReplaySettings, SimulatedSettings

REPLAY = ReplaySettings(name="top", kind="replay", path="images")
LINE = SimulatedSettings(name="top", kind="simulated")


def positions_after(camera, *, last, first, clean):
    """What the outbox holds when a run with *camera* ended after trigger *last*."""
    from defectd.camera_plans import opening_positions

    plan = plan_cameras([camera], {"trigger/top": first - 1}, 250)
    return {**opening_positions([camera], plan), "trigger/top": last, "clean": int(clean)}


def test_the_first_run_begins_with_trigger_one():
    (plan,) = plan_cameras([REPLAY], {}, 250)
    assert (plan.first_trigger, plan.next_trigger) == (1, 1)


def test_trigger_numbers_go_on_after_a_clean_stop_and_the_replay_begins_anew():
    (plan,) = plan_cameras([REPLAY], positions_after(REPLAY, last=50, first=1, clean=True), 250)
    assert (plan.first_trigger, plan.next_trigger) == (51, 51)


def test_after_a_crash_the_replay_goes_on_with_the_picture_that_was_next():
    (plan,) = plan_cameras([REPLAY], positions_after(REPLAY, last=50, first=41, clean=False), 250)
    assert (plan.first_trigger, plan.next_trigger) == (41, 51)


def test_after_a_crash_with_another_folder_the_replay_begins_anew():
    other = REPLAY.model_copy(update={"path": REPLAY.path / "other"})
    (plan,) = plan_cameras([other], positions_after(REPLAY, last=50, first=41, clean=False), 250)
    assert (plan.first_trigger, plan.next_trigger) == (51, 51)


def test_a_line_that_waits_for_nobody_begins_where_it_is_after_a_crash():
    (plan,) = plan_cameras([LINE], positions_after(LINE, last=50, first=41, clean=False), 250)
    assert (plan.first_trigger, plan.next_trigger) == (51, 51)
