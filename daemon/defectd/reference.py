"""Writes the reference documents from the models themselves: `python -m defectd.reference docs`.

docs/wire.md, docs/schemas/*.json, docs/configuration.md and docs/rollout.md; a test says so when they are out of date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from defectd.camera_settings import (
    AravisSettings,
    CameraCommon,
    CodeSettings,
    CsiSettings,
    GstreamerSettings,
    HealthSettings,
    OpencvSettings,
    PresenceSettings,
    ReplaySettings,
    RtspSettings,
    SimulatedSettings,
    TrackSettings,
)
from defectd.examples import EXAMPLES
from defectd.inspection.events import StoredEvent, WireModel
from defectd.inspection.messages import ALL_MESSAGES
from defectd.inspection.rollout_wire import ModelProgress, ModelReported
from defectd.inspection.telemetry_wire import DeviceTelemetry
from defectd.inspection.unit_command import UnitCommand
from defectd.messaging.topics import ROOT
from defectd.rollout_reference import rollout_document
from defectd.rollout_settings import RolloutSettings, RolloutSource
from defectd.settings import (
    DefectSettings,
    EvidenceSettings,
    InspectionSettings,
    LogSettings,
    ModelSettings,
    MqttSettings,
    RegionSettings,
    StateSettings,
    StationSettings,
    TlsSettings,
)
from defectd.storage import write_durably
from defectd.telemetry_settings import TelemetrySettings, ThermalSettings, WebSettings

_TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("[station]", StationSettings),
    ("[mqtt]", MqttSettings),
    ("[mqtt.tls]", TlsSettings),
    ("[model]", ModelSettings),
    ("[[camera]]", CameraCommon),
    ('[[camera]] kind = "aravis"', AravisSettings),
    ('[[camera]] kind = "csi"', CsiSettings),
    ('[[camera]] kind = "gstreamer"', GstreamerSettings),
    ('[[camera]] kind = "opencv"', OpencvSettings),
    ('[[camera]] kind = "replay"', ReplaySettings),
    ('[[camera]] kind = "rtsp"', RtspSettings),
    ('[[camera]] kind = "simulated"', SimulatedSettings),
    ("[camera.code]", CodeSettings),
    ("[camera.health]", HealthSettings),
    ("[camera.presence]", PresenceSettings),
    ("[camera.track]", TrackSettings),
    ("[inspection]", InspectionSettings),
    ("[[inspection.defect]]", DefectSettings),
    ("[[inspection.region]]", RegionSettings),
    ("[evidence]", EvidenceSettings),
    ("[state]", StateSettings),
    ("[telemetry]", TelemetrySettings),
    ("[thermal]", ThermalSettings),
    ("[web]", WebSettings),
    ("[rollout]", RolloutSettings),
    ("[[rollout.source]]", RolloutSource),
    ("[log]", LogSettings),
)

_WIRE_INTRODUCTION = f"""# The wire

Generated from `daemon/defectd/inspection/events.py` by `make docs`; do not edit.

Topics begin with `{ROOT}/{{site}}/{{area}}/{{line}}/{{station}}`. Payloads are UTF-8 JSON. Ignore fields that you do
not know: new ones appear without notice, and raise the minor number of `schema`. Anything else is a new topic root.

| topic | QoS | retained | |
|---|---|---|---|
| `status` | 1 | yes | online or offline; the broker sends `offline` when the station vanishes (will) |
| `birth` | 1 | yes | what the station is: versions, recipe, model, next `seq` of each stream |
| `evt/inspection` | 1 | no | one for each unit, good ones too |
| `evt/fault` | 1 | no | something broke (`raised`), works again (`cleared`), or happened once (`noted`) |
| `evt/gap` | 1 | no | events that were lost, and why |
| `evt/slow_down` | 1 | no | the station asks the line to slow down, because it is too hot |
| `evt/track` | 1 | no | a defect on a moving web was born, or has ended; instead of `evt/inspection` for each frame |
| `evt/stretch` | 1 | no | all frames of such a camera since the last one, counted |
| `tele/device` | 0 | no | every 5 s: heat, clocks, power, memory, and what the line felt of them |
| `evt/rollout` | 1 | no | each step of a model rollout |
| `cmd/unit` | 1 | no | to the station: a unit is here, or will come; see [cameras.md](cameras.md) |
| `model/desired` | 1 | yes | to the station: a signed command; see [rollout.md](rollout.md) |
| `model/reported` | 1 | yes | which models the station has, and where its rollout is |
| `model/progress` | 1 | no | for a progress bar |

## How to know that no unit is missing

* Delivery is at least once. De-duplicate on `id`.
* `seq` is consecutive per stream and `epoch`. A hole that no `evt/gap` explains is a loss on your side of the broker.
* A new `epoch` means that the station's state was recreated; `seq` begins anew.
* `frame.trigger` is consecutive per camera, also over restarts: a hole is a unit that the station saw and lost, and
  there must be none. In free-run mode `frame.dropped_before` frames are missing before it, on purpose.
* A tracked camera has no `evt/inspection`. Its `evt/stretch` follow each other without a hole: `from_trigger` is one
  more than `to_trigger` of the one before, and `frames` = `inspected` + `dropped` + `lost`.
* What passes while a camera or the daemon is down, nobody sees. `evt/fault` and `status` say from when to when.
* A PUBACK says that the broker has the event, not that you have. Give the MES a persistent session, and the broker a
  queue that is long enough (`max_queued_messages`).

`bbox_px` is `[x, y, width, height]` in pixels of the full frame, origin top left. Paths of `images` are relative to
the station's `evidence` directory. `timing_ms.capture_to_verdict` runs on the monotonic clock; `inference_clock` says
how `timing_ms.inference` was measured.
"""

_CONFIGURATION_INTRODUCTION = """# Configuration

Generated from `daemon/defectd/settings.py` by `make docs`; do not edit.

One TOML file; relative paths are relative to it. The environment wins: `DEFECTD_MQTT__PASSWORD=…` sets
`[mqtt] password`. `defectd check --config FILE` prints what is in effect, or every mistake at once.
"""

_TOPICS: dict[type[WireModel], str] = {
    DeviceTelemetry: "tele/device", ModelReported: "model/reported", ModelProgress: "model/progress",
    UnitCommand: "cmd/unit",
}  # fmt: skip
_LIMITS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "more than"),
    ("maximum", "at most"),
    ("minItems", "entries at least"),
    ("pattern", "pattern"),
)


def wire_document() -> str:
    """docs/wire.md."""
    parts = [_WIRE_INTRODUCTION]
    shared: dict[str, dict[str, Any]] = {}
    for message in ALL_MESSAGES:
        schema = _lenient_schema(message)
        shared.update(schema.get("$defs", {}))
        file = _file_name(message)
        example = json.dumps(json.loads(EXAMPLES[message].to_json()), indent=2)
        parts.append(f"\n## {_schema_name(message)}\n\nTopic `{_topic(message)}`. {_summary(message)}\n")
        parts.append(f"JSON Schema: [schemas/{file}](schemas/{file})\n\n```json\n{example}\n```\n\n")
        parts.append(_field_table(schema))
    parts.append("\n## Parts\n")
    for name, schema in sorted(shared.items()):
        text = " ".join(schema.get("description", "").split())
        parts.append(f"\n### {name}\n\n{text}\n\n{_field_table(schema)}")
    return "".join(parts)


def configuration_document() -> str:
    """docs/configuration.md."""
    parts = [_CONFIGURATION_INTRODUCTION]
    for title, table in _TABLES:
        schema = table.model_json_schema()
        parts.append(f"\n## `{title}`\n\n{_summary(table)}\n\n| key | type | default | |\n|---|---|---|---|\n")
        for name, field in schema["properties"].items():
            if name in CameraCommon.model_fields and issubclass(table, CameraCommon) and table is not CameraCommon:
                continue
            default = f"`{json.dumps(field['default'])}`" if "default" in field else "required"
            limits = ", ".join(f"{words} {_short(field[key])}" for key, words in _LIMITS if key in field)
            text = "; ".join(part for part in (field.get("description", ""), limits) if part)
            parts.append(f"| `{name}` | {_type_name(field)} | {default} | {text} |\n")
    return "".join(parts)


def schemas() -> dict[str, str]:
    """File name to JSON Schema (2020-12) of each message, for consumers: unknown fields are allowed."""
    return {_file_name(message): json.dumps(_lenient_schema(message), indent=2) + "\n" for message in ALL_MESSAGES}


def write(directory: Path) -> None:
    """Write all documents below *directory*."""
    (directory / "schemas").mkdir(parents=True, exist_ok=True)
    write_durably(directory / "wire.md", wire_document().encode())
    write_durably(directory / "configuration.md", configuration_document().encode())
    write_durably(directory / "rollout.md", rollout_document().encode())
    for name, text in schemas().items():
        write_durably(directory / "schemas" / name, text.encode())


def _lenient_schema(message: type[WireModel]) -> dict[str, Any]:
    schema = message.model_json_schema(by_alias=True, mode="serialization")
    for part in [schema, *schema.get("$defs", {}).values()]:
        if part.get("additionalProperties") is False:
            part["additionalProperties"] = True
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _schema_name(message: type[WireModel]) -> str:
    return str(message.model_fields["schema_"].default)


def _file_name(message: type[WireModel]) -> str:
    return _schema_name(message).replace("/", "-") + ".json"


def _topic(message: type[WireModel]) -> str:
    if issubclass(message, StoredEvent):
        return f"evt/{message.stream}"
    return _TOPICS.get(message, message.__name__.lower())


def _summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _field_table(schema: dict[str, Any]) -> str:
    rows = [
        f"| `{name}` | {_type_name(field)} | {field.get('description', '')} |\n"
        for name, field in schema["properties"].items()
    ]
    return "| field | type | |\n|---|---|---|\n" + "".join(rows)


def _short(limit: Any) -> str:
    return f"{limit:g}" if isinstance(limit, (int, float)) else str(limit)


def _type_name(field: dict[str, Any]) -> str:  # noqa: PLR0911 - one return per kind of type
    """A JSON Schema type in a reader's words."""
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if "allOf" in field:
        return _type_name(field["allOf"][0])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type_name(option) for option in field["anyOf"])
    if field.get("type") == "array" and "prefixItems" in field:
        return f"[{', '.join(_type_name(item) for item in field['prefixItems'])}]"
    if field.get("type") == "array":
        return f"list of {_type_name(field['items'])}"
    return str(field.get("format") or field.get("type", "any"))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
