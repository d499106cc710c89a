"""The figures of a window, against the plainest way to compute them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.clock import NS_PER_S
from defectd.inspection.events import TimingMs
from defectd.telemetry.latency import WHOLE, Figures, Latencies, LatencyWindow, Series

MILLISECONDS = st.floats(0, 10_000)


@given(st.lists(MILLISECONDS, min_size=1, max_size=400))
def test_a_percentile_was_measured_and_not_more_than_its_share_lies_below(samples_ms):
    figures = Figures.of(samples_ms)
    for share, found_ms in ((0.5, figures.p50_ms), (0.95, figures.p95_ms), (0.99, figures.p99_ms)):
        assert found_ms in samples_ms
        assert sum(sample_ms < found_ms for sample_ms in samples_ms) <= share * len(samples_ms)
        assert sum(sample_ms <= found_ms for sample_ms in samples_ms) > math.floor(share * len(samples_ms))
    assert figures.p50_ms <= figures.p95_ms <= figures.p99_ms <= figures.max_ms == max(samples_ms)
    assert figures.count == len(samples_ms)


def test_of_a_hundred_units_the_slowest_is_the_p99():
    assert Figures.of([*range(100)]) == Figures(100, p50_ms=50, p95_ms=95, p99_ms=99, max_ms=99, jitter_ms=1)


def test_jitter_is_the_mean_step_from_one_unit_to_the_next():
    assert Figures.of([10.0, 30.0, 10.0, 30.0]).jitter_ms == 20
    assert Figures.of([10.0, 10.0, 30.0, 30.0]).jitter_ms == pytest.approx(20 / 3)
    assert Figures.of([10.0]).jitter_ms == 0


def test_what_is_exactly_at_the_deadline_is_in_time():
    assert Figures.of([199.0, 200.0, 200.1], deadline_ms=200).late == 1
    assert Figures.of([500.0]).late is None


def test_without_units_there_are_no_figures():
    assert Figures.of([]) is None
    assert LatencyWindow().figures(0) is None


@given(st.lists(st.tuples(st.integers(0, 20), MILLISECONDS), max_size=100), st.integers(0, 200))
def test_the_window_holds_what_came_within_it(steps, pause_s):
    window, now_s, units = LatencyWindow(window_s=60), 0, []
    for step_s, ms in steps:
        now_s += step_s
        window.add(ms, now_s * NS_PER_S)
        units.append((now_s, ms))
    now_s += pause_s
    assert window.samples_ms(now_s * NS_PER_S) == [ms for at_s, ms in units if at_s > now_s - 60]


def test_a_line_that_is_too_fast_for_the_window_shortens_it():
    window = LatencyWindow(window_s=60)
    for index in range(13_000):
        window.add(float(index), index)
    figures = window.figures(13_000)
    assert (figures.count, figures.max_ms, min(window.samples_ms(13_000))) == (12_000, 12_999, 1000)


def test_every_stage_that_was_reached_has_its_figures_and_the_deadline_is_of_the_whole():
    latencies = Latencies(deadline_ms=50)
    reached = TimingMs(queue=1, preprocess=2, inference=30, postprocess=3, capture_to_verdict=60)
    lost = TimingMs(queue=1, preprocess=None, inference=None, postprocess=None, capture_to_verdict=40)
    latencies.add_unit("top", "boards 3", reached, 0)
    latencies.add_unit("top", "boards 3", lost, 1)
    figures = latencies.figures(2)
    assert {series.stage: found.count for series, found in figures.items()} == {
        "queue": 2, "preprocess": 1, "inference": 1, "postprocess": 1, WHOLE: 2,
    }  # fmt: skip
    assert {series.stage: found.late for series, found in figures.items() if found.late is not None} == {WHOLE: 1}


def test_cameras_and_models_do_not_mix():
    latencies = Latencies(deadline_ms=50)
    for camera, model, ms in (("top", "old", 10.0), ("top", "new", 20.0), ("side", "new", 30.0)):
        latencies.add(camera, model, WHOLE, ms, 0)
    figures = latencies.figures(1)
    assert {(key.camera, key.model): found.max_ms for key, found in figures.items()} == {
        ("top", "old"): 10, ("top", "new"): 20, ("side", "new"): 30,
    }  # fmt: skip


def test_a_model_that_was_replaced_is_forgotten_after_a_minute():
    latencies = Latencies(deadline_ms=50, window_s=60)
    latencies.add("top", "old", WHOLE, 10.0, 0)
    latencies.add("top", "new", WHOLE, 10.0, 59 * NS_PER_S)
    assert len(latencies.figures(59 * NS_PER_S)) == 2
    assert list(latencies.figures(60 * NS_PER_S)) == [Series("top", "new", WHOLE)]
    latencies.add("top", "old", WHOLE, 10.0, 61 * NS_PER_S)
    assert len(latencies.figures(61 * NS_PER_S)) == 2
