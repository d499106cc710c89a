"""Swapping real engine workers: the candidate warms up beside the serving one, and takes over between two units."""

from __future__ import annotations

import select
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from defectd.clock import monotonic_ns
from defectd.engine.server import EnginePlan, EngineServer
from defectd.engine.serving import Engines, Outcome
from defectd.workers.process import Died, WorkerState
from defectd.workers.ring import FrameRing, RingLayout
from support.engine import order

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("cv2", reason="needs OpenCV")

from support import models  # noqa: E402 - it imports torch

pytestmark = pytest.mark.torch
MODEL = "ab" * 32  # of the bundle that all these plans are for


@pytest.fixture(scope="module")
def brightest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(tmp_path_factory.mktemp("models") / "brightest.torchscript")


def plan(name: str, path: Path, sha256: str | None = None) -> EnginePlan:
    configuration = order(path) if sha256 is None else {**order(path), "sha256": sha256}
    return EnginePlan(name, "1", MODEL, start_timeout_s=60.0, hang_s=5.0, configuration=configuration)


@pytest.fixture
def engines_of(request: pytest.FixtureRequest) -> Callable[..., Engines]:
    ring = FrameRing.create(RingLayout(2, 640 * 640 * 3))

    def make(*plans: EnginePlan) -> Engines:
        engines = Engines(plans, lambda one: EngineServer(one, (ring,), "INFO"))
        request.addfinalizer(lambda: [worker.reap(0) for worker in engines.workers()])
        engines.serving.worker.start()
        return engines

    return make


def run_until(engines: Engines, over: Callable[[list[Outcome]], bool]) -> list[Outcome]:
    """What the inspection loop does with them, while no unit comes."""
    outcomes: list[Outcome] = []
    deadline_s = time.monotonic() + 60
    while not over(outcomes):
        assert time.monotonic() < deadline_s, [worker.state for worker in engines.workers()]
        channels = [worker.channel for worker in engines.workers() if worker.channel is not None]
        select.select(channels, [], [], 0.05)
        engines.serving.receive()
        engines.serving.tick(monotonic_ns())
        outcomes += engines.attend(monotonic_ns())
        swapped = engines.switch()
        if swapped is not None:
            outcomes.append(swapped)
    return outcomes


def test_a_candidate_serves_when_it_is_warm_and_the_old_engine_leaves(
    engines_of: Callable[..., Engines], brightest: Path
) -> None:
    engines = engines_of(plan("old", brightest))
    run_until(engines, lambda _: engines.serving.worker.ready)
    old = engines.serving.worker
    engines.offer(plan("new", brightest))
    outcomes = run_until(engines, lambda outcomes: len(outcomes) == 1 and len(engines.workers()) == 1)
    assert outcomes == [Outcome(engines.serving.plan, "serves")]
    assert engines.serving.model is not None and engines.serving.model.name == "new"
    assert old.state is WorkerState.STOPPED and old.pid is None


def test_a_candidate_that_cannot_be_used_leaves_the_serving_engine_alone(
    engines_of: Callable[..., Engines], brightest: Path
) -> None:
    engines = engines_of(plan("old", brightest))
    engines.offer(plan("tampered", brightest, sha256="0" * 64))
    (outcome,) = run_until(engines, lambda outcomes: len(outcomes) == 1 and engines.serving.worker.ready)
    assert not outcome.serves and "sha256" in outcome.detail
    assert engines.serving.plan.name == "old"


def test_a_spare_serves_where_the_first_engine_cannot(engines_of: Callable[..., Engines], brightest: Path) -> None:
    engines = engines_of(plan("tampered", brightest, sha256="0" * 64), plan("spare", brightest))
    assert engines.fall_back(died("exit_4")) is None  # once, a cold engine may try again
    assert engines.fall_back(died("exit_4")) == plan("spare", brightest)
    run_until(engines, lambda _: engines.serving.worker.ready)
    assert engines.fall_back(died("exit_3", "unusable")) is None


def test_a_successor_does_not_measure_again_what_is_fastest(
    engines_of: Callable[..., Engines], brightest: Path
) -> None:
    engines = engines_of(plan("one", brightest))
    run_until(engines, lambda _: engines.serving.worker.ready)
    found = engines.serving.worker.report["variant"]
    engines.serving.worker.kill("silent")
    run_until(engines, lambda _: not engines.serving.worker.ready)
    run_until(engines, lambda _: engines.serving.worker.ready)
    assert f"layout {found}, as measured before" in engines.serving.worker.report["notes"]


def test_after_a_swap_the_engine_that_was_good_is_the_spare(
    engines_of: Callable[..., Engines], brightest: Path
) -> None:
    engines = engines_of(plan("old", brightest))
    run_until(engines, lambda _: engines.serving.worker.ready)
    engines.offer(plan("new", brightest))
    run_until(engines, lambda outcomes: len(outcomes) == 1)
    for _ in range(3):
        assert engines.fall_back(died("signal_9")) is None  # it was warm: a new process may well work
    assert engines.fall_back(died("signal_9")) == plan("old", brightest)


def died(reason: str, fatal_code: str = "") -> Died:
    return Died(reason, fatal_code, "", retry_s=0.25)


def test_an_offer_for_a_model_that_no_longer_serves_is_dropped(
    engines_of: Callable[..., Engines], brightest: Path
) -> None:
    engines = engines_of(plan("old", brightest))
    late = replace(plan("late", brightest), sha256="cd" * 32)
    engines.offer(late)
    (outcome,) = run_until(engines, lambda outcomes: len(outcomes) == 1 and engines.serving.worker.ready)
    assert (outcome.kind, outcome.plan) == ("failed", late) and len(engines.workers()) == 1
