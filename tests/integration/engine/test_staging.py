"""A rollout's candidate on real engine workers: it waits beside the line, serves when it may, and can be undone."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path
from typing import Callable

import pytest

from defectd.clock import monotonic_ns
from defectd.engine.server import EnginePlan, EngineServer
from defectd.engine.serving import Engines, Outcome
from defectd.inspection.frame import Frame
from defectd.workers.process import Died, WorkerState
from defectd.workers.protocol import Inferred
from defectd.workers.ring import FrameRing, RingLayout
from support.engine import order

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("cv2", reason="needs OpenCV")

from support import models  # noqa: E402 - it imports torch

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def brightest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(tmp_path_factory.mktemp("models") / "brightest.torchscript")


class Bench:
    """Engines, and what the inspection loop does with them while no unit comes."""

    def __init__(self, path: Path) -> None:
        self.path, self.outcomes = path, []
        self.ring = FrameRing.create(RingLayout(2, 640 * 640 * 3))
        self.engines = Engines([self.plan("old")], lambda one: EngineServer(one, (self.ring,), "INFO"))
        self.engines.serving.worker.start()

    def plan(self, name: str, **changes: object) -> EnginePlan:
        configuration = {**order(self.path), **changes}
        return EnginePlan(name, "1", configuration["sha256"], 60.0, 5.0, configuration)

    def until(self, over: Callable[[], object], what: str) -> None:
        deadline_s = time.monotonic() + 60
        while not over():
            assert time.monotonic() < deadline_s, (what, self.outcomes)
            channels = [worker.channel for worker in self.engines.workers() if worker.channel is not None]
            select.select(channels, [], [], 0.02)
            for record in [*self.engines.serving.receive(), *self.engines.serving.tick(monotonic_ns())]:
                if isinstance(record, Died) and self.engines.on_probation:
                    self.engines.go_back(record.reason)
            self.outcomes += self.engines.attend(monotonic_ns())
            self.outcomes += filter(None, [self.engines.switch()])

    def told(self, kind: str) -> Outcome | None:
        return next((outcome for outcome in self.outcomes if outcome.kind == kind), None)

    @property
    def serving(self) -> str:
        return self.engines.serving.plan.name


@pytest.fixture
def bench(brightest: Path):
    made = Bench(brightest)
    made.until(lambda: made.engines.serving.worker.ready, "the old engine is ready")
    yield made
    for worker in made.engines.workers():
        worker.reap(0)


def staged(bench: Bench, **changes: object) -> None:
    bench.engines.stage([bench.plan("new", **changes)])
    bench.until(lambda: bench.told("ready") or bench.told("failed"), "the candidate is ready")


def test_a_staged_candidate_says_how_far_it_is_and_waits(bench):
    staged(bench)
    assert [outcome.kind for outcome in bench.outcomes] == ["loading", "warming", "golden", "ready"]
    assert all(outcome.staged for outcome in bench.outcomes)
    assert bench.serving == "old" and bench.engines.shadow is not None and not bench.engines.on_probation


def test_the_shadow_answers_beside_the_serving_engine(bench):
    staged(bench)
    bench.ring.begin_write(0)
    bench.ring.pixels(0, 64, 96).fill(255)
    shadow = bench.engines.shadow
    shadow.infer(0, Frame(0, bench.ring.end_write(0), 96, 64, None))
    news: list[object] = []
    bench.until(lambda: news.extend(bench.engines.shadow_news()) or news, "an answer")
    (sender, answer), *_ = news
    assert sender is shadow and isinstance(answer, Inferred) and answer.count > 0
    assert shadow.free and bench.serving == "old"


def test_a_promoted_candidate_serves_and_the_old_engine_stays_warm_until_it_is_settled(bench):
    old = bench.engines.serving.worker
    staged(bench)
    bench.engines.promote()
    bench.until(lambda: bench.told("serves"), "the candidate serves")
    assert bench.serving == "new" and bench.engines.on_probation and old.ready
    bench.engines.settle()
    bench.until(lambda: bench.told("settled") and len(bench.engines.workers()) == 1, "the old engine has left")
    assert bench.serving == "new" and not bench.engines.on_probation and old.state is WorkerState.STOPPED


def test_a_candidate_that_dies_on_probation_is_replaced_by_the_old_engine_without_a_start(bench):
    old = bench.engines.serving
    staged(bench)
    bench.engines.promote()
    bench.until(lambda: bench.told("serves"), "the candidate serves")
    os.kill(bench.engines.serving.worker.pid, signal.SIGKILL)
    bench.until(lambda: bench.told("reverted"), "the old engine serves")
    assert bench.engines.serving is old and old.worker.ready
    assert "signal_9" in bench.told("reverted").detail


def test_a_rollback_is_a_request_like_any_other(bench):
    old = bench.engines.serving
    staged(bench)
    bench.engines.promote()
    bench.until(lambda: bench.told("serves"), "the candidate serves")
    bench.engines.revert("an operator asked for it")
    bench.until(lambda: bench.told("reverted") and len(bench.engines.workers()) == 1, "only the old engine is left")
    assert bench.engines.serving is old


def test_a_candidate_that_cannot_be_used_fails_and_nothing_else_happens(bench):
    staged(bench, sha256="0" * 64)
    assert "sha256" in bench.told("failed").detail
    assert bench.serving == "old" and bench.engines.shadow is None
    staged(bench)
    bench.engines.revert("cancelled")
    bench.until(lambda: len(bench.engines.workers()) == 1, "the candidate has left")
    assert bench.serving == "old" and bench.engines.serving.worker.ready


def test_where_memory_does_not_allow_two_the_old_engine_leaves_first(bench):
    old = bench.engines.serving.worker
    bench.engines.stage([bench.plan("new")], beside=False)
    bench.until(lambda: bench.told("paused"), "the line is paused")
    bench.until(lambda: bench.told("ready"), "the candidate is ready")
    assert old.pid is None and not bench.engines.serving.worker.ready, "there were never two"
    bench.engines.promote()
    bench.until(lambda: bench.told("serves"), "the candidate serves")
    assert bench.serving == "new" and bench.engines.on_probation
    bench.engines.revert("probation failed")
    bench.until(lambda: bench.told("reverted") and bench.engines.serving.worker.ready, "the old model serves again")
    assert bench.serving == "old"


def test_after_a_pause_in_vain_the_old_model_starts_again(bench):
    bench.engines.stage([bench.plan("new", sha256="0" * 64)], beside=False)
    bench.until(lambda: bench.told("failed") and bench.engines.serving.worker.ready, "the old model serves again")
    assert bench.serving == "old"
