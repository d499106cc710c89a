"""Bad input while it runs: each bad picture and a refused login are counted and told, and the line goes on."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Callable, Iterator, Mapping

import cv2
import numpy as np

from support.audit import PENDING, read_outbox
from support.coded_pictures import HEIGHT_PX, WIDTH_PX, picture, unit_id, write_pictures
from support.collector import Event
from support.proving import Proof, Setting, Short
from support.proving_ground import Ground, ground
from support.station import wait_until


def _bad_pictures(setting: Setting) -> str:
    """A zero-byte, a truncated and a foreign file among good ones: an error each, and the line goes on."""
    expected = {unit_id(number): "" for number in range(1, 13)}
    with _deferred_line(setting, len(expected), write_pictures) as (here, folder):
        noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
        jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
        spoilt = {
            4: b"",
            5: jpeg[: len(jpeg) * 3 // 5],
            7: b"\x89PNG\r\n\x1a\n",
            8: b"no picture at all",
            11: jpeg[:20],
        }
        for number, data in spoilt.items():
            (folder / f"{unit_id(number)}.png").unlink()
            (folder / f"{unit_id(number)}.jpg").write_bytes(data)
            expected[unit_id(number)] = "frame_undecodable"
        return _verdicts(here, expected)


def _bad_sizes(setting: Setting) -> str:
    """Every picture of another size, one of them too large for the ring: each is judged by itself."""
    expected = {unit_id(number): "" for number in range(1, 10)}
    with _deferred_line(setting, len(expected), write_pictures) as (here, folder):
        for number, scale in ((2, 2), (4, 3), (5, 0.5), (7, 5), (8, 2.5)):
            size = (round(WIDTH_PX * scale), round(HEIGHT_PX * scale))
            cv2.imwrite(str(folder / f"{unit_id(number)}.png"), cv2.resize(picture(number), size, interpolation=0))
        cv2.imwrite(str(folder / f"{unit_id(6)}.png"), np.zeros((HEIGHT_PX * 6, WIDTH_PX * 6, 3), np.uint8))
        expected[unit_id(6)] = "frame_too_large"
        return _verdicts(here, expected)


def _video_ends(setting: Setting) -> str:
    """One verdict per frame; then the station stays READY, idle and alive, and ends with 0."""
    frames = 25
    with _deferred_line(setting, 0, _write_video) as (here, _):
        here.daemon.start()
        here.daemon.wait_ready()
        here.await_units(frames)
        idle_s = 8.0
        before = len(here.daemon.notices)
        time.sleep(idle_s)
        fed = sum(notice.text == "WATCHDOG=1" for notice in here.daemon.notices[before:])
        if here.daemon.exit_code is not None or not fed:
            raise Short(f"idle for {idle_s} s: exit code {here.daemon.exit_code}, watchdog fed {fed} times")
        here.terminate()
        here.units = frames
        figure = here.report(once=False, coded=False)
        if len(here.collector.inspections) != frames:
            raise Short(f"{frames} frames gave {figure}")
        return f"{frames} frames, {figure}; idle for {idle_s:.0f} s and alive"


def _write_video(folder: Path, _count: int) -> Path:
    folder.mkdir()
    path = folder / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (WIDTH_PX, HEIGHT_PX))
    for number in range(25):
        writer.write(picture(number + 1))
    writer.release()
    return path


@contextlib.contextmanager
def _deferred_line(setting: Setting, count: int, write: Callable[[Path, int], Path]) -> Iterator[tuple[Ground, Path]]:
    """A line whose daemon has not started, so that its pictures can be spoilt first."""
    path = setting.directory / "pictures"
    written = write(path, count)
    camera = {
        "name": "top",
        "kind": "replay",
        "path": written,
        "rate_hz": 10.0,
        "max_pixels": HEIGHT_PX * WIDTH_PX * 30,
    }
    with ground(setting.directory, count, 10.0, {"camera": [camera]}, started=False) as here:
        yield here, path


def _verdicts(here: Ground, expected: Mapping[str, str]) -> str:
    """Run to the end; each unit has the error that *expected* names, or was judged if that is empty."""
    here.daemon.start()
    here.daemon.wait_ready()
    here.finish()
    found = {event["unit_id"]: event["error"] or "" for event in here.collector.inspections}
    wrong = [f"{unit}: expected {expected[unit] or 'a judgement'}, got {found.get(unit)}" for unit in expected
             if found.get(unit) != expected[unit]]  # fmt: skip
    if wrong:
        raise Short("; ".join(wrong))
    details = {_detail(event) for event in here.collector.inspections if event["error"]}
    return f"{here.report()}: {'; '.join(sorted(details))[:300]}"


def _detail(event: Event) -> str:
    return f"{event['error']}: {event['error_detail']}"


def _login_refused(setting: Setting) -> str:
    """The station inspects and says whose login was refused; when the broker knows it, everything is delivered."""
    directory = setting.directory
    passwords = directory / "passwords"
    _allow(passwords, "mes", "mes")
    (directory / "password").write_text("right\n")
    login = {"mqtt": {"username": "aoi1", "password_file": directory / "password"}}
    lines = ["allow_anonymous false", f"password_file {passwords}"]
    with ground(directory, 60, 10.0, login, broker_lines=lines, login=("mes", "mes")) as here:
        wait_until(lambda: "login_refused" in here.daemon.log(), 30, "evt/fault mqtt login_refused")
        told = next(line for line in here.daemon.log().splitlines() if "login_refused" in line)
        if not all(word in told for word in (str(here.broker.port), "aoi1", "password")):
            raise Short(f"the refusal does not tell where, who and what to do: {told}")
        wait_until(lambda: len(read_outbox(here.outbox)) > 30, 60, "it inspects without the broker")
        _allow(passwords, "aoi1", "right")
        here.broker.stop()
        here.broker.start()
        here.finish()
        waited = [row for row in read_outbox(here.outbox) if row.state == PENDING]
        here.expect_fault("mqtt", "login_refused")
        return f"{here.report()}; {len(waited)} left to send; {told.partition('login_refused: ')[2]}"


def _allow(passwords: Path, user: str, password: str) -> None:
    """Add a line to mosquitto's password file: $7$, PBKDF2 with SHA-512."""
    salt, iterations = os.urandom(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    entry = f"{user}:$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
    with passwords.open("a") as file:
        file.write(entry)
    passwords.chmod(0o600)


BAD_INPUT = (
    Proof("bad.pictures", "zero-byte, truncated and foreign files among the pictures", _bad_pictures),
    Proof("bad.sizes", "pictures of different sizes, one too large", _bad_sizes),
    Proof("bad.video-ends", "a video that ends", _video_ends),
    Proof("bad.login-refused", "a broker that refuses the login", _login_refused),
)
