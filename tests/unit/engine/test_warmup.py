from __future__ import annotations

from dataclasses import asdict

import pytest

from defectd.engine.warmup import COLD_CALLS, WarmupLimits, WarmupResult, is_steady, warm_up
from defectd.inspection.events import WarmupReport


def run(durations_ms: list[float], limits: WarmupLimits) -> tuple[WarmupResult, list[str]]:
    """Warm up on given durations; what happened, in order."""
    remaining = iter(durations_ms)
    happened: list[str] = []

    def call() -> float:
        happened.append("call")
        return next(remaining)

    result = warm_up(call, lambda: happened.append("settle"), limits, lambda: happened.append("between"))
    return result, happened


def test_a_steady_engine_needs_the_minimum() -> None:
    result, _ = run([900.0, 80.0, 20.0] + [10.0] * 300, WarmupLimits(100, 300))
    assert result == WarmupResult(900.0, 100, True, 10.0, 10.0)


def test_the_cold_calls_do_not_count_as_steady_state() -> None:
    result, _ = run([900.0, 900.0, 900.0] + [10.0] * 30, WarmupLimits(10, 30))
    assert (result.iterations, result.steady, result.steady_p99_ms) == (10, True, 10.0)


def test_a_cooling_engine_is_warmed_on_until_its_medians_agree() -> None:
    falling = [100.0 - index for index in range(60)]
    result, _ = run([500.0] * 3 + falling + [40.0] * 300, WarmupLimits(20, 300))
    assert result.steady
    assert result.iterations > 3 + 60
    assert result.steady_p50_ms == 40.0


def test_an_engine_that_never_settles_stops_at_the_maximum_and_says_so() -> None:
    result, _ = run([100.0 * 1.1**index for index in range(30)], WarmupLimits(10, 30))
    assert (result.iterations, result.steady) == (30, False)


def test_the_layout_is_chosen_once_after_the_cold_calls_and_the_daemon_hears_from_us_between_all() -> None:
    result, happened = run([1.0] * 30, WarmupLimits(10, 30))
    assert happened == ["call", "between"] * COLD_CALLS + ["settle"] + ["call", "between"] * (
        result.iterations - COLD_CALLS
    )


@pytest.mark.parametrize(
    ("samples_ms", "steady"),
    [
        ([], False),
        ([10.0], False),
        ([10.0, 10.1], True),
        ([10.0] * 50 + [10.2] * 50, True),
        ([10.0] * 50 + [10.3] * 50, False),
        ([99.0] * 40 + [10.0] * 50 + [10.1] * 50, True),  # only the last hundred count
    ],
)
def test_steady_is_two_medians_within_two_percent(samples_ms: list[float], steady: bool) -> None:
    assert is_steady(samples_ms) is steady


@pytest.mark.parametrize(
    ("device", "minimum", "maximum", "limits"),
    [
        ("cuda", None, None, WarmupLimits(100, 300)),
        ("cpu", None, None, WarmupLimits(10, 30)),
        ("cpu", 5, 8, WarmupLimits(5, 8)),
        ("cpu", 50, None, WarmupLimits(50, 50)),
        ("cuda", 0, 0, WarmupLimits(COLD_CALLS + 1, COLD_CALLS + 1)),
    ],
)
def test_limits_have_a_default_per_device(
    device: str, minimum: int | None, maximum: int | None, limits: WarmupLimits
) -> None:
    assert WarmupLimits.of(device, minimum, maximum) == limits


def test_the_result_is_what_the_wire_calls_a_warmup_report() -> None:
    result, _ = run([1.0] * 30, WarmupLimits(10, 30))
    assert WarmupReport(**result.to_json()).model_dump() == asdict(result)
