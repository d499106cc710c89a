"""The unit files, as far as they can be judged without running them. tests/e2e/test_sandbox.py runs the main one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.board_drop_in import Board, Choices, Node, drop_in

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "defectd.service"
CLOCKS = FOLDER / "defectd-clocks.service"
# What systemd 245 does not know, with the version that brought it.
NEWER = {
    "ProtectProc": 247, "ProcSubset": 247, "LoadCredential": 247, "SystemCallLog": 247, "PrivateIPC": 248,
    "ExtensionImages": 248, "NoExecPaths": 248, "ExecPaths": 248, "ManagedOOMSwap": 248, "SocketBindDeny": 249,
    "SocketBindAllow": 249, "RestrictFileSystems": 250, "RestrictNetworkInterfaces": 250, "SetCredential": 250,
    "LoadCredentialEncrypted": 250, "ExecSearchPath": 251, "RestartSteps": 254, "RestartMaxDelaySec": 254,
    "MemoryZSwapMax": 253, "PrivatePIDs": 257,
}  # fmt: skip
JETSON = Board(
    nodes=(Node("/dev/nvmap", "misc", "video"), Node("/dev/nvhost-ctrl", "nvhost", "video"),
           Node("/dev/dri/renderD128", "drm", "render"), Node("/dev/nvgpu/igpu0/ctrl", "nvgpu", "video")),
    groups=("root", "video", "render"),
    credentials=("mqtt-password", "mqtt-key"),
    argus=True,
)  # fmt: skip

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def settings_of(path: Path) -> list[tuple[str, str]]:
    """Key and value of each line."""
    return [(key, value) for key, value in re.findall(r"^([A-Z]\w*)=(.*)$", path.read_text(), re.MULTILINE)]


def deployed(systemd: int) -> str:
    """The unit with the drop-in of a Jetson, as one file."""
    head, _, install = UNIT.read_text().partition("[Install]")
    board = drop_in(JETSON, Choices(systemd=systemd, memory_max="6G", addresses=("10.0.0.0/8",)))
    return f"{head}{board}\n[Install]{install}"


@needs_analyze
@pytest.mark.parametrize("path", [UNIT, CLOCKS], ids=lambda path: path.name)
def test_systemd_understands_every_line(path: Path, tmp_path: Path):
    unit = tmp_path / path.name
    text = path.read_text().replace("/opt/defectd/current/bin/defectd", sys.executable)
    unit.write_text(text.replace("/usr/bin/jetson_clocks", sys.executable))
    told = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert told.returncode == 0 and not [line for line in told.stderr.splitlines() if path.name in line]


@needs_analyze
def test_systemd_understands_the_drop_in(tmp_path: Path):
    unit = tmp_path / "defectd.service"
    unit.write_text(deployed(247).replace("/opt/defectd/current/bin/defectd", sys.executable))
    told = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert told.returncode == 0 and not [line for line in told.stderr.splitlines() if "defectd.service" in line]


@needs_analyze
def test_its_exposure_on_a_board_is_at_most_1_5(tmp_path: Path):
    unit = tmp_path / "defectd.service"
    unit.write_text(deployed(247))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(unit)]
    scored = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in scored.stderr or "Unknown" in scored.stderr:
        pytest.skip("this systemd-analyze cannot score offline")
    assert scored.returncode == 0, scored.stdout.splitlines()[-1:] or scored.stderr


@pytest.mark.parametrize("path", [UNIT, CLOCKS], ids=lambda path: path.name)
def test_systemd_245_knows_every_key(path: Path):
    assert not {key for key, _ in settings_of(path)} & set(NEWER)


@pytest.mark.parametrize("systemd", [245, 246, 247, 249, 257])
def test_the_drop_in_has_no_key_that_this_systemd_does_not_know(systemd: int):
    text = drop_in(JETSON, Choices(systemd=systemd, private_users=True, station="aoi1"))
    keys = set(re.findall(r"^([A-Z]\w*)=", text, re.MULTILINE))
    assert not {key for key in keys if NEWER.get(key, 0) > systemd}


def test_a_failing_start_is_tried_for_ever_and_hangs_are_found():
    unit = dict(settings_of(UNIT))
    assert unit["StartLimitIntervalSec"] == "0" and unit["Restart"] == "always"
    assert unit["Type"] == "notify" and 0 < int(unit["WatchdogSec"]) <= 30


def test_a_worker_that_runs_out_of_memory_does_not_stop_the_station():
    assert dict(settings_of(UNIT))["OOMPolicy"] == "continue"


def test_nothing_that_a_board_may_lack_is_required():
    assert not {key for key, _ in settings_of(UNIT)} & {"Requires", "Requisite", "BindsTo", "PartOf"}
    assert dict(settings_of(UNIT))["Wants"] == "network-online.target"
