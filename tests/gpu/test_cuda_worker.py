"""The engine process on a real GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defectd.workers.child import EXIT_BROKEN
from defectd.workers.protocol import Inferred, Refused
from support.engine import order, running

torch = pytest.importorskip("torch", reason="needs torch")
if not torch.cuda.is_available():
    pytest.skip(f"torch {torch.__version__} finds no CUDA device", allow_module_level=True)

from support import models  # noqa: E402

pytestmark = pytest.mark.torch
GREY = np.full((64, 96, 3), 40, np.uint8)
DARK = np.zeros((64, 96, 3), np.uint8)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_it_finds_on_cuda_what_it_finds_on_the_cpu(tmp_path: Path, precision: str) -> None:
    path = models.save(tmp_path / "m.torchscript")
    random = np.random.default_rng(5)
    frames = [random.integers(0, 256, (*size, 3), np.uint8) for size in [(64, 96), (200, 300), (64, 96), (50, 40)]]
    found = {}
    for device in ("cuda", "cpu"):
        with running(order(path, device=device, precision=precision, confidence=0.6)) as engine:
            ready = engine.ready()
            assert ready["device"] == device
            if device == "cuda":
                assert ready["runtime"] == f"torchscript-{precision}-cuda"
                assert "CUDA graph, replay verified" in ready["notes"]
                assert ready["warmup"]["iterations"] >= 100
            found[device] = []
            for frame in frames:
                reply = engine.infer(frame)
                assert isinstance(reply, Inferred)
                assert reply.timings.inference_clock == ("cuda_event" if device == "cuda" else "monotonic")
                assert 0 < reply.timings.inference_ms < 100
                found[device].append(engine.ring.read_detections(0, reply.count))
    for on_cuda, on_cpu in zip(found["cuda"], found["cpu"]):
        confident = on_cpu.scores > 0.61
        for box, class_id in zip(on_cpu.xyxy[confident], on_cpu.class_ids[confident]):
            same = (np.abs(on_cuda.xyxy - box).max(axis=1) < 0.5) & (on_cuda.class_ids == class_id)
            assert same.any()


def test_an_end_to_end_head_works_on_cuda(tmp_path: Path) -> None:
    path = models.save(tmp_path / "m.torchscript", models.EndToEnd(), end2end=True)
    with running(order(path, device="cuda", warmup_min=5, warmup_max=5)) as engine:
        engine.ready()
        reply = engine.infer(GREY)
        assert isinstance(reply, Inferred)
        assert engine.ring.read_detections(0, reply.count).scores == pytest.approx([0.9, 0.8], abs=1e-3)


def test_a_model_that_cannot_be_captured_runs_eagerly_and_nan_is_refused(tmp_path: Path) -> None:
    path = models.save(tmp_path / "m.torchscript", models.NotANumber())  # it looks at its input on the host
    with running(order(path, device="cuda", warmup_min=5, warmup_max=5)) as engine:
        notes = engine.ready()["notes"]
        assert any(note.startswith("no CUDA graph") for note in notes)
        refused = engine.infer(DARK)
        assert isinstance(refused, Refused)
        assert refused.reason == "non_finite_output"
        assert isinstance(engine.infer(GREY), Inferred)


def test_out_of_memory_ends_the_worker_and_not_its_caller(tmp_path: Path) -> None:
    path = models.save(tmp_path / "m.torchscript", models.OutOfMemory())
    with running(order(path, device="cuda", warmup_min=5, warmup_max=5)) as engine:
        engine.ready()
        engine.request(64, 96, engine.put(DARK))
        words = engine.last_words()
        assert words["code"] == "broken"
        assert "out of memory" in words["detail"]
        assert engine.process.wait(20) == EXIT_BROKEN
    assert float(torch.ones(2, device="cuda").sum()) == 2


def test_a_thousand_requests_do_not_grow_device_memory(tmp_path: Path) -> None:
    with running(order(models.save(tmp_path / "m.torchscript"), device="cuda")) as engine:
        engine.ready()
        for _ in range(100):
            engine.infer(GREY)
        before = torch.cuda.mem_get_info()[0]
        for _ in range(1000):
            engine.infer(GREY)
        assert before - torch.cuda.mem_get_info()[0] < 4 * 1024 * 1024


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_compiled_model_finds_on_cuda_what_the_plain_one_finds(tmp_path: Path, precision: str) -> None:
    exported = {**models.export(tmp_path / "m.pt2"), "cache": str(tmp_path / "cache")}
    plain = {**order(models.save(tmp_path / "m.torchscript")), "precision": "fp32"}
    random = np.random.default_rng(5)
    frames = [random.integers(0, 256, (*size, 3), np.uint8) for size in [(64, 96), (200, 300), (64, 96)]]
    found = []
    for body in ({**plain, "path": str(tmp_path / "m.pt2"), **exported, "precision": precision}, plain):
        with running({**body, "device": "cuda", "confidence": 0.6}) as engine:
            ready = engine.ready()
            assert ready["runtime"] == f"{body.get('runtime', 'torchscript')}-{body['precision']}-cuda"
            replies = [engine.infer(frame) for frame in frames]
            assert all(isinstance(reply, Inferred) for reply in replies), (replies, ready)
            found.append([reply.count for reply in replies if isinstance(reply, Inferred)])
    for compiled, expected in zip(*found):
        assert abs(compiled - expected) <= max(2, 0.05 * expected)
