"""A station's configuration, tried on the controller with the files that will lie beside it on the station."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Mapping

import tomllib

from wheelhouse.locks import CHECKOUT
from wheelhouse.targets import WheelError

ETC = "/etc/defectd"
CHECK_S = 300.0
# What only the station can tell: its kind of device, its folders. Its own doctor looks at these before the switch.
_THERE = (
    ": compatible: it is for ", " does not exist; expected a folder of pictures", "possible here:", "].code: ",
    "].track: ", ': kind = "aravis" needs ', "bindings are missing: ", "description for Python is missing: ",
)  # fmt: skip


def rehearse(toml: Path, files: Mapping[str, str]) -> dict[str, Any]:
    """Hold *toml* against the model and *files* (path on the station -> file here); {"prefix", "broker", "later"}.

    Raises WheelError with every mistake.
    """
    absent = [f"{here}: is not on this machine (it would be {there})" for there, here in files.items()
              if not Path(here).exists()]  # fmt: skip
    if absent:
        raise WheelError("\n".join(absent))
    with tempfile.TemporaryDirectory() as name:
        etc = Path(name) / "etc"
        for there, here in files.items():
            beside = etc / Path(there).relative_to(ETC)
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.symlink_to(Path(here).resolve())
        etc.mkdir(exist_ok=True)
        config = etc / "station.toml"
        config.write_text(toml.read_text().replace(f'"{ETC}/', f'"{etc}/'))
        told = _defectd_check(config, Path(name) / "state")
        problems = [line.replace(str(etc), ETC) for line in told.stderr.splitlines() if line.startswith("defectd: ")]
        later = [line for line in problems if any(words in line for words in _THERE)]
        if told.returncode != 0 and (len(problems) > len(later) or not problems):
            listed = [line for line in problems if line not in later] or [told.stderr.strip()[-800:]]
            raise WheelError("the configuration is not right; nothing was sent:\n" + "\n".join(listed))
        return {**_who_and_where(toml, files), "later": later}


def _defectd_check(config: Path, state: Path) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DEFECTD_")}
    return subprocess.run(
        [sys.executable, "-m", "defectd", "check", "--config", str(config)], capture_output=True, text=True,
        check=False, timeout=CHECK_S, cwd=config.parent,
        env={**inherited, "PYTHONPATH": str(CHECKOUT / "daemon"), "DEFECTD_STATE__DIRECTORY": str(state)},
    )  # fmt: skip


def _who_and_where(toml: Path, files: Mapping[str, str]) -> dict[str, Any]:
    table = tomllib.loads(toml.read_text())
    station, mqtt = table["station"], table.get("mqtt", {})
    ca = mqtt.get("tls", {}).get("ca")
    return {
        "prefix": "/".join(["defectd/v1", *(station[level] for level in ("site", "area", "line", "station"))]),
        "broker": {
            "host": mqtt.get("host", "127.0.0.1"), "port": mqtt.get("port", 1883), "ca": files.get(ca) if ca else None,
        },
    }  # fmt: skip


def main(toml: str, files: str) -> int:
    """For the playbook: JSON."""
    sys.stdout.write(json.dumps(rehearse(Path(toml), json.loads(files))) + "\n")
    return 0
