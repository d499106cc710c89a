"""What the playbooks decide, as plain functions: the TOML of a station, and whether a machine can be one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Callable, Mapping

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from wheelhouse.targets import WheelError, target_of

MIN_FREE_MB, MIN_MEMORY_MB, MIN_SYSTEMD, MAX_CLOCK_S = 1024, 900, 245, 3600


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """*table* as TOML: nested mappings are tables, lists of mappings arrays of tables, null is left out."""
    lines, tables = [], []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{prefix}{key}]\n" + to_toml(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            tables += [f"\n[[{prefix}{key}]]\n" + to_toml(one, f"{prefix}{key}.") for one in value]
        elif value is not None:
            lines.append(f"{key} = {_value(value)}\n")
    return "".join(lines + tables)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def preflight_problems(facts: Mapping[str, Any], now_s: float, installed: bool = False) -> list[str]:
    """Why this machine cannot be a station, each with what to do; none if it can."""
    problems = []
    python = ".".join(map(str, facts["python"]))
    if facts["jetpack"] is not None and facts["jetpack"] < 5:
        problems.append(f"L4T {facts['l4t']} is JetPack {facts['jetpack']}: too old; flash JetPack 5.1, 6 or 7")
    elif tuple(facts["python"][:2]) < (3, 8):
        problems.append(f"Python {python} is too old; 3.8 is the oldest: set station_python")
    else:
        try:
            target_of(facts)
        except WheelError as error:
            problems.append(str(error))
    if facts["systemd"] is None:
        problems.append("systemd does not run this machine; a station needs it")
    elif facts["systemd"] < MIN_SYSTEMD:
        problems.append(f"systemd {facts['systemd']} is too old; {MIN_SYSTEMD} (Ubuntu 20.04) is the oldest")
    if facts["can_install"]:
        problems.append(
            f"Python {python} lacks {facts['can_install']}: sudo apt install python3-{facts['can_install']}"
        )
    if facts["free_mb"] < MIN_FREE_MB and not installed:
        problems.append(
            f"{facts['free_mb']} MB are free for /opt/defectd, {MIN_FREE_MB} MB are needed: make room "
            "(sudo apt clean; sudo journalctl --vacuum-size=100M)"
        )
    if facts["memory_mb"] < MIN_MEMORY_MB:
        problems.append(f"{facts['memory_mb']} MB of memory; a station needs {MIN_MEMORY_MB} MB at the very least")
    if "torch" not in facts["packages"]:
        problems.append(
            f"Python {python} has no torch: JetPack's wheel (see docs/runbook.md) goes into the system's Python, "
            "for all users: sudo -H pip3 install …"
        )
    if abs(facts["now_s"] - now_s) > MAX_CLOCK_S:
        problems.append(
            f"its clock is {facts['now_s'] - now_s:+.0f} s off from this machine's: certificates and events would be "
            "wrong; set it (timedatectl), or set station_clock_may_differ"
        )
    return problems


def beside(path: str, folder: str) -> str:
    """A relative *path* of an inventory is relative to the inventory."""
    return os.path.join(folder, os.path.expanduser(path)) if path else ""  # noqa: PTH118, PTH111 - "" stays ""


def tls_beside(files: Mapping[str, str], folder: str) -> dict[str, str]:
    """All of them, so."""
    return {key: beside(path, folder) for key, path in files.items()}


def process_is_dead(holder: Mapping[str, Any] | None, owner: str) -> int | None:
    """The process of *holder*'s lock, if it is known to have ended: one of this machine and user."""
    if not holder or holder.get("owner") != owner:
        return None
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return int(holder["process"])
    except OSError:
        return None
    return None


def report(outcome: Mapping[str, Any]) -> str:
    """Why a switch was undone, for a person."""
    lines = [f"{outcome['to']} was not kept: {outcome['why']}"]
    if outcome["restored"]:
        lines.append(f"The station inspects with {outcome['from']} again.")
    else:
        lines.append(f"And it did not come back: {outcome.get('not_restored')}.")
    if outcome["journal"]:
        lines += ["Its journal:", *(f"  {line}" for line in outcome["journal"][-15:])]
    return "\n".join(lines)


class FilterModule:
    """Registers them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {
            "to_toml": to_toml,
            "beside": beside,
            "tls_beside": tls_beside,
            "preflight_problems": preflight_problems,
            "process_is_dead": process_is_dead,
            "switch_report": report,
        }
