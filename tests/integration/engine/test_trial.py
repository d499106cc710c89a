"""The trial's real process, asked as the daemon asks it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")

import cv2

from defectd.engine.base import EngineOrder
from defectd.engine.choice import TrialResult
from support import models
from support.engine import order
from support.releases import release
from support.tried import BOX, picture


def request(path, tmp_path, golden=(BOX,), picture_bytes=None, **changes):
    """A trial of *path*; *golden* are the boxes that are expected in the picture, None for no picture."""
    body = {**order(path), "runtime": "torchscript", "warmup_min": 4, "warmup_max": 6}
    if golden is not None:
        known = release(
            tmp_path / "known",
            {
                "model.torchscript": ("torchscript", b"not the one that is tried"),
                "golden-0001.png": ("golden_image", picture() if picture_bytes is None else picture_bytes),
            },
            golden={"pictures": [{"image": "golden-0001.png", "boxes": list(golden)}]},
        )
        body["golden"] = {"manifest": str(known.directory / "manifest.json"), "sha256": known.manifest_sha256}
    return {"engine": body, "calls": 30, "seconds": 60, **changes}


def lines(body):
    command = [sys.executable, "-m", "defectd.engine.trial"]
    done = subprocess.run(command, input=json.dumps(body).encode(), capture_output=True, timeout=90, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def test_a_runtime_that_answers_like_the_original_is_measured(tmp_path):
    body = request(models.save(tmp_path / "m.torchscript"), tmp_path, batches=[1, 2])
    *progress, last = lines(body)[0]
    stages = [line["stage"] for line in progress]
    assert list(dict.fromkeys(stages)) == ["loading", "warming", "golden", "measuring", "batch"]
    assert all(0 <= line["share"] <= 1 for line in progress)
    result = TrialResult.model_validate(last["result"])
    assert (result.runtime, result.device, result.peak_gpu_mb) == ("torchscript-fp32-cpu", "cpu", None)
    assert result.golden.passed and (result.golden.matched, result.golden.recall) == (1, 1.0)
    assert len(result.latency_ms) == len(result.inference_ms) == 30
    assert all(network <= whole for network, whole in zip(result.inference_ms, result.latency_ms))
    assert 4 <= len(result.curve_ms) <= 6 and result.curve_ms[0] == pytest.approx(
        result.warmup["cold_first_call_ms"], abs=0.001
    )
    assert result.start_s > 0 and result.peak_rss_mb > 100 and result.notes
    assert [batch.batch for batch in result.batches] == [1, 2]
    assert result.batches[0].latency_ms and result.batches[0].error is None


def test_one_that_finds_something_else_is_reported_with_the_reasons(tmp_path):
    body = request(models.save(tmp_path / "m.torchscript"), tmp_path, golden=[[40, 40, 56, 56, 0.9, 1]])
    result = TrialResult.model_validate(lines(body)[0][-1]["result"])
    assert not result.golden.passed and result.golden.recall == 0
    assert "recall 0.0000, at least 0.98 is required" in result.golden.reasons


def test_without_golden_pictures_noise_is_measured(tmp_path):
    body = request(models.save(tmp_path / "m.torchscript"), tmp_path, golden=None)
    assert lines(body)[0][-1]["result"]["golden"] is None


def test_measuring_ends_early_when_time_is_short(tmp_path):
    body = request(models.save(tmp_path / "m.torchscript"), tmp_path, calls=100_000_000, seconds=8, batches=[1])
    result = lines(body)[0][-1]["result"]
    assert 20 <= len(result["latency_ms"]) < 100_000_000
    assert result["batches"] == [{"batch": 1, "latency_ms": [], "error": "not measured for lack of time"}]


@pytest.mark.parametrize(
    ("module", "kind", "detail"),
    [
        (models.AlwaysNaN(), "unusable", "NaN"),
        (models.OutOfMemory(), "out_of_memory", "out of memory"),
        (models.FailsOnDark(), "unusable", "cannot run the model"),
    ],
)
def test_a_network_that_fails_says_how(tmp_path, module, kind, detail):
    black = cv2.imencode(".png", np.zeros((64, 96, 3), np.uint8))[1].tobytes()
    body = request(models.save(tmp_path / "m.torchscript", module), tmp_path, picture_bytes=black)
    said, code = lines(body)
    assert said[-1]["error"]["kind"] == kind and detail in said[-1]["error"]["detail"]
    assert code == (3 if kind == "unusable" else 4)


def test_a_file_that_was_replaced_is_not_loaded(tmp_path):
    body = request(models.save(tmp_path / "m.torchscript"), tmp_path)
    body["engine"]["sha256"] = "00" * 32
    said, code = lines(body)
    assert "the file was replaced" in said[-1]["error"]["detail"] and code == 3


def test_a_golden_picture_that_was_changed_is_not_believed(tmp_path):
    body = request(models.save(tmp_path / "m.torchscript"), tmp_path)
    (tmp_path / "known" / "golden-0001.png").write_bytes(picture() + b"more")
    assert "golden-0001.png: its SHA-256 is not that of the bundle" in lines(body)[0][-1]["error"]["detail"]


def test_half_a_golden_picture_is_an_error_that_names_it(tmp_path):
    body = request(models.save(tmp_path / "m.torchscript"), tmp_path, picture_bytes=picture()[:40])
    assert "golden-0001.png: is not a whole picture" in lines(body)[0][-1]["error"]["detail"]


@pytest.mark.parametrize("wrong", [{}, {"engine": {}}, {"calls": "many"}, {"batches": ["many"]}])
def test_a_bad_request_is_an_answer(tmp_path, wrong):
    body = {**request(models.save(tmp_path / "m.torchscript"), tmp_path), **wrong} if wrong else {}
    assert lines(body)[0][-1]["error"]["kind"] == "unusable"


def test_the_order_that_it_takes_is_the_workers(tmp_path):
    body = request(models.save(tmp_path / "m.torchscript"), tmp_path)
    assert EngineOrder.of(body["engine"]).runtime == "torchscript"
