from __future__ import annotations

import errno

import pytest

from defectd.rollout import injection


def test_without_the_variable_nothing_happens(monkeypatch):
    monkeypatch.delenv(injection.FAULT, raising=False)
    injection.reach("shadow")


def test_it_strikes_in_its_state_alone_and_once(monkeypatch, tmp_path):
    monkeypatch.setenv(injection.FAULT, "shadow:enospc")
    monkeypatch.setenv(injection.ONCE, str(tmp_path / "struck"))
    injection.reach("golden")
    with pytest.raises(OSError) as caught:
        injection.reach("shadow")
    assert caught.value.errno == errno.ENOSPC
    injection.reach("shadow")


def test_a_hang_is_noticed_sooner_where_a_test_waits_for_it(monkeypatch):
    assert injection.hang_limit_s(180.0) == 180.0
    monkeypatch.setenv(injection.HANG_S, "3")
    assert injection.hang_limit_s(180.0) == 3.0
