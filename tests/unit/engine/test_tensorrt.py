"""The TensorRT runtime against a fake with the vendor's signatures, on the CPU's memory. No GPU has seen it yet."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from defectd.engine.faults import Fault, classify  # noqa: E402
from defectd.workers.child import Unusable  # noqa: E402
from support.fake_tensorrt import behaviour, plan  # noqa: E402
from support.tensorrt_modules import INPUT_HW, NAMES, Import, engine_on, ordered  # noqa: E402

__all__ = ["engine_on"]

INPUT, HEAD = {"images": (1, 3, *INPUT_HW)}, {"output0": (1, 4 + len(NAMES), 126)}


def opened(module: Any, data: bytes, **metadata: Any) -> Any:
    order, model = ordered(data, **metadata)
    return module.TensorRtRuntime(order, model, torch.device("cpu"), torch.float16, stream=lambda: 77)


@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106"])
def test_a_plan_reads_the_input_in_place_and_runs_on_the_stream_of_the_moment(engine_on: Import, version: str) -> None:
    runtime = opened(engine_on(version), plan(INPUT, HEAD, version=version))
    program = runtime.program(runtime.variants()[0])
    assert tuple(program.input.shape) == (1, 3, *INPUT_HW)
    assert program.input[0, 0, 0, 0].item() == pytest.approx(114 / 255)
    program.input.fill_(0.25)
    head = program.forward()
    assert tuple(head.shape) == (1, 7, 126)
    assert torch.all(head == 0.25)
    program.input.fill_(0.5)
    assert torch.all(program.forward() == 0.5)
    assert behaviour.streams == [77, 77]
    assert runtime.name == "tensorrt"
    assert runtime.notes() == [f"TensorRT {version}"]
    assert program.graphable


def test_the_plan_says_of_what_type_its_input_is(engine_on: Import) -> None:
    program = opened(engine_on("10.3.0"), plan(INPUT, HEAD, dtype="HALF")).program("plan")
    assert program.input.dtype is torch.float16
    assert program.forward().dtype is torch.float16


def test_an_ultralytics_engine_is_read_behind_its_header(engine_on: Import) -> None:
    module = engine_on("10.3.0")
    config = {"task": "detect", "imgsz": list(INPUT_HW), "names": dict(enumerate(NAMES)), "stride": 32, "batch": 1}
    header = json.dumps(config).encode()
    data = len(header).to_bytes(4, "little") + header + plan(INPUT, HEAD)
    order, model = ordered(data)
    order = dataclasses.replace(order, metadata=None)
    runtime = module.TensorRtRuntime(order, model, torch.device("cpu"), torch.float32, stream=lambda: 1)
    assert runtime.program("plan").forward().shape == (1, 7, 126)


@pytest.mark.parametrize("data", [b"not a plan", plan(INPUT, HEAD, version="8.6.1")])
def test_a_plan_of_another_build_is_refused_with_tensorrts_reason_and_a_remedy(engine_on: Import, data: bytes) -> None:
    module = engine_on("10.3.0")
    with pytest.raises(Unusable, match=r"TensorRT 10\.3\.0.*tag does not match.*build it on this device"):
        opened(module, data)


def test_without_a_driver_the_error_says_what_tensorrt_said(engine_on: Import) -> None:
    module = engine_on("8.5.2.2")
    behaviour.no_cuda = True
    with pytest.raises(RuntimeError, match="it cannot start: CUDA initialization failure with error: 35"):
        opened(module, plan(INPUT, HEAD))


def test_no_memory_for_the_context_is_out_of_memory_and_not_a_fault_of_the_file(engine_on: Import) -> None:
    runtime = opened(engine_on("8.5.2.2"), plan(INPUT, HEAD, version="8.5.2.2"))
    behaviour.no_context = True
    behaviour.complaint = "Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)"
    with pytest.raises(RuntimeError, match="1073741824") as caught:
        runtime.program("plan")
    assert classify(caught.value) is Fault.OUT_OF_MEMORY


def test_a_refused_call_is_an_error_and_never_the_last_answer_again(engine_on: Import) -> None:
    program = opened(engine_on("10.3.0"), plan(INPUT, HEAD)).program("plan")
    program.forward()
    behaviour.no_enqueue = True
    behaviour.complaint = "Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
    with pytest.raises(RuntimeError, match=r"the call is refused.*illegal memory access") as caught:
        program.forward()
    assert classify(caught.value) is Fault.DEVICE_LOST


def test_a_refused_address_is_an_error(engine_on: Import) -> None:
    runtime = opened(engine_on("10.3.0"), plan(INPUT, HEAD))
    behaviour.no_address = True
    with pytest.raises(RuntimeError, match="the memory of images is refused"):
        runtime.program("plan")


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"images": (-1, 3, -1, -1)}, HEAD, "no fixed shape"),
        (INPUT, {"output0": (1, -1, 6)}, "no fixed shape.*nms=True"),
        ({**INPUT, "orig_size": (1, 2)}, HEAD, "one input and one output"),
        (INPUT, {"num_dets": (1, 1), "scores": (1, 100)}, "one input and one output"),
        ({"images": (1, 3, 32, 32)}, HEAD, r"takes an input of \(1, 3, 32, 32\), not \(1, 3, 64, 96\)"),
        ({"images": (4, 3, *INPUT_HW)}, HEAD, r"takes an input of \(4, 3, 64, 96\), not \(1, 3, 64, 96\)"),
    ],
)
def test_a_plan_that_is_no_static_detector_of_that_size_is_refused(
    engine_on: Import, inputs: dict[str, Any], outputs: dict[str, Any], message: str
) -> None:
    runtime = opened(engine_on("10.3.0"), plan(inputs, outputs))
    with pytest.raises(Unusable, match=message):
        runtime.program("plan")


def test_an_input_of_integers_is_refused(engine_on: Import) -> None:
    runtime = opened(engine_on("10.3.0"), plan(INPUT, HEAD, dtype="INT8"))
    with pytest.raises(Unusable, match=r"of torch\.int8; expected float32 or float16"):
        runtime.program("plan")


def test_a_plan_for_another_batch_serves_that_batch(engine_on: Import) -> None:
    runtime = opened(engine_on("10.3.0"), plan({"images": (4, 3, *INPUT_HW)}, {"output0": (4, 7, 126)}))
    assert runtime.program("plan", batch=4).forward().shape == (4, 7, 126)


def test_a_plan_for_a_dla_core_goes_there_and_into_no_graph(engine_on: Import) -> None:
    runtime = opened(engine_on("10.3.0"), plan(INPUT, HEAD), dla=1)
    assert runtime._runtime.DLA_core == 1
    assert not runtime.program("plan").graphable


def test_what_tensorrt_says_reaches_our_log_at_its_own_level(
    engine_on: Import, caplog: pytest.LogCaptureFixture
) -> None:
    module = engine_on("10.3.0")
    voice = module.Log()
    with caplog.at_level(logging.DEBUG, "defectd.engine.tensorrt"):
        for severity in module.trt.ILogger.Severity:
            voice.log(severity, f"{severity.name.lower()} text")
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG]
    assert "internal_error text; error text; warning text" in str(voice.failure("it failed"))
    assert "no reason" in str(voice.failure("it failed again")), "a reason is told once"
