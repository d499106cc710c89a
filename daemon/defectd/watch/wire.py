"""What a viewer reads from the wire. Lenient, as consumers must be: what it does not know it skips.

The models of `inspection.events` are strict about what we send; a viewer must also understand the next version.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable, Union

from defectd.messaging.topics import ROOT

_LEVELS = len(ROOT.split("/")) + 4  # site, area, line, station


class Malformed(ValueError):
    """A payload on one of our topics that cannot be what the topic says."""


@dataclass(frozen=True)
class Finding:
    """One defect of one unit."""

    code: str
    class_name: str
    confidence: float
    xywh_px: tuple[float, float, float, float]


@dataclass(frozen=True)
class Inspected:
    """One unit, judged."""

    id: str
    epoch: str
    seq: int
    boot_id: str
    unit_id: str
    camera: str
    trigger: int
    verdict: str
    needs_review: bool
    error: str | None
    at: str
    """The moment of the verdict, as it stands on the wire."""
    latency_ms: float
    inference_ms: float | None
    model: str
    runtime: str
    findings: tuple[Finding, ...]
    replayed: bool


@dataclass(frozen=True)
class FaultNews:
    """A fault began, ended, or happened once."""

    component: str
    code: str
    state: str
    detail: str


@dataclass(frozen=True)
class Lost:
    """Events that will never come, and why."""

    of_stream: str
    ranges: tuple[tuple[int, int], ...]
    lost: int
    reason: str


@dataclass(frozen=True)
class StationStatus:
    """What the station, or the broker in its name, says about it."""

    state: str
    condition: str
    detail: str
    faults: tuple[FaultNews, ...]
    at: str = ""
    """When it was said, as it stands on the wire; a `lost` one was left with the broker when the station connected."""


@dataclass(frozen=True)
class StationBirth:
    """What the station is."""

    defectd: str
    recipe: str
    deadline_ms: float
    model: str
    runtime: str
    warmup: str
    cameras: tuple[str, ...]
    first_trigger: dict[str, int]


Message = Union[Inspected, FaultNews, Lost, StationStatus, StationBirth]


def read(topic: str, payload: bytes) -> tuple[str, Message] | None:
    """The station (`site/area/line/station`) and what it said; None for what is not for us.

    Raises Malformed.
    """
    levels = topic.split("/")
    kind, station = "/".join(levels[_LEVELS:]), "/".join(levels[_LEVELS - 4 : _LEVELS])
    reader = _READERS.get(kind)
    if reader is None or not topic.startswith(f"{ROOT}/") or not payload:
        return None  # an empty payload clears a retained message
    schema, parse = reader
    try:
        body = json.loads(payload)
        if not str(body["schema"]).startswith(schema):
            return None
        return station, parse(body)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Malformed(f"{topic}: {error!r}") from error


def _inspected(body: dict[str, Any]) -> Inspected:
    frame, timing, (model, runtime) = body["frame"], body["timing_ms"], _model(body.get("model"))
    return Inspected(
        id=str(body["id"]),
        epoch=str(body["epoch"]),
        seq=int(body["seq"]),
        boot_id=str(body.get("boot_id", "")),
        unit_id=str(body["unit_id"]),
        camera=str(frame["camera"]),
        trigger=int(frame["trigger"]),
        verdict=str(body["verdict"]),
        needs_review=bool(body.get("needs_review", False)),
        error=_text(body.get("error")),
        at=str(body.get("ended_at", "")),
        latency_ms=float(timing["capture_to_verdict"]),
        inference_ms=_number(timing.get("inference")),
        model=model,
        runtime=runtime,
        findings=tuple(_finding(item) for item in body.get("defects", ())),
        replayed=bool(body.get("replayed", False)),
    )


def _finding(body: dict[str, Any]) -> Finding:
    x, y, width, height = (float(value) for value in body["bbox_px"])
    return Finding(str(body["code"]), str(body["class_name"]), float(body["confidence"]), (x, y, width, height))


def _fault(body: dict[str, Any]) -> FaultNews:
    return FaultNews(
        str(body["component"]), str(body["code"]), str(body.get("state", "raised")), str(body.get("detail", ""))
    )


def _lost(body: dict[str, Any]) -> Lost:
    ranges = tuple((int(first), int(last)) for first, last in body["ranges"])
    return Lost(str(body["of_stream"]), ranges, int(body["lost"]), str(body["reason"]))


def _status(body: dict[str, Any]) -> StationStatus:
    faults = tuple(_fault(fault) for fault in body.get("faults", ()))
    return StationStatus(
        str(body["state"]), str(body["condition"]), str(body.get("detail", "")), faults, str(body.get("ts", ""))
    )


def _birth(body: dict[str, Any]) -> StationBirth:
    model, runtime = _model(body.get("model"))
    warmup, cameras = body.get("warmup"), body.get("cameras", ())
    return StationBirth(
        defectd=str(body.get("defectd", "?")),
        recipe=f"{body['recipe']['name']} revision {body['recipe']['revision']}",
        deadline_ms=float(body["deadline_ms"]),
        model=model,
        runtime=runtime,
        warmup=f"warm after {warmup['iterations']} runs" if warmup else "not warm yet",
        cameras=tuple(f"{camera['name']} ({camera['kind']})" for camera in cameras),
        first_trigger={str(camera["name"]): int(camera.get("first_trigger", 1)) for camera in cameras},
    )


def _model(body: dict[str, Any] | None) -> tuple[str, str]:
    return (f"{body['name']} {body['version']}", str(body["runtime"])) if body else ("", "")


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


_READERS: dict[str, tuple[str, Callable[[dict[str, Any]], Message]]] = {
    "status": ("defectd.status/1.", _status),
    "birth": ("defectd.birth/1.", _birth),
    "evt/inspection": ("defectd.inspection/1.", _inspected),
    "evt/fault": ("defectd.fault/1.", _fault),
    "evt/gap": ("defectd.gap/1.", _lost),
}
