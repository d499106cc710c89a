"""Item 4: each bad input gives its clear error, or its counted verdict. Never silence, never a hang."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import cv2
import numpy as np
import torch

from support.audit import PENDING, read_outbox
from support.brokers import NO_MOSQUITTO, find_mosquitto, free_port
from support.coded_pictures import HEIGHT_PX, WIDTH_PX, picture, unit_id, write_pictures
from support.collector import Event
from support.models import save
from support.proving import Proof, Setting, Short, Skipped
from support.proving_ground import ground, tiny_station
from support.station import DaemonProcess, defectd, environment, merged, wait_until, write_config

SETTINGS_REFUSED, START_FAILED, STATE_REFUSED = 2, 3, 4  # exit codes, as docs/runbook.md has them
_ANSWER_S = 90.0

Change = Callable[[Path, "dict[str, Any]"], "dict[str, Any]"]
"""(directory, good settings) -> bad ones; makes the bad files."""


@dataclass(frozen=True)
class Refused:
    """`defectd run` must end with *exit_code*, and each of *lines* must be told by one line of its stderr: all words
    of it, such as the key, the file, what was expected, what to do."""

    change: Change
    lines: tuple[tuple[str, ...], ...]
    exit_code: int = SETTINGS_REFUSED
    must_not_exist: str = ""

    def __call__(self, setting: Setting) -> str:
        directory = setting.directory
        settings = self.change(directory, _good(directory))
        config = write_config(directory, settings)
        started_s = time.monotonic()
        try:
            ended = subprocess.run(
                defectd("run", "--config", config),
                capture_output=True, text=True, timeout=_ANSWER_S, check=False, env=environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Short(f"it did not end within {_ANSWER_S:.0f} s") from error
        (directory / "stderr").write_text(ended.stderr)
        said = [line for line in ended.stderr.splitlines() if line.startswith("defectd: ")]
        figure = f"exit {ended.returncode} after {time.monotonic() - started_s:.1f} s: {' | '.join(said)}"
        missing = [words for words in self.lines if not any(all(word in line for word in words) for line in said)]
        if missing or ended.returncode != self.exit_code or "Traceback" in ended.stderr:
            raise Short(f"{figure or ended.stderr[-300:]}; expected exit {self.exit_code} and {missing or self.lines}")
        if self.must_not_exist and (directory / self.must_not_exist).exists():
            raise Short(f"{self.must_not_exist} exists: the file was executed")
        return figure


def _good(directory: Path) -> dict[str, Any]:
    """Settings that work, but for the broker, which nobody needs to be refused."""
    model = save(directory / "tiny.torchscript")
    return tiny_station(free_port(), model, write_pictures(directory / "pictures", 3), 10.0)


# -- models ------------------------------------------------------------------------------------------------------


def _missing_model(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return merged(settings, {"model": {"path": directory / "nowhere.torchscript"}})


def _truncated_model(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    data = (directory / "tiny.torchscript").read_bytes()
    (directory / "half.torchscript").write_bytes(data[: len(data) // 2])
    return merged(settings, {"model": {"path": directory / "half.torchscript"}})


class _Bomb:
    """Executes when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._mark}",)


def _pickled_model(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    torch.save({"model": _Bomb(directory / "exploded")}, directory / "bomb.torchscript")
    return merged(settings, {"model": {"path": directory / "bomb.torchscript"}})


def _users_checkpoint(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    folder = os.environ.get("DEFECTD_DEEPPCB")
    if not folder or not (Path(folder) / "best.pt").exists():
        raise Skipped("set DEFECTD_DEEPPCB to a folder that holds best.pt")
    return merged(settings, {"model": {"path": Path(folder) / "best.pt"}})


def _segmentation_model(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return merged(settings, {"model": {"path": save(directory / "seg.torchscript", task="segment", head="Segment")}})


def _other_head(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    names = {"0": "open", **{str(index): f"class-{index}" for index in range(1, 9)}}
    return merged(settings, {"model": {"path": save(directory / "liar.torchscript", names=names)}})


def _unknown_class(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    defects = [*settings["inspection"]["defect"], {"class_name": "scratch", "code": "SCR"}]
    return merged(settings, {"inspection": {"defect": defects}})


# -- settings and places -----------------------------------------------------------------------------------------


def _three_mistakes(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    camera = {**settings["camera"][0], "rate_hz": -4.0}
    changes = {"mqtt": {"prot": 1883}, "camera": [camera], "inspection": {"deadline_ms": "soon"}}
    return merged(settings, changes)


def _no_pictures(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return merged(settings, {"camera": [{**settings["camera"][0], "path": directory / "no-such-folder"}]})


def _empty_folder(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    (directory / "empty").mkdir()
    return merged(settings, {"camera": [{**settings["camera"][0], "path": directory / "empty"}]})


def _no_video(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    (directory / "video.avi").write_bytes(b"RIFF" + bytes(1000))
    return merged(settings, {"camera": [{**settings["camera"][0], "path": directory / "video.avi"}]})


def _file_for_state(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    (directory / "state").write_text("")
    return settings


# -- pictures ----------------------------------------------------------------------------------------------------


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
def _deferred_line(setting: Setting, count: int, write: Callable[[Path, int], Path]) -> Iterator[tuple[Any, Path]]:
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


def _verdicts(here: Any, expected: Mapping[str, str]) -> str:
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


# -- the state directory -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _mounted(directory: Path, options: str) -> Iterator[Path]:
    """A file system of its own at *directory*. Raises Skipped without the right to mount."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "defectd-test", str(directory)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        raise Skipped("run it as root where mounting is allowed: it needs a small tmpfs of its own")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=False)


def _read_only_state(setting: Setting) -> str:
    with _mounted(setting.directory / "state", "ro,size=1m"):
        return Refused(_unchanged, (("state.directory", "state", "Read-only", "expected"),))(setting)


def _full_state(setting: Setting) -> str:
    """No room at the start: it says so."""
    with _mounted(setting.directory / "state", "size=64k") as state:
        _fill(state)
        return Refused(_unchanged, (("state", "free"),))(setting)


def _state_fills_up(setting: Setting) -> str:
    """Others fill the disk in mid-run: inspection goes on, events wait in memory; then there is room again."""
    state, settings = setting.directory / "state", {"evidence": {"enabled": False}}
    with _mounted(state, "size=6m"), ground(setting.directory, 400, 10.0, settings) as here:
        here.await_units(20)
        _fill(state)
        here.struck_at_s = time.time()
        wait_until(lambda: "disk_full" in here.daemon.log(), 60, "evt/fault outbox disk_full")
        here.notes.append(f"noticed after {time.time() - here.struck_at_s:.1f} s")
        time.sleep(8)
        (state / "filler").unlink()
        here.await_good_units()
        here.finish()
        here.expect_fault("outbox", "disk_full")
        return here.report()


def _evidence_fills_disk(setting: Setting) -> str:
    """Pictures have a small disk for themselves until it is full: they must give way, so that no event waits."""
    state = setting.directory / "state"
    with _mounted(state, "size=1500k"), ground(setting.directory, 250, 10.0) as here:
        here.finish()
        here.await_units(250)
        return here.report()


def _unchanged(_directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return settings


def _fill(directory: Path) -> None:
    """Until nothing fits."""
    with contextlib.suppress(OSError), (directory / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


# -- the broker, and a second daemon -----------------------------------------------------------------------------


def _login_refused(setting: Setting) -> str:
    """The station inspects and says whose login was refused; when the broker knows it, everything is delivered."""
    if find_mosquitto() is None:
        raise Skipped(NO_MOSQUITTO)
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
    import base64
    import hashlib

    salt, iterations = os.urandom(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    entry = f"{user}:$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
    with passwords.open("a") as file:
        file.write(entry)
    passwords.chmod(0o600)


def _two_daemons(setting: Setting) -> str:
    """The second one on the same state directory is refused; the first one does not notice."""
    with ground(setting.directory, 100, 10.0) as here:
        here.await_units(10)
        second = DaemonProcess(here.daemon.config)
        second.log_path = setting.directory / "second.log"
        second.start()
        try:
            code = second.wait(30)
        except subprocess.TimeoutExpired as error:
            raise Short("a second daemon runs on the same state directory and inspects beside the first") from error
        finally:
            second.end()
        here.finish()
        said = second.log().strip().splitlines()[-1]
        if code != STATE_REFUSED or "state" not in said:
            raise Short(f"the second daemon: exit {code}, {said}")
        return f"the second: exit {code}, {said}; the first: {here.report()}"


@dataclass(frozen=True)
class _Case:
    name: str
    claim: str
    prove: Callable[[Setting], str]


_EXPORT = "yolo export"
BAD_INPUT = tuple(
    Proof(f"bad.{case.name}", case.claim, case.prove)
    for case in (
        _Case(
            "missing-model",
            "a model that is not there",
            Refused(_missing_model, (("model.path", "nowhere.torchscript", "expected", _EXPORT),)),
        ),
        _Case(
            "truncated-model",
            "half a model file",
            Refused(_truncated_model, (("model.path", "half.torchscript", "truncated", "copy it again"),)),
        ),
        _Case(
            "pickled-model",
            "a checkpoint that executes when unpickled",
            Refused(
                _pickled_model, (("model.path", "bomb.torchscript", "pickled", _EXPORT),), must_not_exist="exploded"
            ),
        ),
        _Case(
            "users-checkpoint",
            "the user's own best.pt",
            Refused(_users_checkpoint, (("model.path", "best.pt", "pickled", _EXPORT),)),
        ),
        _Case(
            "segmentation-model",
            "a segmentation model",
            Refused(_segmentation_model, (("model.path", "seg.torchscript", "segment", "detect"),)),
        ),
        _Case(
            "lying-model",
            "metadata that the model's output contradicts",
            Refused(_other_head, (("liar.torchscript", "9 classes"),), START_FAILED),
        ),
        _Case(
            "unknown-class",
            "a class in the recipe that the model lacks",
            Refused(_unknown_class, (("inspection.defect", "scratch", "open, short, spur"),)),
        ),
        _Case(
            "three-mistakes",
            "a config with three mistakes: all three at once",
            Refused(
                _three_mistakes,
                (("mqtt.prot", "1883"), ("camera[1].rate_hz", "-4.0", "greater than 0"), ("deadline_ms", "soon")),
            ),
        ),
        _Case(
            "no-pictures",
            "no folder at the camera's path",
            Refused(_no_pictures, (("camera[1].path", "no-such-folder", "expected"),)),
        ),
        _Case(
            "empty-folder",
            "a folder without pictures",
            Refused(_empty_folder, (("camera", "empty", "expected"),), START_FAILED),
        ),
        _Case("no-video", "a video that is none", Refused(_no_video, (("camera", "video.avi"),), START_FAILED)),
        _Case(
            "state-is-a-file",
            "a file in the place of the state directory",
            Refused(_file_for_state, (("state.directory", "state", "expected"),)),
        ),
        _Case("state-read-only", "a state directory on a read-only file system", _read_only_state),
        _Case("state-full", "a full state directory at the start", _full_state),
        _Case("state-fills-up", "a disk that fills up in mid-run", _state_fills_up),
        _Case("evidence-fills-disk", "pictures fill the disk: they give way to events", _evidence_fills_disk),
        _Case("two-daemons", "a second daemon on one state directory", _two_daemons),
        _Case("pictures", "zero-byte, truncated and foreign files among the pictures", _bad_pictures),
        _Case("sizes", "pictures of different sizes, one too large", _bad_sizes),
        _Case("video-ends", "a video that ends", _video_ends),
        _Case("login-refused", "a broker that refuses the login", _login_refused),
    )
)
