"""How much longer."""

from __future__ import annotations

import pytest

from defectd.modelbench.progress import Estimate, about


def test_a_stage_that_tells_its_share_is_believed() -> None:
    estimate = Estimate(["one"])
    estimate.begin(0.0)
    estimate.see("batch", 0.0, 20.0)
    estimate.see("batch", 0.5, 30.0)
    assert estimate.left_s(30.0) == pytest.approx(10.0)


def test_the_second_runtime_is_expected_to_take_what_the_first_took() -> None:
    estimate = Estimate(["one", "two"])
    estimate.begin(0.0)
    for at_s, stage in enumerate(("loading", "warming", "golden", "measuring", "batch")):
        estimate.see(stage, 0.0, 10.0 * at_s)
    estimate.end(50.0)
    assert estimate.left_s(50.0) == pytest.approx(50.0)
    estimate.begin(50.0)
    assert estimate.left_s(55.0) == pytest.approx(45.0)
    assert estimate.share == pytest.approx(0.5)


def test_time_that_passes_without_news_is_taken_off_and_never_below_nothing() -> None:
    estimate = Estimate(["one"])
    estimate.begin(0.0)
    assert estimate.left_s(0.0) > estimate.left_s(3.0) >= estimate.left_s(1000.0) > 0


def test_a_build_comes_before_everything_else() -> None:
    estimate = Estimate(["tensorrt"])
    estimate.begin(0.0)
    assert estimate.see("building the plan", 0.5, 100.0)
    assert estimate.left_s(200.0) > 100.0
    assert estimate.see("loading", 0.0, 200.0)
    assert estimate.left_s(200.0) < 60.0


def test_a_failure_teaches_nothing_about_the_others() -> None:
    estimate = Estimate(["one", "two"])
    before_s = Estimate(["two"])
    before_s.begin(0.0)
    estimate.begin(0.0)
    estimate.end(0.1, completely=False)
    estimate.begin(0.1)
    assert estimate.left_s(0.1) == pytest.approx(before_s.left_s(0.0))


@pytest.mark.parametrize(("seconds", "words"), [(4, "a few seconds"), (44, "about 40 s"), (200, "about 3 min")])
def test_an_estimate_pretends_nothing(seconds: float, words: str) -> None:
    assert about(seconds) == words
