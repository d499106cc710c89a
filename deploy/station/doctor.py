"""The doctor of a release that does not run yet, as the user that the daemon is."""

from __future__ import annotations

import grp
import json
import os
from pathlib import Path
from typing import Any, Sequence

from station.places import USER, DeployError, Places, run

DOCTOR_S = 600.0
CREDENTIALS = {"mqtt-password": "DEFECTD_MQTT__PASSWORD_FILE", "mqtt-key": "DEFECTD_MQTT__TLS__KEY"}
GROUPS = ("video", "render", "jtop")


def as_daemon(places: Places, command: Sequence[str]) -> list[str]:
    """*command* with the user, the groups and the secrets that the service gives the daemon."""
    there = {entry.gr_name for entry in grp.getgrall()}
    groups = [word for name in GROUPS if name in there for word in ("-G", name)]
    secrets = [f"{name}={places.etc / 'credentials' / file}" for file, name in CREDENTIALS.items()
               if (places.etc / "credentials" / file).is_file()]  # fmt: skip
    secrets += _secrets(places)
    if os.geteuid() != 0:
        return ["env", *secrets, *command]
    return ["runuser", "-u", USER, "-g", USER, *groups, "--", "env", f"HOME={places.state}", *secrets, *command]


def _secrets(places: Places) -> list[str]:
    try:
        lines = (places.etc / "secrets.env").read_text().splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip().startswith("DEFECTD_") and "=" in line]


def examine(places: Places, release: str, config: Path, *, ignored: Sequence[str], quick: bool) -> dict[str, Any]:
    """Its findings; an error that nobody ignores raises DeployError with each one and what to do about it."""
    program = places.release(release) / "bin/defectd"
    words = ["doctor", "--config", str(config), "--json", *(["--quick"] if quick else [])]
    told = run(as_daemon(places, [str(program), *words]), DOCTOR_S, cwd="/")
    try:
        report = json.loads(told.stdout)
        findings = [(one["section"], one) for one in report["findings"]]
    except (ValueError, KeyError, TypeError):
        if "invalid choice" in told.stderr:  # a release from before there was one
            return _checked(places, program, config)
        raise DeployError(f"the doctor of {release} did not finish: {_last(told.stderr) or told.returncode}") from None
    errors = [one for section, one in findings if one["level"] == "error" and not _is_ignored(section, one, ignored)]
    if errors:
        listed = "\n".join(f"  {one['subject']}: {one['found']}\n    -> {one['remedy']}" for one in errors)
        raise DeployError(
            f"the doctor of the new release finds {len(errors)} error(s); nothing was switched:\n{listed}\n"
            "If one of them is meant to be: station_doctor_ignores in the inventory"
        )
    shown = [f"{one['subject']}: {one['found']}" for _, one in findings if one["level"] in ("error", "warning")]
    return {"changed": False, "counts": report["counts"], "took_s": report["took_s"], "known": shown}


def _is_ignored(section: str, finding: dict[str, Any], ignored: Sequence[str]) -> bool:
    return any(name.lower() in (section.lower(), str(finding["subject"]).lower()) for name in ignored)


def _checked(places: Places, program: Path, config: Path) -> dict[str, Any]:
    told = run(as_daemon(places, [str(program), "check", "--config", str(config)]), 120, cwd="/")
    if told.returncode != 0:
        raise DeployError(f"the new release refuses the configuration: {_last(told.stderr, 6)}")
    return {"changed": False, "counts": {}, "took_s": 0.0, "known": ["this release has no doctor; only checked"]}


def _last(text: str, lines: int = 2) -> str:
    return " / ".join(text.strip().splitlines()[-lines:])
