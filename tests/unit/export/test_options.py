from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from defectd.export.options import ExportOptions, bundle_name, bundle_version


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/models/pcb.pt", "pcb"),
        ("/runs/detect/train3/weights/best.pt", "train3"),
        ("/models/deeppcb/best.pt", "deeppcb"),
        ("/models/grüße an alle/last.pt", "gr--e-an-alle"),
        ("/models/.hidden/last.pt", "hidden"),
        ("/best.pt", "model"),
    ],
)
def test_a_bundle_is_named_after_its_checkpoint_or_its_training(path: str, expected: str) -> None:
    assert bundle_name(ExportOptions(), Path(path)) == expected


def test_what_is_asked_for_wins() -> None:
    options = ExportOptions(name="line-3", version="2.0")
    assert bundle_name(options, Path("/models/pcb.pt")) == "line-3"
    assert bundle_version(options, datetime.now(timezone.utc)) == "2.0"


def test_the_version_is_the_moment() -> None:
    assert bundle_version(ExportOptions(), datetime(2026, 1, 31, 7, 5, 9, tzinfo=timezone.utc)) == "2026.01.31-070509"
