"""The switch to another release, and back if it is not worth it.

It runs as a service of its own: neither a cut connection nor a reboot leaves a station between two releases. The
order file says what to do; whoever finds one at boot does it to the end.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path
from typing import Any

from station import service
from station.places import (
    JUDGE,
    SERVICE,
    DeployError,
    Places,
    alone,
    link_durably,
    read_json,
    remove_durably,
    run,
    write_durably,
    write_json,
)

MAX_ATTEMPTS = 2
RESTORE_S = 600.0


def give_order(
    places: Places,
    release: str,
    config: Path,
    *,
    ready_s: float,
    watch_s: float,
    reason: str,
    confirm_s: float = 0.0,
    run_id: str = "",
) -> str:
    """Write down what is to be done and start doing it; returns the order's id. Raises DeployError.

    A connection that was cut makes the controller ask again: the same run gets the order that it has given.
    """
    directory = places.release(release)
    if not (directory / "release.json").is_file():
        raise DeployError(f"{release} is not installed here; make deploy VERSION=… installs it")
    with alone(places):
        given = [read_json(path) or {} for path in (places.order, places.outcome)]
        mine = [one for one in given if run_id and one.get("run_id") == run_id]
        if mine:
            if places.order.exists():
                service.tell("start", "--no-block", JUDGE)  # or does nothing: it runs
            return str(mine[0]["id"])
        if places.order.exists():
            raise DeployError("a switch is under way here; make status shows when it is done")
        before = places.current_release()
        saved = places.deploy / "station.toml.before"
        if places.config.is_file():
            write_durably(saved, places.config.read_bytes(), like=places.config)
        else:
            remove_durably(saved)
        wanted = places.deploy / "station.toml.wanted"
        write_durably(wanted, config.read_bytes(), like=config)
        order = {
            "id": uuid.uuid4().hex, "to": release, "from": before, "ready_s": ready_s, "watch_s": watch_s,
            "confirm_s": confirm_s, "reason": reason, "run_id": run_id, "attempts": 0, "back": None,
            "ordered_s": time.time(),
        }  # fmt: skip
        remove_durably(places.word)
        remove_durably(places.outcome)
        write_json(places.order, order)
    service.tell("start", "--no-block", JUDGE)
    return str(order["id"])


def say(places: Places, order_id: str, accepted: bool, why: str) -> dict[str, Any]:
    """The controller's word on the switch that is under way."""
    write_json(places.word, {"id": order_id, "accepted": accepted, "why": why})
    return {"changed": False}


def judge(places: Places) -> dict[str, Any]:
    """Carry out the order, if there is one."""
    order = read_json(places.order)
    if order is None:
        return {"changed": False}
    why = order["back"]
    order["ready"] = False
    if why is None:
        order["attempts"] += 1
        write_json(places.order, order)
        if order["attempts"] > MAX_ATTEMPTS:
            why = f"the switch was interrupted {MAX_ATTEMPTS} times"
    started_s = time.time()
    if why is None:
        why = _try(places, order)
    if why is None:
        config = places.deploy / "station.toml.wanted"
        write_durably(places.release(order["to"]) / "station.toml", config.read_bytes(), like=config)
        remove_durably(places.refused(order["to"]))
        if order["from"] not in (None, order["to"]):
            write_json(places.deploy / "previous.json", {"release": order["from"]})
        return _end(places, order, {"ok": True, "release": order["to"], "why": None, "journal": [], "restored": False})
    journal = service.journal_tail(started_s)
    order["back"] = why
    write_json(places.order, order)
    if order["from"] != order["to"]:
        write_json(places.refused(order["to"]), {"why": why, "at_s": time.time()})
    restored = _go_back(places, order)
    return _end(places, order, {
        "ok": False, "release": places.current_release(), "why": why, "journal": journal,
        "restored": restored is None, "not_restored": restored,
    })  # fmt: skip


def _try(places: Places, order: dict[str, Any]) -> str | None:
    _read_ahead(places.release(order["to"]))
    stopped_s = time.time()
    try:
        _stop()
        _put(places, order["to"], places.deploy / "station.toml.wanted")
        order["started_s"] = time.time()  # what is younger comes from the new one
        _start()
    except (DeployError, OSError) as error:
        return str(error)
    refusal = service.wait_ready(order["ready_s"])
    if refusal is not None:
        return refusal
    order["ready"], order["down_s"] = True, round(time.time() - stopped_s, 1)
    write_json(places.order, order)
    return service.wait_steady(order["watch_s"], order["confirm_s"], lambda: _word(places, order["id"]))


def _word(places: Places, order_id: str) -> tuple[bool, str] | None:
    word = read_json(places.word)
    if word is None or word.get("id") != order_id:
        return None
    return bool(word["accepted"]), str(word["why"])


def _go_back(places: Places, order: dict[str, Any]) -> str | None:
    """To what was before; else why not. Without a before, the service is stopped and taken out."""
    before, saved = order["from"], places.deploy / "station.toml.before"
    try:
        _stop()
        if before is None:
            service.tell("disable", SERVICE)
            remove_durably(places.current)
            if saved.is_file():
                write_durably(places.config, saved.read_bytes(), like=places.config)
            return "there is no release before it: the station does not inspect"
        _put(places, before, saved if saved.is_file() else places.config)
        _start()
    except (DeployError, OSError) as error:
        return str(error)
    return service.wait_ready(RESTORE_S, restarts_allowed=20)


def _read_ahead(release: Path) -> None:
    """A start reads a hundred megabytes: from memory then, and not from the disk while nobody inspects."""
    for path in release.glob("lib/python*/site-packages/**/*"):
        if path.suffix == ".pyc" or ".so" in path.suffixes:
            with contextlib.suppress(OSError), path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def _stop() -> None:
    if service.look().active not in ("inactive", "unknown"):
        service.tell("stop", SERVICE)
    run(["systemctl", "reset-failed", SERVICE])  # its counter of restarts, too


def _start() -> None:
    """Nobody inspects meanwhile: systemd reads its units anew, for a third of a second each time, only if it must."""
    unit = service.look()
    if unit.reload_needed:
        service.tell("daemon-reload")
    if not unit.enabled:
        service.tell("enable", SERVICE)
    service.tell("start", "--no-block", SERVICE)


def _put(places: Places, release: str, config: Path) -> None:
    """The release's own unit and the configuration first, the link last."""
    for unit in places.release(release).glob("systemd/*.service"):
        target = places.units / unit.name
        if not target.is_file() or target.read_bytes() != unit.read_bytes():
            write_durably(target, unit.read_bytes())
    if config != places.config:
        write_durably(places.config, config.read_bytes(), like=config)
    link_durably(places.current, f"releases/{release}")


def _end(places: Places, order: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
    """The outcome first: an order without one would be carried out again."""
    outcome.update(
        id=order["id"], run_id=order["run_id"], at_s=time.time(), to=order["to"], reason=order["reason"],
        down_s=order.get("down_s"), **{"from": order["from"]},
    )  # fmt: skip
    write_json(places.outcome, outcome)
    remove_durably(places.order)
    remove_durably(places.word)
    return {"changed": True, **outcome}


def wait_for(places: Places, order_id: str, within_s: float, *, until_ready: bool) -> dict[str, Any]:
    """The outcome of *order_id*; with *until_ready* no later than it is READY. Raises DeployError if neither comes."""
    ends_s = time.monotonic() + within_s
    while time.monotonic() < ends_s:
        outcome = read_json(places.outcome)
        if outcome is not None and outcome.get("id") == order_id:
            return {"changed": False, "ended": True, **outcome}
        order = read_json(places.order)
        ours = order is not None and order["id"] == order_id
        if order is not None and ours and until_ready and order.get("ready") and not order["back"]:
            return {"changed": False, "ended": False, "down_s": order["down_s"], "started_s": order["started_s"]}
        time.sleep(0.25)
    raise DeployError(f"the station did not say within {within_s:.0f} s how it ended; see journalctl -u {JUDGE}")


def settle(places: Places, within_s: float) -> dict[str, Any]:
    """Let a switch that an earlier deployment has left under way come to its end."""
    order = read_json(places.order)
    if order is None:
        return {"changed": False, "settled": None}
    service.tell("start", "--no-block", JUDGE)
    outcome = wait_for(places, order["id"], within_s, until_ready=False)
    return {**outcome, "settled": order["id"], "changed": True}
