"""What stations say, made from the wire models."""

from __future__ import annotations

from datetime import datetime, timezone

from defectd.inspection import events, rollout_wire
from defectd.technician.standing import View
from defectd.technician.wire import read

STATION = "plant1/smt/line1/aoi1"
NOW = datetime(2026, 11, 20, 3, 0, tzinfo=timezone.utc)
ASKED, OTHER = "request-1", "request-0"
OLD = rollout_wire.ModelRef(name="boards", version="1.4", release_seq=4, manifest_sha256="a4" * 32)
NEW = rollout_wire.ModelRef(name="boards", version="1.5", release_seq=5, manifest_sha256="a5" * 32)


def rollout(state="received", request_id=ASKED, **changes):
    values = {
        "request_id": request_id, "seq": 1, "action": "deploy", "state": state, "successful": state == "committed",
        "finished": state in ("committed", "failed", "rejected", "rolled_back", "cancelled"), "code": "", "detail": "",
        "waits_for": None, "percent": None, "attempts": 1, "target": NEW, "gates": {}, "received_at": NOW,
        "changed_at": NOW,
    }  # fmt: skip
    return rollout_wire.RolloutReport(**{**values, **changes})


def answer(request_id=ASKED, accepted=True, code="accepted", detail="", ts=NOW):
    return rollout_wire.CommandReport(request_id=request_id, seq=1, accepted=accepted, code=code, detail=detail, ts=ts)


def reported(rollout=None, last_command=None, **changes):
    values = {
        "station": STATION, "groups": ["pilot"], "boot_id": "b", "ts": NOW, "current": OLD, "previous": None,
        "candidate": None, "factory": None, "floor_release_seq": 4, "floor_command_seq": 7, "rollout": rollout,
        "last_command": last_command,
    }  # fmt: skip
    return rollout_wire.ModelReported(**{**values, **changes})


def progress(state, percent=None, request_id=ASKED, detail=""):
    return rollout_wire.ModelProgress(request_id=request_id, state=state, percent=percent, detail=detail, ts=NOW)


def status(state="online", condition="inspecting", detail="inspecting"):
    return events.Status(state=state, condition=condition, detail=detail, boot_id="b", ts=NOW)


TOPICS = {
    rollout_wire.ModelReported: "model/reported",
    rollout_wire.ModelProgress: "model/progress",
    events.Status: "status",
}


def heard(message, station=STATION):
    """As it arrives: through its JSON."""
    found = read(f"defectd/v1/{station}/{TOPICS[type(message)]}", message.to_json())
    assert found is not None
    return found


def view(*messages, at_s=0.0):
    """All of *messages*, in that order."""
    seen = View()
    for message in messages:
        seen = seen.after(heard(message)[1], at_s)
    return seen
