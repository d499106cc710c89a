"""The demo finds what the simulated line hides, and the bench keeps its ratios."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from acceptance.loop_images import deeppcb
from support.proving import Proof, Setting, Short, Skipped
from support.station import CHECKOUT, defectd, environment

_UNITS, _LEAST = 40, 0.95
_DEMO_S, _BENCH_S = 300, 2400
_MODEL = CHECKOUT / "daemon" / "defectd" / "demo" / "boards.torchscript"
_COUNTS = re.compile(r"(\d+) real defects, (\d+) reported, (\d+) right")


def _demo(setting: Setting) -> str:
    """`make demo UNITS=40`, its installation aside: exit 0, 40 units, recall and precision at least 0.95."""
    if not _MODEL.exists():
        raise Skipped(f"{_MODEL} is missing: python -m defectd.demo.train makes it")
    ended = _run(defectd("demo", "--units", str(_UNITS), "--plain"), setting, _DEMO_S)
    counts, units = _COUNTS.search(ended.stdout), re.search(r"^(\d+) units: ", ended.stdout, re.MULTILINE)
    if ended.returncode != 0 or counts is None or units is None:
        raise Short(f"exit {ended.returncode}: {_last_line(ended)}")
    real, reported, right = (int(text) for text in counts.groups())
    recall, precision = right / max(real, 1), right / max(reported, 1)
    accounted = "every unit accounted for" in ended.stdout
    figure = (
        f"{units[1]} units, {real} real defects, {reported} reported, {right} right: "
        f"recall {recall:.3f}, precision {precision:.3f}"
    )
    if int(units[1]) != _UNITS or min(recall, precision) < _LEAST or not accounted:
        raise Short(f"{figure}; expected {_UNITS} units, all accounted for, recall and precision {_LEAST}")
    return figure


def _bench(setting: Setting) -> str:
    """`make bench`: each of its targets."""
    folder, findings = deeppcb(), setting.directory / "bench.json"
    command = [sys.executable, "-m", "defectd.bench", "--strict", "--json", str(findings)]
    command += ["--model", str(folder / "deeppcb.torchscript"), "--images", str(folder / "images")]
    ended = _run([*command, *(["--rounds", "1"] if setting.quick else [])], setting, _BENCH_S)
    if not findings.exists():
        raise Short(f"exit {ended.returncode}: {_last_line(ended)}")
    targets = json.loads(findings.read_text())["targets"]
    figure = "; ".join(_told(target) for target in targets)
    if not os.environ.get("DEFECTD_PEER_PYTHON"):
        figure += "; not beside Ultralytics: DEFECTD_PEER_PYTHON names no interpreter that has it"
    if ended.returncode != 0 or not all(target["met"] for target in targets):
        raise Short(f"exit {ended.returncode}: {figure}")
    return figure


def _told(target: dict[str, object]) -> str:
    sign, missed = "<=" if target["at_most"] else ">=", "" if target["met"] else "SHORT: "
    return f"{missed}{target['name']} {target['value']:.4g} {target['unit']} ({sign} {target['limit']:g})"


def _run(command: list[str], setting: Setting, timeout_s: float) -> subprocess.CompletedProcess[str]:
    peer = {key: value for key, value in os.environ.items() if key.startswith("DEFECTD_PEER_")}
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=CHECKOUT, env=environment(**peer)
    )
    (setting.directory / "stdout").write_text(ended.stdout)
    (setting.directory / "stderr").write_text(ended.stderr)
    return ended


def _last_line(ended: subprocess.CompletedProcess[str]) -> str:
    return ((ended.stderr or ended.stdout).strip().splitlines() or ["it said nothing"])[-1]


COMMANDS = (
    Proof("bench", "make bench: every target of defectd.bench --strict", _bench),
    Proof("demo", "make demo UNITS=40: recall and precision at least 0.95", _demo),
)
