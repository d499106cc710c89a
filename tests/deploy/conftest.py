"""What is tested here lies in deploy/, which is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
for folder in (DEPLOY, DEPLOY / "plugins" / "filter"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

# The controller's side needs tomllib; the station's side must run on Python 3.8.
collect_ignore = [] if sys.version_info >= (3, 11) else ["test_wheelhouse.py", "test_filters.py", "test_rehearsal.py"]


@pytest.fixture
def places(tmp_path):
    from station.places import Places

    for folder in ("run", "etc/defectd", "opt/defectd/releases", "opt/defectd/deploy", "etc/systemd/system"):
        (tmp_path / folder).mkdir(parents=True)
    return Places(tmp_path)


@pytest.fixture
def facts():
    """Of a Jetson Orin with JetPack 6, fit."""
    return {
        "machine": "aarch64", "python": [3, 10, 12], "glibc": "2.35", "systemd": 249, "jetpack": 6, "l4t": "36.4.3",
        "free_mb": 20_000, "memory_mb": 7_600, "can_install": None, "now_s": 1_795_000_000.0, "compiler": True,
        "packages": {"numpy": "1.21.5", "cv2": "4.8.0", "torch": "", "tensorrt": ""},
    }  # fmt: skip
