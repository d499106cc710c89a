"""What a technician's laptop reads from stations. Lenient, as `watch.wire`: newer stations must be understood, too."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Callable, Union

from defectd.messaging.topics import ROOT
from defectd.watch.wire import Malformed, StationStatus
from defectd.watch.wire import read as read_watched

DESIRED, REPORTED, PROGRESS, STATUS = "model/desired", "model/reported", "model/progress", "status"
_TOPIC = re.compile(rf"{ROOT}(/[A-Za-z0-9_-]{{1,64}}){{4}}/")  # another name is no station's, and may steer a terminal
MAX_BYTES = 256 * 1024
_LEVELS = len(ROOT.split("/")) + 4  # site, area, line, station


@dataclass(frozen=True)
class Bundle:
    """A model as stations name it."""

    name: str
    version: str
    manifest_sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Rollout:
    """Where a station's rollout is, or how its last one ended."""

    request_id: str
    action: str
    state: str
    successful: bool
    finished: bool
    code: str
    detail: str
    waits_for: str | None
    percent: float | None
    target: Bundle | None


@dataclass(frozen=True)
class Answer:
    """What became of the last command that a station got; `request_id` is None if it could not be read."""

    request_id: str | None
    accepted: bool
    code: str
    detail: str
    at: str


@dataclass(frozen=True)
class Reported:
    """Which models a station has, what it does about them, and the `seq` that a command must exceed."""

    groups: tuple[str, ...]
    current: Bundle | None
    previous: Bundle | None
    floor_command_seq: int
    rollout: Rollout | None
    answer: Answer | None


@dataclass(frozen=True)
class Progress:
    """How far a rollout is, between two reports."""

    request_id: str
    state: str
    percent: float | None
    detail: str


Message = Union[Reported, Progress, StationStatus]


def read(topic: str, payload: bytes) -> tuple[str, Message] | None:
    """The station (`site/area/line/station`) and what it said; None for what is not for us. Raises Malformed."""
    levels = topic.split("/")
    kind, station = "/".join(levels[_LEVELS:]), "/".join(levels[_LEVELS - 4 : _LEVELS])
    if kind not in (REPORTED, PROGRESS, STATUS) or not _TOPIC.match(topic) or not payload:
        return None
    if len(payload) > MAX_BYTES:
        raise Malformed(f"{topic}: {len(payload)} bytes; expected at most {MAX_BYTES}")
    try:
        message = _status(topic, payload) if kind == STATUS else _model(kind, payload)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Malformed(f"{topic}: {error!r}") from error
    return None if message is None else (station, message)


def _status(topic: str, payload: bytes) -> StationStatus | None:
    heard = read_watched(topic, payload)
    if heard is None or not isinstance(heard[1], StationStatus):
        return None
    return replace(heard[1], condition=_text(heard[1].condition), detail=_text(heard[1].detail))


def _model(kind: str, payload: bytes) -> Message | None:
    schema, parse = _READERS[kind]
    body = json.loads(payload)
    return parse(body) if str(body["schema"]).startswith(schema) else None


def _reported(body: dict[str, Any]) -> Reported:
    rollout, answer = body.get("rollout"), body.get("last_command")
    return Reported(
        groups=tuple(_text(group) for group in body.get("groups", ())),
        current=_bundle(body.get("current")),
        previous=_bundle(body.get("previous")),
        floor_command_seq=int(body["floor_command_seq"]),
        rollout=_rollout(rollout) if rollout else None,
        answer=_answer(answer) if answer else None,
    )


def _rollout(body: dict[str, Any]) -> Rollout:
    return Rollout(
        request_id=_text(body["request_id"]),
        action=_text(body["action"]),
        state=_text(body["state"]),
        successful=bool(body["successful"]),
        finished=bool(body["finished"]),
        code=_text(body.get("code", "")),
        detail=_text(body.get("detail", "")),
        waits_for=_optional(body.get("waits_for")),
        percent=_percent(body.get("percent")),
        target=_bundle(body.get("target")),
    )


def _answer(body: dict[str, Any]) -> Answer:
    return Answer(
        request_id=_optional(body.get("request_id")),
        accepted=bool(body["accepted"]),
        code=_text(body.get("code", "")),
        detail=_text(body.get("detail", "")),
        at=_text(body.get("ts", "")),
    )


def _bundle(body: dict[str, Any] | None) -> Bundle | None:
    return Bundle(_text(body["name"]), _text(body["version"]), _text(body["manifest_sha256"])) if body else None


def _progress(body: dict[str, Any]) -> Progress:
    return Progress(
        _text(body["request_id"]), _text(body["state"]), _percent(body.get("percent")), _text(body.get("detail", ""))
    )


def _percent(value: Any) -> float | None:
    return None if value is None else min(100.0, max(0.0, float(value)))


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    """On one line, and without what steers a terminal: anybody may have written it."""
    return "".join(one if one.isprintable() else " " for one in str(value))


_READERS: dict[str, tuple[str, Callable[[dict[str, Any]], Message]]] = {
    REPORTED: ("defectd.model_reported/1.", _reported),
    PROGRESS: ("defectd.model_progress/1.", _progress),
}
