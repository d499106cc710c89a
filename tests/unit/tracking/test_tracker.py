"""A station without the tracker's package is told so, and what to do, before anything starts."""

from __future__ import annotations

import sys

import pytest

from defectd.errors import StartupError
from defectd.tracking.tracker import SimilariTracker, why_no_tracker


def test_what_is_missing_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "similari", None)  # as Python marks what cannot be imported
    assert "pip install 'defectd[track]'" in why_no_tracker()
    with pytest.raises(StartupError, match=r"camera\.track.*pip install 'defectd\[track\]'"):
        SimilariTracker(0.2, 5)
