"""What the builder says while it works."""

from __future__ import annotations

import io
import json

import pytest

from defectd.engine import build
from defectd.engine.build import Reporter
from support.tensorrt_modules import Import, engine_on

__all__ = ["engine_on"]


def test_each_stage_is_told_once_and_progress_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0
    monkeypatch.setattr(build, "monotonic_ns", lambda: now_ns)
    lines = io.StringIO()
    say = Reporter(lines)
    say("reading the network", None)
    say("choosing kernels", None)
    for step in range(21):
        now_ns = step * 100_000_000
        say("choosing kernels", step / 20)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert told[:2] == [{"stage": "reading the network", "share": None}, {"stage": "choosing kernels", "share": None}]
    assert [line["share"] for line in told[2:]] == [0.25, 0.5, 0.75, 1.0]


def test_an_inner_phase_counts_within_its_outer_ones_step_and_the_share_never_falls(engine_on: Import) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("cv2")
    progress = engine_on("10.3.0", "tensorrt_build").Progress()
    progress.start("building", None, 4)
    assert progress.step("building", 0) == 0.25
    progress.start("timing", "building", 10)
    assert progress.step("timing", 4) == pytest.approx(0.375)
    progress.finish("timing")
    progress.start("timing", "building", 2)
    assert progress.step("timing", 0) == pytest.approx(0.375)
    assert progress.step("a phase that never began", 7) == pytest.approx(0.375)
    progress.finish("timing")
    assert progress.step("building", 3) == 1.0
