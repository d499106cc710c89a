from __future__ import annotations

from collections import Counter
from pathlib import Path

from defectd.camera.feed import CameraPlan
from defectd.record_cli import as_recorded, in_words
from defectd.recording.recorder import Recorded


def plan(**source):
    return CameraPlan("top", "opencv", "triggered", "counter", False, False, 1, 5.0, 1, 1, source)


def test_nothing_that_a_picture_shows_keeps_it_out_of_a_recording():
    code = {"formats": ["QRCode"], "required": True}
    recorded = as_recorded(plan(health={"reject": True}, frozen_after=10, code=code, rate_hz=4))
    assert recorded.source == {
        "health": None, "frozen_after": None, "code": {"formats": ["QRCode"], "required": False}, "rate_hz": 4,
    }  # fmt: skip


def test_a_camera_without_codes_stays_one():
    assert as_recorded(plan(code=None)).source["code"] is None


def test_the_last_word_says_how_much_why_it_ended_and_what_is_missing():
    recorded = Recorded(2, 1_500_000, 3.04, Counter(camera_overrun=1), "stopped")
    assert in_words(Path("out"), recorded) == (
        "out: 2 picture(s), 1.5 MB, 3.0 s; stopped; units without a picture: camera_overrun 1"
    )
