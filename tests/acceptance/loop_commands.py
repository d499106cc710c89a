"""Items 1 and 5: the demo finds what the simulated line hides, and the bench is within its ratios."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from support.proving import Proof, Setting, Short, Skipped
from support.station import CHECKOUT, defectd, environment

_UNITS, _LEAST = 40, 0.95
_DEMO_S, _BENCH_S = 300, 1500


def _demo(setting: Setting) -> str:
    """`make demo UNITS=40` without the installation: exit 0, 40 units, recall and precision at least 0.95."""
    if importlib.util.find_spec("defectd.demo.run") is None:
        raise Skipped("defectd.demo.run is not there yet")
    ended = _run(defectd("demo", "--units", str(_UNITS), "--plain"), setting, _DEMO_S)
    if ended.returncode != 0:
        raise Short(f"exit {ended.returncode}: {_last_line(ended)}")
    recall, precision = (_number(name, ended.stdout) for name in ("recall", "precision"))
    units = _number("units?", ended.stdout, before=True)
    figure = f"{units:.0f} units, recall {recall:.3f}, precision {precision:.3f}"
    if units != _UNITS or min(recall, precision) < _LEAST:
        raise Short(f"{figure}; expected {_UNITS} units, {_LEAST} and {_LEAST}")
    return figure


def _bench(setting: Setting) -> str:
    """`make bench`: its ratios decide, by its own exit code."""
    if importlib.util.find_spec("defectd.bench.__main__") is None:
        raise Skipped("defectd.bench.__main__ is not there yet")
    if "DEFECTD_DEEPPCB" not in os.environ:
        raise Skipped("set DEFECTD_DEEPPCB to the folder that holds images/ and deeppcb.torchscript")
    ended = _run([sys.executable, "-m", "defectd.bench", "--strict"], setting, _BENCH_S)
    told = " | ".join(line.strip() for line in ended.stdout.splitlines() if "ratio" in line or "×" in line)
    if ended.returncode != 0:
        raise Short(f"exit {ended.returncode}: {told or _last_line(ended)}")
    return told or _last_line(ended)


def _run(command: list[str], setting: Setting, timeout_s: float) -> subprocess.CompletedProcess[str]:
    passed_on = {key: value for key, value in os.environ.items() if key in ("DEFECTD_DEEPPCB", "DEFECTD_PEER_PYTHON",
                                                                         "DEFECTD_PEER_SETUP")}  # fmt: skip
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=CHECKOUT, env=environment(**passed_on)
    )  # fmt: skip
    Path(setting.directory / "stdout").write_text(ended.stdout)
    Path(setting.directory / "stderr").write_text(ended.stderr)
    return ended


def _number(name: str, text: str, *, before: bool = False) -> float:
    """The last number that stands beside *name*. Raises Short."""
    number = r"([0-9]+(?:\.[0-9]+)?)"
    found = re.findall(rf"{number}\s+{name}\b" if before else rf"\b{name}\D{{0,4}}{number}", text, re.IGNORECASE)
    if not found:
        raise Short(f"no {name} in what the demo printed: {text.strip().splitlines()[-3:]}")
    return float(found[-1])


def _last_line(ended: subprocess.CompletedProcess[str]) -> str:
    return ((ended.stderr or ended.stdout).strip().splitlines() or ["it said nothing"])[-1]


COMMANDS = (
    Proof("bench", "python -m defectd.bench --strict", _bench),
    Proof("demo", "make demo UNITS=40: recall and precision at least 0.95", _demo),
)
