"""One runtime on trial: `python -m defectd.engine.trial`, a process that starts an engine as the line's worker would,
shows it the golden pictures, measures it, and ends.

Standard input is one JSON object, `Request`; standard output JSON lines: {"stage", "share"} while it works, at last
{"result": …} (choice.TrialResult) or {"error": {"kind": unusable | broken | out_of_memory, "detail"}}.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
import os
import resource
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from defectd.clock import NS_PER_S, monotonic_ns, ms_between
from defectd.engine.background import available_memory_mb
from defectd.engine.base import Engine, EngineOrder, VerifiedModel
from defectd.engine.environment import keep, prepare
from defectd.engine.faults import Fault, classify, essence
from defectd.engine.warming import warm
from defectd.engine.warmup import COLD_CALLS
from defectd.inspection.yolo import NonFiniteOutput
from defectd.workers.child import Broken, Unusable

Pixels = NDArray[np.uint8]

_MEASURE_UNTIL = 0.8  # of the time that is given: an answer with fewer samples is better than none
_LEAST_CALLS = 20
_FRAMES = 4  # golden pictures that are measured with: what is in them matters little, their memory does
_BATCH_CALLS, _BATCH_SECONDS = 30, 5.0
_LEAST_MEMORY_MB = 512
_EXIT = {"unusable": 3, "broken": 4, "out_of_memory": 4}


@dataclass(frozen=True)
class Request:
    """What is tried, golden pictures included, and how thoroughly."""

    order: EngineOrder
    calls: int
    batches: tuple[int, ...]
    nice: int
    seconds: float

    @classmethod
    def of(cls, body: dict[str, Any]) -> Request:
        """From the JSON. Raises Unusable."""
        try:
            return cls(
                order=EngineOrder.of(body["engine"]),
                calls=int(body.get("calls", 200)),
                batches=tuple(int(batch) for batch in body.get("batches") or ()),
                nice=int(body.get("nice", 0)),
                seconds=float(body.get("seconds", math.inf)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Unusable(f"trial: bad request: {type(error).__name__}: {error}") from error


Say = Callable[[str, float], None]


def main() -> None:
    """Answer, and end the process."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever libraries print is not for the parent
        code = 0
        try:
            request = Request.of(json.load(sys.stdin.buffer))
            os.nice(max(0, request.nice - os.nice(0)))
            _write(answers, {"result": run(request, lambda stage, share: _stage(answers, stage, share))})
        except Exception as error:  # noqa: BLE001 - the outermost guard of the process
            kind, detail = _meaning(error)
            _write(answers, {"error": {"kind": kind, "detail": detail}})
            code = _EXIT[kind]
    sys.stderr.flush()
    os._exit(code)  # finalisers of a broken CUDA context may hang for ever


def run(request: Request, say: Say) -> dict[str, Any]:
    """Start, warm up, compare, measure. Raises what engines raise."""
    begun_ns = monotonic_ns()
    due_ns = begun_ns + int(min(_MEASURE_UNTIL * request.seconds, 1e9) * NS_PER_S)
    order = request.order
    say("loading", 0.0)
    model = VerifiedModel.read(order)
    notes = prepare(order)
    golden_set = order.golden.read() if order.golden is not None else None
    from defectd.engine.devices import open_engine  # noqa: PLC0415 - torch reads what `prepare` has set

    engine, fallback = open_engine(order, model, [])
    say("warming", 0.0)
    curve_ms: list[float] = []
    warmup, settled = warm(
        engine,
        order,
        model.metadata.input_hw,
        lambda share: say("warming", share),
        lambda took_ms: curve_ms.append(round(took_ms, 4)),
    )
    start_s = ms_between(begun_ns, monotonic_ns()) / 1000
    golden = None if golden_set is None else golden_set.compare(engine, lambda share: say("golden", share))
    keep(order)
    shown = range(min(_FRAMES, len(golden_set.paths))) if golden_set is not None else range(0)
    frames = [golden_set.picture(index) for index in shown if golden_set] or [_noise(model.metadata.input_hw)]
    latency_ms, inference_ms = _measure(engine, frames, request.calls, due_ns, say)
    result = {
        "runtime": engine.runtime,
        "device": engine.device,
        "device_name": engine.device_name,
        "notes": [*settled, *notes, *([fallback] if fallback else [])],
        "start_s": round(start_s, 3),
        "warmup": warmup.to_json(),
        "curve_ms": curve_ms,
        "golden": None if golden is None else dataclasses.asdict(golden),
        "latency_ms": latency_ms,
        "inference_ms": inference_ms,
        "peak_rss_mb": _peak_rss_mb(),
        "peak_gpu_mb": _peak_gpu_mb(engine.device),
    }
    device = engine.device
    del engine
    gc.collect()
    return {**result, "batches": list(_batches(request, model, device, due_ns, say))}


def _measure(
    engine: Engine, frames: Sequence[Pixels], calls: int, due_ns: int, say: Say
) -> tuple[list[float], list[float]]:
    """Milliseconds of whole inferences and of the network in them: *calls* of them, or fewer if time is short."""
    latency_ms: list[float] = []
    inference_ms: list[float] = []
    for index in range(calls):
        if index >= _LEAST_CALLS and monotonic_ns() > due_ns:
            break
        whole_ms, network_ms = _timed(engine, frames[index % len(frames)])
        latency_ms.append(whole_ms)
        inference_ms.append(network_ms)
        if index % 10 == 0:
            say("measuring", index / calls)
    return latency_ms, inference_ms


def _batches(
    request: Request, model: VerifiedModel, device_type: str, due_ns: int, say: Say
) -> Iterator[dict[str, Any]]:
    """Of each batch that was asked for, until one fails, what the network takes for it."""
    if not request.batches:
        return
    import torch  # noqa: PLC0415 - not before `prepare`

    from defectd.engine.programs import open_runtime  # noqa: PLC0415

    device = torch.device(device_type)
    dtype = torch.float16 if device_type == "cuda" and request.order.precision == "fp16" else torch.float32
    finish: Callable[[], None] = torch.cuda.synchronize if device_type == "cuda" else lambda: None
    runtime = open_runtime(request.order, model, device, dtype)
    growth_mb = 0.0
    for index, batch in enumerate(request.batches):
        say("batch", index / len(request.batches))
        peak_mb, latency_ms = _peak_rss_mb(), []
        error = _obstacle_to_batch(due_ns, growth_mb)
        try:
            if error is None:
                with torch.inference_mode():
                    latency_ms = list(_calls_ms(runtime.program(runtime.variants()[0], batch).forward, finish))
        except Unusable as failure:
            error = str(failure)
        except (RuntimeError, ValueError, MemoryError, TypeError) as failure:
            if classify(failure) is Fault.DEVICE_LOST:
                raise
            error = essence(failure)
        yield {"batch": batch, "latency_ms": latency_ms, "error": error}
        if error is not None:
            return
        growth_mb = max(growth_mb, _peak_rss_mb() - peak_mb)


def _obstacle_to_batch(due_ns: int, growth_mb: float) -> str | None:
    """Why not to try the next batch, which may need twice what the last one took."""
    available_mb = available_memory_mb()
    if monotonic_ns() > due_ns:
        return "not measured for lack of time"
    if available_mb is not None and available_mb < _LEAST_MEMORY_MB + 2 * growth_mb:
        return f"not measured: only {available_mb} MB of memory are left"
    return None


def _calls_ms(forward: Callable[[], object], finish: Callable[[], None]) -> Iterator[float]:
    for _ in range(COLD_CALLS):
        forward()
    finish()
    begun_ns = monotonic_ns()
    for _ in range(_BATCH_CALLS):
        started_ns = monotonic_ns()
        forward()
        finish()
        ended_ns = monotonic_ns()
        yield round(ms_between(started_ns, ended_ns), 4)
        if ended_ns - begun_ns > _BATCH_SECONDS * NS_PER_S:
            return


def _timed(engine: Engine, frame: Pixels) -> tuple[float, float]:
    started_ns = monotonic_ns()
    _, timings = engine.infer(frame)
    return round(ms_between(started_ns, monotonic_ns()), 4), round(timings.inference_ms, 4)


def _noise(input_hw: tuple[int, int]) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (*input_hw, 3), np.uint8)


def _peak_rss_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _peak_gpu_mb(device: str) -> float | None:
    if device != "cuda":
        return None
    import torch  # noqa: PLC0415 - loaded long ago

    return round(torch.cuda.max_memory_reserved() / (1 << 20), 1)


def _meaning(error: Exception) -> tuple[str, str]:
    """The kind and the detail of an error."""
    if isinstance(error, Unusable):
        return "unusable", str(error)
    if isinstance(error, NonFiniteOutput):
        return "unusable", f"{error}: already for a test picture or a golden one"
    if isinstance(error, ImportError):
        return "unusable", f"torch or OpenCV cannot be imported: {error}"
    if isinstance(error, Broken):
        return ("out_of_memory" if "memory" in str(error).lower() else "broken"), str(error)
    fault = classify(error)
    if fault is Fault.ONE_FRAME:
        return "unusable", f"this runtime cannot run the model: {essence(error)}"
    return ("out_of_memory" if fault is Fault.OUT_OF_MEMORY else "broken"), f"{fault.value}: {essence(error)}"


def _stage(answers: BinaryIO, stage: str, share: float) -> None:
    _write(answers, {"stage": stage, "share": round(share, 3)})


def _write(answers: BinaryIO, record: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: this process will be killed
        answers.write(json.dumps(record).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
