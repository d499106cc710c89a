"""`defectd demo`, for real: broker, simulated line, daemon, view."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import defectd

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

SOURCE = str(Path(defectd.__file__).parent.parent)
_START_S = 120.0


@pytest.fixture(autouse=True, scope="module")
def temporary_folder(tmp_path_factory):
    """A demo that is killed cannot remove its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("demo")))
        yield


def demo(*arguments, **environment):
    keep = {name: value for name, value in os.environ.items() if not name.startswith("MQTT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "defectd", "demo", "--plain", *arguments],
        env={**keep, "PYTHONPATH": SOURCE, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_units(process, count):
    """Lines up to and with the *count*-th unit."""
    lines, units = [], 0
    for line in process.stdout:
        lines.append(line)
        units += " board-" in line
        if units == count:
            return lines
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def finished(temporary_folder):
    process = demo("--units", "24")
    output, _ = process.communicate(timeout=_START_S + 60)
    return process.returncode, output


def test_it_stops_by_itself_and_every_unit_is_accounted_for(finished):
    exit_code, output = finished
    assert exit_code == 0, output
    assert output.count(" board-") == 24
    assert "every unit accounted for: triggers 1-24, 24 verdicts, events 1-24 without a gap" in output


def test_what_it_reports_is_right(finished):
    _, output = finished
    errors = int(re.search(r"24 units: .* (\d+) error", output).group(1))
    if errors:
        pytest.skip(f"this machine was too busy to judge {errors} of 24 units in time")
    recall, precision = (float(figure) for figure in re.search(r"recall ([\d.]+) precision ([\d.]+)", output).groups())
    assert recall >= 0.9
    assert precision >= 0.9


def test_ctrl_c_ends_it_in_order():
    process = demo()
    until_units(process, 3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0, output
    assert "every unit accounted for" in output


def test_a_daemon_that_dies_is_said_with_its_log():
    process = demo()
    until_units(process, 2)
    (daemon,) = (child for child in psutil.Process(process.pid).children() if "run" in child.cmdline())
    daemon.kill()
    output, _ = process.communicate(timeout=40)
    assert process.returncode != 0
    assert "the daemon ended with exit code -9" in output
    assert "defectd.log" in output


def test_nothing_stays_behind_when_it_is_killed():
    process = demo()
    until_units(process, 1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=20)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


def test_a_kept_folder_holds_state_and_logs_and_is_not_used_twice(tmp_path):
    folder = tmp_path / "kept"
    first = demo("--units", "2", "--keep", str(folder))
    output, _ = first.communicate(timeout=_START_S)
    assert first.returncode == 0, output
    assert (folder / "state" / "outbox.db").exists()
    assert (folder / "defectd.log").exists()
    second = demo("--units", "2", "--keep", str(folder))
    output, _ = second.communicate(timeout=20)
    assert second.returncode != 0
    assert "is not empty" in output


def test_a_broker_that_is_not_there_is_named():
    started_s = time.monotonic()
    process = demo("--units", "2", MQTT_HOST="127.0.0.1", MQTT_PORT="9")
    output, _ = process.communicate(timeout=40)
    assert process.returncode != 0
    assert "broker 127.0.0.1:9: Connection refused" in output
    assert time.monotonic() - started_s < 30
