"""One deployment at a time: a lock that ends by itself, and at a reboot."""

from __future__ import annotations

import json
import time
from typing import Any

from station.places import DeployError, Places, alone, read_json

NAME = "defectd-deploy.lock"


def take(places: Places, *, run_id: str, owner: str, process: int, ttl_s: float, dead: int | None) -> dict[str, Any]:
    """Take or renew the lock for *run_id*. *dead* is a process of the same *owner* that is known to have ended.

    Raises DeployError if somebody else has it.
    """
    with alone(places):
        path = places.run / NAME
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        holder = read_json(path)
        if holder is not None and not _may_take(holder, run_id, owner, dead, now_s):
            left_s, since_s = holder["until_s"] - now_s, now_s - holder["since_s"]
            raise DeployError(
                f"{holder['owner']} is deploying here (process {holder['process']}, for {since_s:.0f} s). "
                f"Wait for it; if it has died, its lock ends by itself in {left_s:.0f} s"
            )
        renewed = holder is not None and holder.get("run_id") == run_id
        since_s = holder["since_s"] if holder is not None and renewed else now_s
        mine = {"run_id": run_id, "owner": owner, "process": process, "since_s": since_s, "until_s": now_s + ttl_s}
        temporary = path.with_name(f".{NAME}.new")
        temporary.write_text(json.dumps(mine))
        temporary.chmod(0o644)
        temporary.replace(path)
    return {"changed": False, "took_over_from": holder.get("owner") if holder and not renewed else None}


def _may_take(holder: dict[str, Any], run_id: str, owner: str, dead: int | None, now_s: float) -> bool:
    try:
        if holder["run_id"] == run_id or now_s > holder["until_s"]:
            return True
        return holder["owner"] == owner and dead is not None and holder["process"] == dead
    except (KeyError, TypeError):
        return True  # not ours: nobody could ever give it back


def holder_of(places: Places) -> dict[str, Any]:
    """Who has it, for the controller, which can tell whether its own earlier process lives."""
    holder = read_json(places.run / NAME) or {}
    until_s = holder.get("until_s")
    held = isinstance(until_s, (int, float)) and until_s > time.clock_gettime(time.CLOCK_BOOTTIME)
    return {"changed": False, "holder": holder if held else None}


def give_back(places: Places, run_id: str) -> dict[str, Any]:
    """Only one's own."""
    with alone(places):
        path = places.run / NAME
        holder = read_json(path)
        if holder is not None and holder.get("run_id") == run_id:
            path.unlink()
    return {"changed": False}
