"""Child processes of the tests import what the tests import."""

from __future__ import annotations

import os
from pathlib import Path

_TESTS = Path(__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(_TESTS.parent / "daemon"), str(_TESTS), *filter(None, [os.environ.get("PYTHONPATH", "")])]
)
