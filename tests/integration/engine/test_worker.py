"""The real engine process on the CPU, over a real ring and channel, with tiny models."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from defectd.inspection.detections import Detections
from defectd.inspection.events import WarmupReport
from defectd.workers.child import EXIT_BROKEN, EXIT_UNUSABLE
from defectd.workers.protocol import Inferred, Refused
from support.engine import EngineProcess, order, running

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("cv2", reason="needs OpenCV")

from support import models  # noqa: E402 - it imports torch

pytestmark = pytest.mark.torch

GREY = np.full((64, 96, 3), 40, np.uint8)
DARK = np.zeros((64, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def brightest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(tmp_path_factory.mktemp("models") / "brightest.torchscript")


@pytest.fixture(scope="module")
def engine(brightest: Path) -> Iterator[EngineProcess]:
    with running(order(brightest)) as process:
        process.ready()
        yield process


def spot(height: int, width: int, row: int, column: int, bgr: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A dark frame with one bright 8x8 block whose top left pixel is at *row*, *column*."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[row : row + 8, column : column + 8] = bgr
    return frame


def detections(engine: EngineProcess, pixels: NDArray[np.uint8], slot: int = 0) -> Detections:
    reply = engine.infer(pixels, slot)
    assert isinstance(reply, Inferred), reply
    return engine.ring.read_detections(slot, reply.count)


def refusal(reply: Inferred | Refused) -> str:
    assert isinstance(reply, Refused), reply
    assert reply.detail
    return reply.reason


def last_words(body: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """What a worker with this order says before it ends, and its exit code."""
    with running(body) as process:
        words = process.last_words()
        return words, process.process.wait(20)


def test_ready_tells_what_was_loaded_where_and_how_it_became_warm(brightest: Path) -> None:
    with running(order(brightest)) as process:
        ready = process.ready()
        assert process.alive > 0  # it was heard during the warm-up, too
        assert process.stages == ["warming", "golden"]
    assert (ready["runtime"], ready["device"]) == ("torchscript-fp32-cpu", "cpu")
    assert (ready["input_hw"], ready["names"]) == ([64, 96], list(models.NAMES))
    assert ready["fallback"] is None
    assert ready["device_name"]
    assert any(note.startswith("layout ") for note in ready["notes"])
    report = WarmupReport(**ready["warmup"])
    assert 10 <= report.iterations <= 30
    assert report.cold_first_call_ms > 0


def test_it_ends_with_its_channel(brightest: Path) -> None:
    with running(order(brightest)) as process:
        process.ready()
        assert process.close() == 0


def test_its_thread_keeps_one_core(engine: EngineProcess) -> None:
    assert len(os.sched_getaffinity(engine.process.pid)) == 1  # of the main thread; libgomp binds all or none


def test_a_spot_is_found_where_it_is_and_in_its_colour(engine: EngineProcess) -> None:
    found = detections(engine, spot(64, 96, 16, 40, bgr=(0, 0, 255)))  # red is the first class: BGR became RGB
    assert found.xyxy.tolist() == [[36, 12, 52, 28]]
    assert found.class_ids.tolist() == [0]
    assert found.scores.tolist() == pytest.approx([1.0])
    assert detections(engine, spot(64, 96, 16, 40, bgr=(255, 0, 0))).class_ids.tolist() == [2]


def test_a_frame_of_another_size_than_the_last_is_mapped_to_its_own_pixels(engine: EngineProcess) -> None:
    for _ in range(2):
        small = np.repeat(np.repeat(spot(32, 24, 16, 8, bgr=(0, 255, 0)), 2, axis=0), 2, axis=1)  # 48 wide, 64 high
        found = detections(engine, small)
        bright = found.scores > 0.99  # the padding is a middling grey
        assert found.class_ids[bright].tolist() == [1] * 4
        assert found.xyxy[bright].mean(axis=0).tolist() == [16, 32, 32, 48]
        assert detections(engine, spot(64, 96, 0, 88, bgr=(0, 0, 255))).xyxy.tolist() == [[84, 0, 96, 12]]


def test_the_padding_of_the_last_frame_does_not_show_in_the_next(engine: EngineProcess) -> None:
    white = np.full((64, 48, 3), 255, np.uint8)  # padded left and right
    black = np.zeros((32, 96, 3), np.uint8)  # padded above and below
    assert detections(engine, white).scores.max() == pytest.approx(1.0)
    assert detections(engine, black).scores.max() == pytest.approx(114 / 255)


def test_an_empty_scene_has_no_detections(engine: EngineProcess) -> None:
    assert len(detections(engine, DARK)) == 0


def test_each_slot_keeps_its_own_detections(engine: EngineProcess) -> None:
    first = detections(engine, spot(64, 96, 0, 8, bgr=(0, 0, 255)), slot=0)
    second = detections(engine, spot(64, 96, 8, 16, bgr=(0, 0, 255)), slot=1)
    assert engine.ring.read_detections(0, 1).xyxy.tolist() == first.xyxy.tolist() != second.xyxy.tolist()


def test_timings_are_measured_on_the_monotonic_clock(engine: EngineProcess) -> None:
    before_ns = time.monotonic_ns()
    reply = engine.infer(GREY)
    wall_ms = (time.monotonic_ns() - before_ns) / 1e6
    assert isinstance(reply, Inferred)
    assert before_ns < reply.started_ns < time.monotonic_ns()
    stages = reply.timings
    assert min(stages.preprocess_ms, stages.inference_ms, stages.postprocess_ms) > 0
    assert stages.preprocess_ms + stages.inference_ms + stages.postprocess_ms < wall_ms
    assert stages.inference_clock == "monotonic"


def test_a_torn_frame_is_refused_and_the_next_one_is_not(engine: EngineProcess) -> None:
    generation = engine.put(GREY)
    engine.put(GREY)
    assert refusal(engine.ask(64, 96, generation)) == "frame_torn"
    generation = engine.put(GREY)
    engine.ring.begin_write(0)
    assert refusal(engine.ask(64, 96, generation)) == "frame_torn"
    engine.ring.end_write(0)
    assert isinstance(engine.infer(GREY), Inferred)


@pytest.mark.parametrize(
    ("height_px", "width_px", "reason"),
    [(0, 96, "frame_undecodable"), (64, 0, "frame_undecodable"), (5000, 5000, "frame_too_large")],
)
def test_an_impossible_size_is_refused_and_the_engine_goes_on(
    engine: EngineProcess, height_px: int, width_px: int, reason: str
) -> None:
    assert refusal(engine.ask(height_px, width_px, engine.put(GREY))) == reason
    assert isinstance(engine.infer(GREY), Inferred)


def test_an_end_to_end_head_needs_no_suppression(tmp_path: Path) -> None:
    path = models.save(tmp_path / "m.torchscript", models.EndToEnd(), end2end=True, head="v10Detect")
    with running(order(path)) as process:
        process.ready()
        found = detections(process, GREY)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    assert found.xyxy.tolist() == [[8, 8, 24, 24], [9, 9, 25, 25]]
    assert found.class_ids.tolist() == [2, 2]


def test_a_head_that_the_metadata_do_not_name_is_told_by_its_shape(tmp_path: Path) -> None:
    with running(order(models.save(tmp_path / "m.torchscript", models.EndToEnd(), end2end=None))) as process:
        process.ready()
        assert len(detections(process, GREY)) == 2


def test_nan_in_the_output_refuses_the_frame_and_the_engine_goes_on(tmp_path: Path) -> None:
    with running(order(models.save(tmp_path / "m.torchscript", models.NotANumber()))) as process:
        process.ready()
        assert refusal(process.infer(DARK)) == "non_finite_output"
        assert isinstance(process.infer(GREY), Inferred)


def test_an_error_in_the_model_refuses_the_frame_with_its_cause(tmp_path: Path) -> None:
    with running(order(models.save(tmp_path / "m.torchscript", models.FailsOnDark()))) as process:
        process.ready()
        reply = process.infer(DARK)
        assert refusal(reply) == "engine_failed"
        assert isinstance(reply, Refused)
        assert "shape '[7, -1, 11]' is invalid" in reply.detail
        assert isinstance(process.infer(GREY), Inferred)


def test_out_of_memory_ends_the_worker_with_its_reason(tmp_path: Path) -> None:
    with running(order(models.save(tmp_path / "m.torchscript", models.OutOfMemory()))) as process:
        process.ready()
        generation = process.put(DARK)
        process.request(64, 96, generation)
        words = process.last_words()
        assert (words["code"], words["state"]) == ("broken", "fatal")
        assert "out of memory" in words["detail"]
        assert process.process.wait(20) == EXIT_BROKEN


def test_an_idle_engine_says_that_it_is_alive_and_keeps_warm(brightest: Path) -> None:
    with running(order(brightest, keep_warm_s=0.1)) as process:
        process.ready()
        process.alive = 0
        with pytest.raises(TimeoutError):  # neither the ALIVEs nor the dummy inferences are news
            process.next(timeout_s=1.2)
        assert process.alive >= 2
        assert isinstance(process.infer(GREY), Inferred)


def test_auto_falls_back_to_the_cpu_and_says_why(brightest: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with running(order(brightest, device="auto")) as process:
        ready = process.ready()
    assert ready["device"] == "cpu"
    assert torch.__version__ in ready["fallback"]


def test_cuda_without_cuda_is_unusable_and_says_what_was_found(brightest: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    words, code = last_words(order(brightest, device="cuda"))
    assert (words["code"], code) == ("unusable", EXIT_UNUSABLE)
    assert torch.__version__ in words["detail"]
    assert 'device = "auto"' in words["detail"]


def test_a_replaced_file_is_unusable(brightest: Path) -> None:
    words, code = last_words(order(brightest, sha256="0" * 64))
    assert code == EXIT_UNUSABLE
    assert "the file was replaced" in words["detail"]


def test_a_truncated_model_is_unusable(brightest: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.torchscript"
    path.write_bytes(brightest.read_bytes()[:-1000])
    words, code = last_words(order(path, sha256="0" * 64))
    assert code == EXIT_UNUSABLE
    assert "truncated" in words["detail"]


def test_a_checkpoint_is_unusable_and_never_unpickled(tmp_path: Path) -> None:
    path, trace = tmp_path / "best.pt", tmp_path / "unpickled"
    torch.save({"model": Trap(str(trace))}, path)
    words, code = last_words(order(path, sha256="0" * 64))
    assert code == EXIT_UNUSABLE
    assert "pickled checkpoint" in words["detail"]
    assert not trace.exists()


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.trace,))


def test_an_archive_that_torch_cannot_load_is_unusable(tmp_path: Path) -> None:
    from support.archives import CONFIG, archive

    path = tmp_path / "hollow.torchscript"
    path.write_bytes(archive(CONFIG))
    words, code = last_words(order(path))
    assert code == EXIT_UNUSABLE
    assert "torch cannot run this model" in words["detail"]


@pytest.mark.parametrize(
    ("config", "shapes"),
    [({"end2end": True}, ("(1, N, 6)", "(1, 7, 96)")), ({"names": {"0": "open"}}, ("(1, 5, anchors)", "(1, 7, 96)"))],
)
def test_a_head_that_contradicts_its_metadata_is_unusable(
    tmp_path: Path, config: dict[str, Any], shapes: tuple[str, str]
) -> None:
    words, code = last_words(order(models.save(tmp_path / "m.torchscript", **config)))
    assert code == EXIT_UNUSABLE
    assert all(shape in words["detail"] for shape in shapes)


def test_a_model_that_answers_nonsense_from_the_start_is_unusable(tmp_path: Path) -> None:
    words, code = last_words(order(models.save(tmp_path / "m.torchscript", models.AlwaysNaN())))
    assert code == EXIT_UNUSABLE
    assert "NaN" in words["detail"]
