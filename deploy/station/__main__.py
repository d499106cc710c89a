"""station.pyz COMMAND: one JSON object on stdout; exit status 1 and {"error": …} where it cannot go on."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Mapping

from station import facts, ground, judge, lock, releases, seen, service
from station.doctor import as_daemon, examine
from station.places import DeployError, Places, read_json, run

Options = argparse.Namespace
Result = Dict[str, Any]


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="station.pyz", description=__doc__)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("options", nargs="?", default="{}", help="a JSON object")
    chosen = parser.parse_args()
    try:
        result = COMMANDS[chosen.command](Places(), json.loads(chosen.options))
    except DeployError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return 1
    except OSError as error:
        sys.stdout.write(json.dumps({"error": f"{chosen.command}: {error}"}) + "\n")
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _lock(places: Places, wish: Mapping[str, Any]) -> Result:
    return lock.take(places, run_id=wish["run_id"], owner=wish["owner"], process=wish["process"],
                     ttl_s=wish.get("ttl_s", 1800), dead=wish.get("dead"))  # fmt: skip


def _plan(places: Places, wish: Mapping[str, Any]) -> Result:
    """What a deployment of a release would change; changes nothing."""
    current, wanted = places.current_release(), wish["release"]
    steps = [] if wanted in releases.complete(places) else [f"install {wanted}"]
    if current != wanted:
        steps.append(f"switch from {current or 'nothing'} to {wanted}")
    unit = service.look()
    if current == wanted and unit.active != "active":
        steps.append(f"start it: it is {unit.active}")
    return {"changed": False, "current": current, "steps": steps, "installed": wanted in releases.complete(places),
            "active": unit.active}  # fmt: skip


def _judge(places: Places, wish: Mapping[str, Any]) -> Result:
    """As a service: what it prints goes to the journal, which has the daemon's words already."""
    del wish
    return {key: value for key, value in judge.judge(places).items() if key != "journal"}


def _switch(places: Places, wish: Mapping[str, Any]) -> Result:
    order = judge.give_order(
        places, wish["release"], Path(wish["config"]),
        ready_s=wish["ready_s"], watch_s=wish["watch_s"], reason=wish.get("reason", "deploy"),
        confirm_s=wish.get("confirm_s", 0), run_id=wish.get("run_id", ""),
    )  # fmt: skip
    found = judge.wait_for(places, order, wish["ready_s"] * 2 + judge.RESTORE_S, until_ready=True)
    return {**found, "id": order, "changed": True}


def _rollback(places: Places, wish: Mapping[str, Any]) -> Result:
    current = places.current_release()
    wanted = wish.get("release") or _previous(places, current)
    config = places.release(wanted) / "station.toml"
    if not config.is_file():
        config = places.config
    order = judge.give_order(
        places, wanted, config, ready_s=wish["ready_s"], watch_s=wish["watch_s"], reason="rollback",
        run_id=wish.get("run_id", ""),
    )  # fmt: skip
    found = judge.wait_for(places, order, wish["ready_s"] * 2 + judge.RESTORE_S, until_ready=True)
    return {**found, "id": order, "changed": True, "from": current}


def _previous(places: Places, current: str | None) -> str:
    there = [name for name in releases.complete(places) if name != current and not places.refused(name).exists()]
    noted = (read_json(places.deploy / "previous.json") or {}).get("release")
    if noted in there:
        return str(noted)
    if not there:
        raise DeployError("there is no other release here that has ever worked; make deploy VERSION=… installs one")
    return there[-1]


def _seen(places: Places, wish: Mapping[str, Any]) -> Result:
    """From the station itself, with the login that the daemon has; its own word where that login may not read."""
    python = places.current / "bin/python"
    program = Path(sys.argv[0]).resolve()
    asked = {"prefix": wish["prefix"], "since_s": wish["since_s"], "within_s": wish["within_s"],
             "config": str(places.config)}  # fmt: skip
    command = as_daemon(places, [str(python), str(program), "look", json.dumps(asked)])
    told = run(command, wish["within_s"] + 60, cwd="/")
    try:
        found = dict(json.loads(told.stdout))
    except ValueError:
        found = {"seen": None, "detail": told.stderr.strip()[-200:]}
    unit = service.look()
    if found.get("seen") is None and unit.active == "active" and unit.broker_connected:
        found["seen"] = f"the daemon's own word: {unit.status}"
    return {"changed": False, **found}


def _look(places: Places, wish: Mapping[str, Any]) -> Result:
    from defectd.configuration import load_settings  # noqa: PLC0415 - runs in the release's environment

    del places
    settings = load_settings(Path(wish["config"])).model_dump(mode="json")
    return seen.look_for(wish["prefix"], seen.broker_of(settings), wish["since_s"], wish["within_s"])


def _watch(places: Places, wish: Mapping[str, Any]) -> Result:
    """On the controller; the broker's login comes in the environment, which others cannot read."""
    del places
    broker = json.loads(os.environ["STATION_BROKER"])
    return {"changed": False, **seen.look_for(wish["prefix"], broker, wish["since_s"], wish["within_s"])}


def _due(places: Places, wish: Mapping[str, Any]) -> Result:
    """Whether the station must be switched, and why; changes nothing."""
    reasons = []
    if places.current_release() != wish["release"]:
        reasons.append(f"release {places.current_release() or 'none'} -> {wish['release']}")
    config = Path(wish["config"])
    if not places.config.is_file() or places.config.read_bytes() != config.read_bytes():
        reasons.append("configuration")
    reasons += wish.get("reasons", [])
    unit = service.look()
    if unit.active != "active" and not reasons:
        reasons.append(f"it is {unit.active}")
    return {"changed": False, "reasons": reasons}


def _status(places: Places, wish: Mapping[str, Any]) -> Result:
    del wish
    unit = service.look()
    outcome = read_json(places.outcome)
    return {
        "changed": False, "release": places.current_release(), "releases": releases.complete(places),
        "active": unit.active, "status": unit.status, "restarts": unit.restarts, "result": unit.result,
        "switching": places.order.exists(), "outcome": outcome, "now_s": time.time(),
        "free_mb": os.statvfs("/").f_bavail * os.statvfs("/").f_frsize // 2**20,
    }  # fmt: skip


COMMANDS: dict[str, Callable[[Places, Mapping[str, Any]], Result]] = {
    "facts": lambda places, _: facts.gather(places),
    "lock": _lock,
    "holder": lambda places, _: lock.holder_of(places),
    "unlock": lambda places, wish: lock.give_back(places, wish["run_id"]),
    "prepare": lambda places, _: ground.prepare(places),
    "settle": lambda places, wish: judge.settle(places, wish.get("within_s", 1800)),
    "plan": _plan,
    "install": lambda places, wish: releases.install(places, wish["release"], Path(wish["payload"])),
    "ground": lambda places, wish: ground.settle_in(places, wish["release"], wish.get("board", [])),
    "doctor": lambda places, wish: examine(
        places, wish.get("release") or _current(places), Path(wish["config"]),
        ignored=wish.get("ignored", []), quick=wish.get("quick", True),
    ),
    "due": _due,
    "watch": _watch,
    "switch": _switch,
    "rollback": _rollback,
    "seen": _seen,
    "look": _look,
    "say": lambda places, wish: judge.say(places, wish["id"], wish["accepted"], wish["why"]),
    "outcome": lambda places, wish: judge.wait_for(places, wish["id"], wish["within_s"], until_ready=False),
    "judge": _judge,
    "prune": lambda places, wish: releases.prune(places, wish.get("keep", 3), wish.get("also", [])),
    "status": _status,
    "undeploy": lambda places, wish: ground.undeploy(places, purge=bool(wish.get("purge"))),
}  # fmt: skip


def _current(places: Places) -> str:
    current = places.current_release()
    if current is None:
        raise DeployError("no release runs here; make deploy installs one")
    return current


if __name__ == "__main__":
    sys.exit(main())
