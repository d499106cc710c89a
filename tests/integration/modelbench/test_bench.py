"""Models on the bench, in real trials."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("cv2", reason="needs OpenCV")

from defectd.errors import ModelError
from defectd.modelbench import Options, run
from support import models
from support.tried import served

OPTIONS = Options(device="cpu", threads=1, calls=20, batches=(1, 2), seconds=150, allow_unsigned=True)


def test_a_bundle_is_measured_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = served(tmp_path / "bundle", tmp_path)
    said: list[str] = []
    assert run(bundle.directory, tmp_path / "out", OPTIONS, said.append) == 0
    body = json.loads((tmp_path / "out/bench.json").read_text())
    html = (tmp_path / "out/bench.html").read_text()
    torchscript, compiled = body["entries"][:2]
    assert body["chosen"] == "torchscript" and torchscript["verdict"]["kind"] == "chosen"
    assert len(torchscript["measured"]["latency_ms"]) == 20
    assert torchscript["measured"]["golden"]["matched"] == 1
    assert [one["batch"] for one in torchscript["measured"]["batches"]] == [1, 2]
    assert (compiled["verdict"]["kind"], compiled["verdict"]["reason"]) == (
        "absent", "the bundle has no exported_program",
    )  # fmt: skip
    assert {span["stage"] for span in torchscript["spans"]} >= {"loading", "warming", "golden", "measuring", "batch"}
    assert "1/1 boxes" in html and "pcb 1.1 on the bench" in html
    assert "torchscript serves" in capsys.readouterr().out
    assert any("measuring" in line and "left in all" in line for line in said)


def test_a_torchscript_file_needs_no_bundle_and_its_agreement_is_not_checked(tmp_path: Path) -> None:
    file = models.save(tmp_path / "Boards v3.torchscript")
    assert run(file, None, dataclasses.replace(OPTIONS, json=tmp_path / "b.json"), print) == 0
    body = json.loads((tmp_path / "b.json").read_text())
    assert body["entries"][0]["measured"]["golden"] is None
    assert "make a bundle" in body["entries"][1]["verdict"]["reason"]
    assert body["subject"]["name"] == "Boards-v3"


def test_if_no_runtime_works_the_reasons_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = models.save(tmp_path / "broken.torchscript", models.AlwaysNaN())
    assert run(file, tmp_path, OPTIONS, lambda _: None) == 1
    shown = capsys.readouterr().out
    assert "No runtime works on this machine." in shown and "torchscript: the trial failed: " in shown
    assert "not finite" in shown or "NaN" in shown
    assert "No runtime works on this machine." in (tmp_path / "bench.html").read_text()


def test_a_runtime_that_answers_wrongly_is_not_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = served(tmp_path / "bundle", tmp_path, boxes=[[40, 40, 56, 56, 0.9, 1]])
    assert run(bundle.directory, None, OPTIONS, lambda _: None) == 1
    shown = capsys.readouterr().out
    assert "No runtime may serve: 1 ran, and none gave the right answers." in shown and "recall 0.0000" in shown


def test_an_unsigned_bundle_is_refused_unless_that_is_wanted(tmp_path: Path) -> None:
    bundle = served(tmp_path / "bundle", tmp_path)
    with pytest.raises(ModelError):
        run(bundle.directory, None, dataclasses.replace(OPTIONS, allow_unsigned=False), lambda _: None)


PROGRAM = """
import signal
import sys
import time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background inherits that it is ignored
from defectd.modelbench import Options, run
say = lambda line: print(line, file=sys.stderr, flush=True)
sys.exit(run(Path(sys.argv[1]), Path(sys.argv[2]), Options(device="cpu", threads=1, calls=10**9, plain=True), say))
"""


def children_of(pid: int) -> list[str]:
    """As soon as there is one."""
    due_s = time.monotonic() + 20
    while time.monotonic() < due_s:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return children
        time.sleep(0.05)
    return []


def is_alive(pid: str) -> bool:
    """Not gone, and not waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_stops_it_finds_nothing_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    file = models.save(tmp_path / "model.torchscript")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    bench = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file), str(tmp_path / "out")],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(scratch)},
    )  # fmt: skip
    assert bench.stderr is not None
    assert "torchscript (1 of 1): loading" in bench.stderr.readline()
    children = children_of(bench.pid)
    bench.send_signal(number)
    try:
        rest = bench.communicate(timeout=30)[1]
    finally:
        bench.kill()
    assert (bench.returncode, rest) == (130, "stopped; nothing was written\n")
    due_s = time.monotonic() + 10  # one that was only just started dies with its parent, a moment later
    while any(map(is_alive, children)) and time.monotonic() < due_s:
        time.sleep(0.05)
    assert children and not any(map(is_alive, children))
    assert list(scratch.iterdir()) == [] and list((tmp_path / "out").iterdir()) == []
