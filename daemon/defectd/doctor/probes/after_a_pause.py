"""How long an inference takes in a row of them, and how long after the engine had nothing to do for a while: what
sleeping clocks cost."""

from __future__ import annotations

import time
from typing import Any, Mapping

import numpy as np

from defectd.clock import NS_PER_S, monotonic_ns, ms_between
from defectd.doctor.probes.answering import answer
from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.engine.environment import prepare
from defectd.engine.warming import warm


def probe(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Milliseconds of whole inferences: `busy_ms` one after the other, `rested_ms` each after `pause_s`. Both go on in
    turns, so that a machine that gets slower meanwhile is slower for both."""
    order = EngineOrder.of(dict(request["engine"]))
    pause_s, due_ns = float(request["pause_s"]), monotonic_ns() + int(float(request["seconds"]) * NS_PER_S)
    model = VerifiedModel.read(order)
    prepare(order)
    from defectd.engine.devices import open_engine  # noqa: PLC0415 - torch reads what `prepare` has set

    engine, fallback = open_engine(order, model, [])
    warm(engine, order, model.metadata.input_hw, lambda _: None)
    frame = np.random.default_rng(0).integers(0, 256, (*model.metadata.input_hw, 3), np.uint8)

    def timed_ms() -> float:
        started_ns = monotonic_ns()
        engine.infer(frame)
        return round(ms_between(started_ns, monotonic_ns()), 3)

    busy_ms: list[float] = []
    rested_ms: list[float] = []
    for _ in range(int(request["rounds"])):
        busy_ms += [timed_ms() for _ in range(int(request["busy_calls"]) + 1)][1:]  # the first one comes from a rest
        time.sleep(pause_s)
        rested_ms.append(timed_ms())
        if monotonic_ns() > due_ns:
            break
    return {
        "runtime": engine.runtime, "device": engine.device, "device_name": engine.device_name, "fallback": fallback,
        "busy_ms": busy_ms, "rested_ms": rested_ms,
    }  # fmt: skip


if __name__ == "__main__":
    answer(probe)
