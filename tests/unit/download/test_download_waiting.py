from __future__ import annotations

import socket
from typing import Any, Callable

import pytest

from defectd.download import patience as patience_module
from defectd.download.errors import DownloadError, MayPass, Stopped
from defectd.download.patience import POLL_S, Patience


class Clock:
    """Stands in for the module `time`, and for the monotonic clock."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= POLL_S
        self.now_s += seconds

    def ns(self) -> int:
        return round(self.now_s * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience_module, "time", made)
    monkeypatch.setattr(patience_module, "monotonic_ns", made.ns)
    return made


def patience(stop: Callable[[], bool] = lambda: False, **options: Any) -> Patience:
    return Patience(stop, **{"total_s": 100.0, "stall_s": 20.0, "min_bytes_per_s": 1000.0, **options})


def arriving(clock: Clock, count: int, after_s: float) -> Callable[[], int]:
    """As a socket does: a time-out after POLL_S, until the bytes are there."""
    left = [after_s]

    def attempt() -> int:
        waited_s = min(left[0], POLL_S)
        clock.now_s += waited_s
        left[0] -= waited_s
        if left[0] > 0:
            raise socket.timeout
        return count

    return attempt


def test_a_stop_is_seen_soon_in_every_wait(clock):
    stop = lambda: clock.now_s >= 105.0  # noqa: E731
    for wait in (
        lambda one: one.pause(60.0),
        lambda one: one.until(arriving(clock, 1, 60.0), 60.0),
        lambda one: one.receive(arriving(clock, 1, 60.0), 10.0),
        lambda one: one.pace(10**6),
    ):
        clock.now_s = 100.0
        with pytest.raises(Stopped):
            wait(patience(stop, rate_bytes_per_s=1000.0))
        assert clock.now_s <= 105.0 + POLL_S


def test_the_total_time_ends_every_wait(clock):
    one = patience(total_s=5.0)
    with pytest.raises(DownloadError, match="not finished within 5 s") as caught:
        one.pause(60.0)
    assert caught.value.code == "timed_out"
    assert clock.now_s <= 105.0 + POLL_S
    assert one.left_s() <= 0


def test_silence_ends_with_a_timeout(clock):
    with pytest.raises(socket.timeout):
        patience().receive(arriving(clock, 1, 60.0), 10.0)
    assert clock.now_s == pytest.approx(110.0, abs=2 * POLL_S)


def test_a_drip_is_too_slow_after_the_stall_time(clock):
    one = patience()
    with pytest.raises(MayPass, match="20 s") as caught:
        for _ in range(100):
            one.receive(arriving(clock, 100, 1.0), 10.0)
    assert caught.value.code == "stalled"
    assert clock.now_s == pytest.approx(120.0, abs=1.5)


def test_just_fast_enough_is_fast_enough(clock):
    one = patience()
    for _ in range(90):
        one.receive(arriving(clock, 1000, 1.0), 10.0)


def test_time_that_this_side_takes_is_no_stall(clock):
    one = patience(total_s=10_000.0)
    for _ in range(100):
        one.receive(arriving(clock, 1, 0.0), 10.0)
        one.pause(30.0)


def test_the_rate_is_kept_over_time_and_not_saved_up(clock):
    one = patience(rate_bytes_per_s=1000.0)
    for _ in range(10):
        one.pace(1000)
    assert clock.now_s == pytest.approx(110.0, abs=0.2)
    one.pause(20.0)
    for _ in range(10):
        one.pace(1000)
    assert clock.now_s == pytest.approx(140.0, abs=0.4)


def test_no_rate_is_no_limit(clock):
    patience().pace(10**12)
    assert clock.now_s == 100.0
