"""The builder as a process: what it is told, what it says, what it leaves behind. TensorRT is the fake."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")

FAKE = """
import sys
from support import fake_tensorrt
sys.modules[__name__] = fake_tensorrt.release("10.3.0")
fake_tensorrt.behaviour.input_shape = (1, 3, 64, 96)
print("a library that prints")
"""


def order(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a")
    body = {"kind": "tensorrt", "source": str(tmp_path / "model.onnx"), "out": str(tmp_path / "model.plan")}
    return {**body, "precision": "fp16", "workspace_mb": 64, "input_hw": [64, 96], **changes}


def build(tmp_path: Path, text: str, fake: str = FAKE) -> tuple[int, list[dict[str, Any]]]:
    """Exit status, and the lines."""
    (tmp_path / "packages").mkdir(exist_ok=True)
    (tmp_path / "packages" / "tensorrt.py").write_text(fake)
    path = os.pathsep.join([str(tmp_path / "packages"), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "defectd.engine.build"],
        input=text, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": path}, check=False,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_plan_is_written_whole_and_the_last_line_says_which(tmp_path: Path) -> None:
    status, lines = build(tmp_path, json.dumps(order(tmp_path)))
    assert status == 0, lines
    data = (tmp_path / "model.plan").read_bytes()
    done = lines[-1]["done"]
    assert (done["sha256"], done["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert done["versions"] == {"tensorrt": "10.3.0"}
    assert done["seconds"] > 0
    assert lines[0] == {"stage": "reading the network", "share": None}
    assert {"stage": "choosing kernels", "share": None} in lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.plan", "packages"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1]", "expected a JSON object"),
        ("{}", "KeyError"),
        ('{"kind": "onnx"}', "KeyError|kind: expected"),
    ],
)
def test_an_order_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    status, [line] = build(tmp_path, text)
    assert status == 3
    assert line["error"]["kind"] == "unusable"


@pytest.mark.parametrize(
    "changes",
    [{"precision": "fp8"}, {"workspace_mb": 0}, {"input_hw": [64]}, {"input_hw": ["64", 96]}, {"dla": -1}],
)
def test_a_value_out_of_range_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    status, [line] = build(tmp_path, json.dumps(order(tmp_path, **changes)))
    assert (status, line["error"]["kind"]) == (3, "unusable")
    assert line["error"]["detail"].startswith("build: bad order: ")


def test_without_tensorrt_the_answer_says_what_is_missing(tmp_path: Path) -> None:
    status, lines = build(tmp_path, json.dumps(order(tmp_path)), fake="raise ImportError('No module named tensorrt')")
    assert (status, lines[-1]["error"]["kind"]) == (3, "unusable")
    assert "No module named tensorrt" in lines[-1]["error"]["detail"]


def test_no_memory_is_told_apart_from_other_failures(tmp_path: Path) -> None:
    failing = FAKE + "fake_tensorrt.behaviour.no_plan = True\nfake_tensorrt.behaviour.complaint = {!r}\n"
    for complaint, kind in (("Error Code 2: OutOfMemory (no memory)", "out_of_memory"), ("Error Code 10", "broken")):
        status, lines = build(tmp_path, json.dumps(order(tmp_path)), fake=failing.format(complaint))
        assert (status, lines[-1]["error"]["kind"]) == (4, kind)
        assert complaint.split(":", maxsplit=1)[0] in lines[-1]["error"]["detail"]
        assert not (tmp_path / "model.plan").exists()


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "missing" / "model.plan"
    status, lines = build(tmp_path, json.dumps(order(tmp_path, out=str(out))))
    assert (status, lines[-1]["error"]["kind"]) == (3, "unusable")
    assert "could not be written: No such file or directory" in lines[-1]["error"]["detail"]


def test_a_disk_that_fills_leaves_nothing_half_written(tmp_path: Path) -> None:
    full = FAKE + "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
    full += "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"  # then write() fails with EFBIG
    status, lines = build(tmp_path, json.dumps(order(tmp_path)), fake=full)
    assert (status, lines[-1]["error"]["kind"]) == (3, "unusable")
    assert "could not be written" in lines[-1]["error"]["detail"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "packages"]
