"""The engine process: `python -m defectd.engine.worker FD PARENT_PID`. One model, one device, one request at a time."""

from __future__ import annotations

import gc
import logging
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.engine.base import Engine, EngineOrder, VerifiedModel
from defectd.engine.environment import keep, prepare
from defectd.engine.faults import Fault, classify, essence
from defectd.engine.golden import GoldenSet
from defectd.engine.warming import warm
from defectd.inspection.yolo import NonFiniteOutput
from defectd.workers.channel import Channel
from defectd.workers.child import Broken, Unusable, run_worker
from defectd.workers.protocol import Alive, Infer, Inferred, Kind, Note, ProtocolError, Refused
from defectd.workers.ring import FrameRing

log = logging.getLogger(__name__)

_ALIVE_EVERY_S = 0.5


def work(channel: Channel, configuration: dict[str, Any], rings: list[FrameRing]) -> None:
    """Load, warm up, say READY, then answer requests until the daemon closes the channel."""
    order = EngineOrder.of(configuration["engine"])
    engine, ready = _start(order, rings, channel)
    gc.collect()
    gc.freeze()  # torch's many objects stay for good: a collection during a request need not visit them
    channel.send(Note(Kind.READY, ready))
    _serve(channel, engine, rings, order.keep_warm_s, dummy=np.full((*ready["input_hw"], 3), 128, np.uint8))


def _start(order: EngineOrder, rings: list[FrameRing], channel: Channel) -> tuple[Engine, dict[str, Any]]:
    """A warm engine, and the body of READY. Raises Unusable, Broken."""

    def breathe(_: object = None) -> None:
        channel.send(Alive())

    model = VerifiedModel.read(order)
    notes = prepare(order)
    try:
        golden = order.golden.read() if order.golden is not None else None
        from defectd.engine.devices import open_engine  # noqa: PLC0415 - torch takes seconds: refuse bad files first

        engine, fallback = open_engine(order, model, rings)
        channel.send(Note(Kind.STAGE, {"stage": "warming"}))
        warmup, settled = warm(engine, order, model.metadata.input_hw, breathe)
        channel.send(Note(Kind.STAGE, {"stage": "golden"}))
        settled += _check_golden(engine, order, golden, breathe)
        keep(order)
    except ImportError as error:
        raise Unusable(f"torch or OpenCV cannot be imported: {error}") from error
    except (RuntimeError, ValueError, MemoryError) as error:
        if classify(error) is Fault.ONE_FRAME:
            raise Unusable(f"{order.path}: torch cannot run this model: {essence(error)}") from error
        raise Broken(f"{classify(error).value} while loading {order.path}: {essence(error)}") from error
    except NonFiniteOutput as error:
        raise Unusable(f"{order.path}: {error}, already for a test picture") from error
    ready = {
        "runtime": engine.runtime,
        "variant": engine.variant,
        "device": engine.device,
        "device_name": engine.device_name,
        "input_hw": list(model.metadata.input_hw),
        "names": list(model.metadata.names),
        "warmup": warmup.to_json(),
        "fallback": fallback,
        "notes": [*settled, *notes],
    }
    log.info("engine ready: %s", ready)
    return engine, ready


def _check_golden(
    engine: Engine, order: EngineOrder, golden: GoldenSet | None, breathe: Callable[[float], None]
) -> list[str]:
    """Raises Unusable if the engine does not see what the original model saw."""
    report = None if golden is None else golden.compare(engine, breathe)
    if report is None:
        return []
    engine.judge_by(order.thresholds)
    if not report.passed:
        raise Unusable(
            f"{order.path}: {engine.runtime} does not answer like the original model on the bundle's "
            f"{report.pictures} golden pictures: {'; '.join(report.reasons)}"
        )
    return [f"golden: recall {report.recall:.4f}, precision {report.precision:.4f} on {report.pictures} pictures"]


def _serve(
    channel: Channel, engine: Engine, rings: list[FrameRing], keep_warm_s: float | None, dummy: NDArray[np.uint8]
) -> None:
    """Answer each request. While idle, say so, and keep the device's clocks up by inferences that nobody counts."""
    wait_s = min(_ALIVE_EVERY_S, keep_warm_s or _ALIVE_EVERY_S)
    worked_ns = monotonic_ns()
    while True:
        record = channel.receive(wait_s)
        if isinstance(record, Infer):
            channel.send(answer(engine, rings, record))
            worked_ns = monotonic_ns()
        elif record is not None:
            raise ProtocolError(f"expected a request, got {record!r}")
        else:
            channel.send(Alive())
            if keep_warm_s and monotonic_ns() - worked_ns >= keep_warm_s * NS_PER_S:
                _keep_warm(engine, dummy)
                worked_ns = monotonic_ns()


def _keep_warm(engine: Engine, dummy: NDArray[np.uint8]) -> None:
    try:
        engine.infer(dummy)
    except NonFiniteOutput:
        log.warning("the model's output for a grey frame is not finite")
    except (RuntimeError, ValueError, MemoryError) as error:
        _break_if_fatal(engine, error)
        log.warning("keeping warm failed: %s", essence(error))


def answer(engine: Engine, rings: list[FrameRing], request: Infer) -> Inferred | Refused:
    """Judge the frame that *request* names; its detections are left in its slot. Raises Broken."""
    started_ns = monotonic_ns()
    try:
        ring, pixels = _frame(rings, request)
        detections, timings = engine.infer(pixels)
        _check_generation(ring, request)  # again: written under our eyes, it is judged not, and its slot left alone
    except _Refusal as refusal:
        return Refused(request.request, *refusal.args)
    except NonFiniteOutput as error:
        return Refused(request.request, "non_finite_output", str(error))
    except (RuntimeError, ValueError, MemoryError) as error:
        _break_if_fatal(engine, error)
        return Refused(request.request, "engine_failed", essence(error))
    ring.write_detections(request.slot, detections)
    return Inferred(request.request, len(detections), started_ns, timings)


class _Refusal(Exception):
    """Reason and detail of a Refused."""


def _frame(rings: list[FrameRing], request: Infer) -> tuple[FrameRing, NDArray[np.uint8]]:
    try:
        ring = rings[request.ring]
        _check_generation(ring, request)
    except (IndexError, ValueError) as error:
        raise _Refusal("engine_failed", f"no such slot: {error}") from error
    if request.width_px < 1 or request.height_px < 1:
        raise _Refusal("frame_undecodable", f"{request.width_px}x{request.height_px} has no pixels")
    try:
        return ring, ring.pixels(request.slot, request.height_px, request.width_px)
    except ValueError as error:
        raise _Refusal("frame_too_large", str(error)) from error


def _check_generation(ring: FrameRing, request: Infer) -> None:
    generation = ring.generation(request.slot)
    if generation != request.generation:
        detail = f"slot {request.slot} has generation {generation}, expected {request.generation}"
        raise _Refusal("frame_torn", detail)


def _break_if_fatal(engine: Engine, error: Exception) -> None:
    """Raises Broken if *error*, or the state that it left the device in, needs a new process."""
    if classify(error) is not Fault.ONE_FRAME:
        raise Broken(f"{classify(error).value}: {essence(error)}") from error
    try:
        engine.check()
    except RuntimeError as second:
        raise Broken(f"{essence(error)}; then {essence(second)}") from second


if __name__ == "__main__":
    run_worker(work)
