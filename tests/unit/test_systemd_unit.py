"""The unit file, as far as it can be judged without running it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "defectd.service"

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def test_systemd_understands_every_line(tmp_path):
    unit = tmp_path / "defectd.service"
    unit.write_text(UNIT.read_text().replace("/opt/defectd/current/bin/defectd", sys.executable))
    told = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert told.returncode == 0 and not [line for line in told.stderr.splitlines() if "defectd.service" in line]


def test_its_exposure_is_at_most_2():
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)]
    scored = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in scored.stderr or "Unknown" in scored.stderr:
        pytest.skip("this systemd-analyze cannot score offline")
    assert scored.returncode == 0, scored.stdout.splitlines()[-1:] or scored.stderr
