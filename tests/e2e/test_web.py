"""A free-running camera over a web: each defect is two events, and every frame is accounted for, over a crash, too."""

from __future__ import annotations

import time
from collections import Counter

import pytest

pytest.importorskip("torch", reason="needs torch: make setup")
pytest.importorskip("cv2", reason="needs OpenCV: make setup")
pytest.importorskip("similari", reason="needs the tracker: pip install similari-trackers-rs (no wheel for Python 3.13)")

from support.block_web import account_problems, of_stream, web_camera, write_web
from support.brokers import find_mosquitto
from support.proving_ground import ground
from support.station import wait_until

pytestmark = [
    pytest.mark.mqtt5,
    pytest.mark.skipif(find_mosquitto() is None, reason="needs Mosquitto: apt-get install mosquitto"),
]
RATE_HZ = 20.0


def told(here, stream):
    return of_stream(here.collector.events, stream)


def all_told(here, frames):
    stretches = told(here, "stretch")
    return bool(stretches) and stretches[-1]["to_trigger"] >= frames


def test_each_defect_is_born_once_and_ends_once_and_no_frame_is_missing(tmp_path):
    frames = write_web(tmp_path / "web", defects=20, every_rows=5)
    changes = {"camera": [web_camera(tmp_path / "web", RATE_HZ)]}
    with ground(tmp_path, 1, RATE_HZ, changes) as here:
        wait_until(lambda: all_told(here, frames), 90, "all stretches")
        here.terminate()
        stretches, tracks = told(here, "stretch"), told(here, "track")
        assert account_problems(stretches) == []
        assert stretches[-1]["to_trigger"] == frames and sum(stretch["lost"] for stretch in stretches) == 0
        states = Counter(track["state"] for track in tracks)
        assert states == {"born": 20, "ended": 20}
        assert len({track["track_id"] for track in tracks}) == 20
        assert {track["reason"] for track in tracks if track["state"] == "ended"} <= {"gone", "stopped"}
        born = [track for track in tracks if track["state"] == "born"]
        assert all(
            (here.directory / "state/evidence" / image["path"]).exists() for each in born for image in each["images"]
        )
        assert sum(bool(each["images"]) for each in born) >= 15, "a picture may be given up, not all of them"
        assert here.collector.inspections == [], "no event for each frame"
        assert here.daemon.exit_code == 0


def test_after_a_kill_the_numbers_go_on_and_the_frames_between_are_told_as_lost(tmp_path):
    frames = write_web(tmp_path / "web", defects=24, every_rows=6)
    changes = {"camera": [web_camera(tmp_path / "web", RATE_HZ, report_every_s=2.0)]}
    with ground(tmp_path, 1, RATE_HZ, changes) as here:
        wait_until(lambda: all_told(here, 30), 60, "the first stretch")
        time.sleep(1.3)
        here.kill_daemon()
        before = told(here, "track")
        here.restart_daemon()
        wait_until(lambda: all_told(here, frames), 90, "all stretches")
        here.terminate()
        stretches = told(here, "stretch")
        assert account_problems(stretches) == []
        boots = [stretch["boot_id"] for stretch in stretches]
        first_again = next(stretch for stretch in stretches if stretch["boot_id"] != boots[0])
        assert (
            0 < first_again["lost"] <= 3 * RATE_HZ
            and sum(stretch["lost"] for stretch in stretches) == first_again["lost"]
        )
        latest = max((track["last_trigger"] for track in before), default=0)
        assert first_again["from_trigger"] + first_again["lost"] > latest, "no number is given to two frames"
