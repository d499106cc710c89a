"""Units that several cameras see together, and units that a message begins: each has one verdict, on time."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Mapping

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from support.brokers import hang_up
from support.coded_pictures import BITS, HEIGHT_PX, WIDTH_PX, code_of
from support.proving import Proof, Setting, Short
from support.proving_ground import Ground, ground
from support.station import wait_until

_INTERVAL_MS = 100
_DEADLINE_MS = 2000
_BEFORE = 15


def _pair(setting: Setting, **common: Any) -> dict[str, Any]:
    camera = {"kind": "replay", "path": setting.directory / "pictures", "max_pixels": WIDTH_PX * HEIGHT_PX, **common}
    return {"camera": [{**camera, "name": name, "unit": "board"} for name in ("top", "bottom")]}


def _units(setting: Setting) -> int:
    return 120 if setting.quick else 240


def _two_views(setting: Setting) -> str:
    """Two cameras, one unit: the verdict has both views, and each defect names the one that shows it."""
    settings = _pair(setting, trigger="interval", interval_ms=_INTERVAL_MS)
    with ground(setting.directory, _units(setting), 10.0, settings) as here:
        here.cameras = 1
        here.finish()
        wrong = [problem for event in here.collector.inspections for problem in _misread(event, ("top", "bottom"))]
        if wrong:
            raise Short("; ".join(wrong[:5]))
        return here.report(coded=False)


def _one_camera_killed(setting: Setting) -> str:
    """One of two cameras is killed: every unit has one verdict, on time; those that lack a view say which."""
    settings = _pair(setting, trigger="interval", interval_ms=_INTERVAL_MS)
    with ground(setting.directory, _units(setting), 10.0, settings) as here:
        here.cameras = 2
        here.await_units(_BEFORE)
        here.strike("camera", signal.SIGKILL)
        here.await_good_units()
        wait_until(lambda: here.daemon.log().count("no more units") >= 1, 120, "the end of the pictures")
        time.sleep(_DEADLINE_MS / 1000 + 1)
        here.terminate()
        events = here.collector.inspections
        late = [event for event in events if event["timing_ms"]["capture_to_verdict"] > _DEADLINE_MS]
        blind = [event for event in events if event["verdict"] == "error"]
        unnamed = [event for event in blind if not any(name in event["error_detail"] for name in ("top", "bottom"))]
        if late or unnamed or not blind:
            raise Short(f"{len(late)} late, {len(blind)} errors, of which {len(unnamed)} do not name the view")
        slowest_ms = max(event["timing_ms"]["capture_to_verdict"] for event in events)
        here.notes.append(f"slowest verdict {slowest_ms:.0f} of {_DEADLINE_MS} ms")
        return here.report(once=False, coded=False)


def _message(sent: Mapping[str, Any]) -> bytes:
    return json.dumps({"schema": "defectd.unit/1.0", **sent}).encode()


class _Mes:
    """Says which unit comes."""

    def __init__(self, here: Ground) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.connect(here.broker.host, here.broker.port)
        self._client.loop_start()

    def say(self, payload: bytes) -> None:
        """Until the broker has it."""
        self._client.publish("defectd/v1/prove/smt/line1/aoi1/cmd/unit", payload, qos=1).wait_for_publish(10)

    def close(self) -> None:
        """Hang up."""
        hang_up(self._client)


def _faults(here: Ground) -> list[tuple[str, str]]:
    return [
        (event["code"], event["detail"])
        for event in here.collector.events.values()
        if event.get("component") == "cmd/unit" and event["state"] != "cleared"
    ]


def _born_by_message(setting: Setting) -> str:
    """cmd/unit begins a unit of two views: one verdict for each message, under the id that it says."""
    count = 40 if setting.quick else 100
    with ground(setting.directory, count + 10, 10.0, _pair(setting, trigger="message")) as here:
        mes = _Mes(here)
        for number in range(1, count + 1):
            message = _message({"id": f"m{number}", "unit_id": f"SN-{number}", "position": "fixture 2"})
            mes.say(message)
            if number % 10 == 0:
                mes.say(message)  # QoS 1 may deliver twice
            time.sleep(0.03)
        now = datetime.now(timezone.utc)
        mes.say(_message({"id": "old", "unit_id": "SN-old", "sent_at": (now - timedelta(seconds=30)).isoformat()}))
        mes.say(_message({"id": "other", "unit_id": "SN-other", "recipe": "another"}))
        mes.say(b"SN-4711")
        mes.say(_message({"id": "typo", "unit_ID": "SN-typo"}))
        wait_until(lambda: len(_faults(here)) >= 1, 20, "the fault of a bad message")
        mes.say(_message({"id": "good", "unit_id": "SN-0"}))
        here.await_units(count + 3)
        mes.close()
        here.terminate()
        events = {event["unit_id"]: event for event in here.collector.inspections}
        if sorted(events) != sorted([*(f"SN-{n}" for n in range(count + 1)), "SN-old", "SN-other"]):
            raise Short(f"units {sorted(events)[:6]}… are not those of the messages")
        if (events["SN-old"]["error"], events["SN-other"]["error"]) != ("deadline_exceeded", "wrong_recipe"):
            raise Short(f"old: {events['SN-old']['error']}, other recipe: {events['SN-other']['error']}")
        if {events[f"SN-{n}"]["verdict"] for n in range(1, count + 1)} - {"passed", "failed"}:
            raise Short("a unit that was announced was not judged")
        if events["SN-1"]["position"] != "fixture 2" or events["SN-1"]["unit_id_source"] != "message":
            raise Short(f"position {events['SN-1']['position']}, source {events['SN-1']['unit_id_source']}")
        here.notes.append(f"{count} messages, {count // 10} of them twice; a bad one: {_faults(here)[0][1][:60]}")
        return here.report(once=False, coded=False)


def _named_by_message(setting: Setting) -> str:
    """A camera triggers, a message has named the unit; one that never comes is told."""
    camera = {"name": "top", "kind": "simulated", "rate_hz": 2.0, "width_px": 192, "height_px": 192}
    settings = {"camera": [camera], "inspection": {"announced_ids": True}}
    with ground(setting.directory, 1, 10.0, settings) as here:
        mes = _Mes(here)
        here.await_units(3)
        for number in range(5):
            mes.say(_message({"id": f"m{number}", "unit_id": f"SN-{number}"}))
        wait_until(lambda: _named(here) >= 5, 30, "five named units")
        (victim,) = here.daemon.workers("camera")
        os.kill(victim, signal.SIGSTOP)
        mes.say(_message({"id": "ghost", "unit_id": "SN-ghost"}))
        time.sleep(1.0)
        mes.close()
        told = lambda: any("SN-ghost" in detail for _, detail in _faults(here))  # noqa: E731
        wait_until(told, 30, "the announced unit is told as one that may have passed unseen")
        here.await_units(len(here.collector.inspections) + 3)
        here.terminate()
        order = [event["unit_id"] for event in here.collector.inspections if event["unit_id_source"] == "message"]
        if order != [f"SN-{number}" for number in range(5)]:
            raise Short(f"units are named {order}")
        here.notes.append("5 named in order; the one that was waited for when the camera stood still is told")
        return here.report(once=False, coded=False)


def _named(here: Ground) -> int:
    return sum(event["unit_id_source"] == "message" for event in here.collector.inspections)


def _misread(event: Mapping[str, Any], views: tuple[str, ...]) -> list[str]:
    """Each view shows what the picture of the unit shows."""
    expected = code_of(int(event["unit_id"].rpartition("-")[2]))
    problems = []
    if sorted(view["camera"] for view in event["views"]) != sorted(views):
        problems.append(f"{event['unit_id']}: views {[view['camera'] for view in event['views']]}")
    for name in views:
        seen = 0
        for defect in event["defects"]:
            if defect["camera"] == name:
                x, _, width, _ = defect["bbox_px"]
                seen |= 1 << int((x + width / 2) / (WIDTH_PX / BITS))
        if seen != expected:
            problems.append(f"{event['unit_id']}: {name} spells {seen}, expected {expected}")
    return problems


UNITS = (
    Proof("units.two-views", "two cameras see a unit: one verdict, and each defect names its view", _two_views),
    Proof("units.camera-killed", "one of two cameras dies: every unit has one verdict, on time", _one_camera_killed),
    Proof("units.message", "cmd/unit begins a unit: one verdict for each message", _born_by_message),
    Proof("units.announced", "cmd/unit names the unit that a camera triggers", _named_by_message),
)
