"""Child processes of the tests import what the tests import; no property has a time limit on a busy machine."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

_TESTS = Path(__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(_TESTS.parent / "daemon"), str(_TESTS), *filter(None, [os.environ.get("PYTHONPATH", "")])]
)
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
