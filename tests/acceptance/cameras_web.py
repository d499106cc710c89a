"""A camera that runs freely over a moving web: defects are events, not frames; no frame is missing in the account."""

from __future__ import annotations

import importlib.util
import json
import time
from collections import Counter
from typing import Any, Mapping, Sequence

from defectd.demo.station import CODES, DEFECT_RATE, HEIGHT_PX, MIN_CONFIDENCE, MODEL, SEED, WIDTH_PX
from support.block_web import account_problems, of_stream, web_camera
from support.proving import Proof, Setting, Short, Skipped
from support.proving_ground import Ground, ground
from support.station import wait_until
from support.webs import BoardWeb

_RATE_HZ = 5.0
_STEP_PX = 48  # no two boxes of a defect overlap in the picture: only who knows the speed can tell them to be one
_MOST_TWICE = 0.05
_LEAST_FOUND = 0.95
_PATIENCE_S = 240.0


def _needs_tracker() -> None:
    if importlib.util.find_spec("similari") is None:
        raise Skipped("no tracker: pip install similari-trackers-rs")


def _told(here: Ground, stream: str) -> list[Mapping[str, Any]]:
    return of_stream(here.collector.events, stream)


def _accounted(here: Ground) -> tuple[list[Mapping[str, Any]], str]:
    """The stretches, and their sum. Raises Short for a frame that is missing."""
    stretches = _told(here, "stretch")
    problems = account_problems(stretches)
    if problems or not stretches:
        raise Short("; ".join(problems[:3]) or "no stretch was told")
    sums = {key: sum(stretch[key] for stretch in stretches) for key in ("frames", "inspected", "dropped", "lost")}
    if sums["frames"] != stretches[-1]["to_trigger"]:
        raise Short(f"{sums['frames']} frames in the stretches, the camera gave {stretches[-1]['to_trigger']}")
    told = ", ".join(f"{value} {key}" for key, value in sums.items())
    return stretches, f"{len(stretches)} stretches: {told}"


def _births(setting: Setting) -> str:
    """The demo's boards and its model, on a belt whose speed the station has to find out."""
    _needs_tracker()
    web = BoardWeb(SEED, 5 if setting.quick else 12, WIDTH_PX, HEIGHT_PX, max(DEFECT_RATE, 0.9))
    frames = web.frames(_STEP_PX)
    folder = web.write(setting.directory / "web", _STEP_PX)
    camera = {**web_camera(folder, _RATE_HZ), "max_pixels": WIDTH_PX * HEIGHT_PX}
    defects = [
        {"class_name": name, "code": code, "min_confidence": MIN_CONFIDENCE} for name, (code, _) in CODES.items()
    ]
    changes = {
        "camera": [camera], "model": {"path": MODEL, "warmup_min": 6, "warmup_max": 6},
        "inspection": {"deadline_ms": 5000, "defect": defects},
    }  # fmt: skip
    with ground(setting.directory, 1, _RATE_HZ, changes) as here:
        _await_frames(here, frames)
        here.terminate()
        _, account = _accounted(here)
        tracks = _told(here, "track")
        sent = sum(len(json.dumps(event)) for event in here.collector.events.values())
    return f"{_judge_births(web, tracks)}; {account}; {sent / frames:.0f} bytes of events a frame"


def _await_frames(here: Ground, frames: int) -> None:
    def all_told() -> bool:
        stretches = _told(here, "stretch")
        return bool(stretches) and stretches[-1]["to_trigger"] >= frames

    wait_until(all_told, _PATIENCE_S + frames / _RATE_HZ, f"the account of {frames} frames")


def _judge_births(web: BoardWeb, tracks: Sequence[Mapping[str, Any]]) -> str:
    """Births held against the physical defects. Raises Short."""
    born = [track for track in tracks if track["state"] == "born"]
    ended = {track["track_id"] for track in tracks if track["state"] == "ended"}
    times: Counter[int] = Counter()
    invented = 0
    for track in born:
        of = web.at(track["first_trigger"] - 1, _STEP_PX, track["first_bbox_px"])
        times.update(of[:1])
        invented += not of
    twice, count = sum(each - 1 for each in times.values()), len(web.defects)
    told = f"{count} physical defects, {len(born)} births: {len(times)} found, {twice} twice, {invented} invented"
    if {track["track_id"] for track in born} != ended:
        raise Short(f"{told}; {len(ended)} ends for {len(born)} births")
    if len(times) < _LEAST_FOUND * count or twice + invented > _MOST_TWICE * count:
        raise Short(f"{told}; expected at least {_LEAST_FOUND:.0%} found and at most {_MOST_TWICE:.0%} too many")
    speeds = [track["web_px_per_s"][1] for track in born[-3:]]
    return f"{told}; speed found: {', '.join(f'{speed:.0f}' for speed in speeds)} of {-_STEP_PX * _RATE_HZ:.0f} px/s"


def _account(setting: Setting) -> str:
    """A camera that is too fast for this machine; in the middle the daemon is killed."""
    _needs_tracker()
    lasts_s, rate_hz = (6.0 if setting.quick else 15.0), 150.0
    camera = {
        "name": "web", "kind": "simulated", "mode": "free_run", "rate_hz": rate_hz, "width_px": 192, "height_px": 192,
        "max_pixels": 192 * 192, "defect_rate": 1.0, "track": {"report_every_s": 2.0},
    }  # fmt: skip
    with ground(setting.directory, 1, rate_hz, {"camera": [camera]}) as here:
        wait_until(lambda: _told(here, "stretch"), _PATIENCE_S, "the first stretch")
        time.sleep(lasts_s)
        here.kill_daemon()
        here.restart_daemon()
        time.sleep(lasts_s)
        here.terminate()
        stretches, account = _accounted(here)
    boots = list(dict.fromkeys(stretch["boot_id"] for stretch in stretches))
    dropped, lost = (sum(stretch[key] for stretch in stretches) for key in ("dropped", "lost"))
    if len(boots) != 2 or not dropped or not lost:
        raise Short(f"{len(boots)} starts, expected two, with dropped and lost frames: {account}")
    return f"{account}; {'; '.join(here.notes)}"


WEB = (
    Proof("web.births", "each physical defect on a moving web is one event, at a speed that nobody told", _births),
    Proof("web.account", "every frame is inspected, dropped or told as lost, over a kill -9, too", _account),
)
