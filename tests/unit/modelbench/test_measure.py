"""From trials to verdicts, without a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defectd.engine.choice import BuildOptions, Candidate, Trial, TrialResult
from defectd.modelbench.conditions import Machine, Watch
from defectd.modelbench.findings import Failed, Span
from defectd.modelbench.measure import Attempt, OnStage, Tried, judge, measure, spans
from support.benched import golden, result


def candidate(runtime: str) -> Candidate:
    return Candidate(runtime, "fp32", "cpu", Path("model"), "0" * 64, False, "f" * 32, False, BuildOptions())


def tried(runtime: str, problem: str | None = None, **changes: Any) -> Tried:
    outcome = None if problem else TrialResult.model_validate(result(**changes))
    return Tried(runtime, Trial(candidate(runtime), outcome, problem), ())


def test_the_fastest_is_chosen_the_others_are_slower_by_a_factor() -> None:
    slow, fast = judge([tried("torchscript", latency_ms=[20.0] * 20), tried("compiled", latency_ms=[10.0] * 20)])
    assert (slow.verdict.kind, slow.verdict.reason) == ("slower", "2.00× the p99 of compiled")
    assert fast.verdict.kind == "chosen"


def test_wrong_answers_and_failures_are_refused_with_their_reasons() -> None:
    wrong, broken, right = judge(
        [
            tried("compiled", latency_ms=[1.0] * 20, golden=golden("recall 0.5000, at least 0.98 is required")),
            tried("tensorrt", "the trial was killed: out of memory"),
            tried("torchscript"),
        ]
    )
    assert wrong.verdict.kind == "refused" and "recall 0.5000" in wrong.verdict.reason and wrong.measured is not None
    assert broken.outcome == Failed("the trial was killed: out of memory") and broken.verdict.kind == "refused"
    assert right.verdict.kind == "chosen"


def test_if_nothing_may_serve_nothing_is_chosen() -> None:
    assert [one.verdict.kind for one in judge([tried("torchscript", "no torch")])] == ["refused"]


def test_stages_have_no_holes_between_them() -> None:
    stages = [("loading", 1.0), ("measuring", 4.0)]
    assert spans(0.5, stages, 9.0) == (
        Span("starting", 0.5, 1.0),
        Span("loading", 1.0, 4.0),
        Span("measuring", 4.0, 9.0),
    )


def test_the_audience_hears_everything_in_order(tmp_path: Path) -> None:
    heard: list[object] = []

    class Listener:
        def begins(self, name: str, at_s: float) -> None:
            heard.append(name)

        def hears(self, stage: str, share: float | None, at_s: float) -> None:
            heard.append((stage, share))

        def ends(self, failure: str | None, at_s: float) -> None:
            heard.append(failure)

    def trial(hear: OnStage) -> Trial:
        hear("loading", 0.0)
        hear("loading", 0.5)
        return Trial(candidate("torchscript"), problem="no torch")

    (one,) = measure([Attempt("torchscript", trial)], Watch(Machine(tmp_path)), Listener())
    assert heard == ["torchscript", ("loading", 0.0), ("loading", 0.5), "no torch"]
    assert [span.stage for span in one.spans] == ["starting", "loading"]
