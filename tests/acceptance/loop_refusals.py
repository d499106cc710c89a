"""Bad input before the start: what `defectd run` refuses, in words to act on, with a documented exit code."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import torch

from support.brokers import free_port
from support.coded_pictures import write_pictures
from support.models import save
from support.proving import Proof, Setting, Short, Skipped
from support.proving_ground import tiny_station
from support.station import defectd, environment, merged, write_config

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


_EXPORT = "yolo export"
REFUSALS = (
    Proof(
        "bad.missing-model",
        "a model that is not there",
        Refused(_missing_model, (("model.path", "nowhere.torchscript", "expected", _EXPORT),)),
    ),
    Proof(
        "bad.truncated-model",
        "half a model file",
        Refused(_truncated_model, (("model.path", "half.torchscript", "truncated", "copy it again"),)),
    ),
    Proof(
        "bad.pickled-model",
        "a checkpoint that executes when unpickled",
        Refused(_pickled_model, (("model.path", "bomb.torchscript", "pickled", _EXPORT),), must_not_exist="exploded"),
    ),
    Proof(
        "bad.users-checkpoint",
        "the user's own best.pt",
        Refused(_users_checkpoint, (("model.path", "best.pt", "pickled", _EXPORT),)),
    ),
    Proof(
        "bad.segmentation-model",
        "a segmentation model",
        Refused(_segmentation_model, (("model.path", "seg.torchscript", "segment", "detect"),)),
    ),
    Proof(
        "bad.lying-model",
        "metadata that the model's output contradicts",
        Refused(_other_head, (("liar.torchscript", "9 classes"),), START_FAILED),
    ),
    Proof(
        "bad.unknown-class",
        "a class in the recipe that the model lacks",
        Refused(_unknown_class, (("inspection.defect", "scratch", "open, short, spur"),)),
    ),
    Proof(
        "bad.three-mistakes",
        "a config with three mistakes: all three at once",
        Refused(
            _three_mistakes,
            (
                ("mqtt.prot", "unknown key", "expected"),
                ("camera[1].rate_hz", "-4.0", "greater than 0"),
                ("deadline_ms", "soon"),
            ),
        ),
    ),
    Proof(
        "bad.no-pictures",
        "no folder at the camera's path",
        Refused(_no_pictures, (("camera[1].path", "no-such-folder", "expected"),)),
    ),
    Proof(
        "bad.empty-folder",
        "a folder without pictures",
        Refused(_empty_folder, (("camera", "empty", "expected"),), START_FAILED),
    ),
    Proof("bad.no-video", "a video that is none", Refused(_no_video, (("camera", "video.avi"),), START_FAILED)),
    Proof(
        "bad.state-is-a-file",
        "a file in the place of the state directory",
        Refused(_file_for_state, (("state.directory", "state", "expected"),)),
    ),
)
