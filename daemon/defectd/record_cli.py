"""`defectd record`: what a camera sees, on disk, for a replay at a desk."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectd.errors import CameraError, SettingsError, StateError

if TYPE_CHECKING:
    from defectd.camera.feed import CameraPlan
    from defectd.recording.recorder import Recorded
    from defectd.settings import Settings

Commands = Any  # argparse's type for it is private
_SHOOT_EVERY_MS = 500.0
_PROGRESS_EVERY_S = 5.0


def add_to(commands: Commands) -> None:
    """Register the command."""
    about = (
        "Save the raw frames of one camera with their metadata, until a bound is reached or Ctrl-C. The folder can be "
        'replayed: kind = "replay", path = DIR, pace = "recorded".'
    )
    exits = "Exit codes: 0 recorded, also after Ctrl-C; 2 wrong usage, 3 the camera, 4 the folder or the disk."
    record = commands.add_parser(
        "record", help="save what a camera sees, for a replay", description=about, epilog=exits
    )
    record.add_argument("--config", type=Path, required=True, metavar="FILE", help="the station's TOML")
    record.add_argument("--camera", required=True, metavar="NAME", help="the name of a [[camera]]")
    record.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder that does not exist yet")
    record.add_argument("--frames", type=int, default=None, metavar="N", help="pictures at most")
    record.add_argument("--seconds", type=float, default=None, metavar="S", help="since the camera is open, at most")
    record.add_argument("--max-mb", type=float, default=2000.0, metavar="MB", help="on disk at most (default: 2000)")
    about_format = "bmp keeps up with 12 MP at 4 a second, png takes half the room (default: bmp)"
    record.add_argument("--format", choices=("bmp", "png"), default="bmp", help=about_format)
    about_every = "of a camera that waits for messages: take a picture so often (default: 500, or its interval_ms)"
    record.add_argument("--every-ms", type=float, default=None, metavar="MS", help=about_every)
    record.set_defaults(command=_record)


def _record(options: argparse.Namespace) -> int:
    from defectd import __version__
    from defectd.camera.feed import CameraFeed
    from defectd.camera.recorded import RecordingHeader
    from defectd.camera_plans import plan_cameras
    from defectd.clock import utc_now
    from defectd.configuration import load_settings
    from defectd.recording.bounds import Bounds
    from defectd.recording.recorder import Recorder

    _check_bounds(options)
    settings = load_settings(options.config)
    names = [camera.name for camera in settings.camera]
    if options.camera not in names:
        raise SettingsError([f"--camera: got {options.camera!r}, expected one of {', '.join(names)}"])
    index = names.index(options.camera)
    camera = settings.camera[index]
    (plan,) = plan_cameras([camera], {}, settings.inspection.deadline_ms)
    if not plan.simulated:
        _nobody_else(settings)
    _new_folder(options.out)
    every_ms = options.every_ms or camera.interval_ms or _SHOOT_EVERY_MS
    recorder = Recorder(
        CameraFeed(as_recorded(plan), 0, settings.log.level),
        options.out,
        RecordingHeader(
            defectd=__version__,
            station=settings.station.station,
            started_at=utc_now(),
            camera=settings.masked()["camera"][index],
        ),
        options.format,
        Bounds(int(options.max_mb * 1e6), options.frames, options.seconds),
        every_ms / 1000 if plan.commanded else None,
        lambda line: print(f"defectd: {line}", file=sys.stderr, flush=True),
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    progress = threading.Thread(target=_show_progress, args=(recorder.recorded, stop), daemon=True)
    progress.start()
    try:
        recorded = recorder.run(stop.is_set)
    finally:
        stop.set()
    print(in_words(options.out, recorded))
    return 0


def as_recorded(plan: CameraPlan) -> CameraPlan:
    """The same camera, which keeps back no picture for what it shows: that is what one wants to look into."""
    source = {**plan.source, "health": None, "frozen_after": None}
    if source.get("code") is not None:
        source["code"] = {**source["code"], "required": False}
    return replace(plan, source=source)


def in_words(folder: Path, recorded: Recorded) -> str:
    """One line: how much, why it ended, and what is missing."""
    lost = ", ".join(f"{reason} {count}" for reason, count in sorted(recorded.lost.items()))
    return (
        f"{folder}: {recorded.pictures} picture(s), {recorded.bytes / 1e6:.1f} MB, {recorded.seconds:.1f} s; "
        f"{recorded.ended}" + (f"; units without a picture: {lost}" if lost else "")
    )


def _check_bounds(options: argparse.Namespace) -> None:
    bounds = {
        "--frames": options.frames,
        "--seconds": options.seconds,
        "--max-mb": options.max_mb,
        "--every-ms": options.every_ms,
    }
    wrong = [f"{key}: got {value}, expected more than 0" for key, value in bounds.items()
             if value is not None and not value > 0]  # fmt: skip
    if wrong:
        raise SettingsError(wrong)


def _nobody_else(settings: Settings) -> None:
    """Raises CameraError if the station's daemon runs: the camera is its own."""
    from defectd.doctor.patient import occupancy_of

    occupancy = occupancy_of(settings.state.directory)
    if occupancy.occupied:
        process = f" (process {occupancy.pid})" if occupancy.pid is not None else ""
        raise CameraError(
            f"a daemon{process} runs with {settings.state.directory} and holds the cameras; stop it first: "
            "sudo systemctl stop defectd"
        )


def _new_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StateError(f"{folder}: is not empty; expected a new folder: each recording has its own")
    except OSError as error:
        raise StateError(f"{folder}: {error.strerror}; expected a folder that this user may write") from error


def _show_progress(recorded: Recorded, stop: threading.Event) -> None:
    while not stop.wait(_PROGRESS_EVERY_S):
        print(f"{recorded.pictures} picture(s), {recorded.bytes / 1e6:.0f} MB", file=sys.stderr, flush=True)
