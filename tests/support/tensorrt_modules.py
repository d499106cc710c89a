"""The modules that speak to TensorRT, imported anew against a fake release of it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Iterator

import pytest

from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.models.metadata import declared_metadata
from support import fake_tensorrt

INPUT_HW, NAMES = (64, 96), ("open", "short", "spur")
Import = Callable[..., Any]


def imported(version: str, name: str = "tensorrt") -> ModuleType:
    """`defectd.engine.<name>` on that release; `forget` when done."""
    forget()
    sys.modules["tensorrt"] = fake_tensorrt.release(version)
    return importlib.import_module(f"defectd.engine.{name}")


def forget() -> None:
    """Leave nothing of the fake for others to import."""
    for name in ("tensorrt", "defectd.engine.tensorrt", "defectd.engine.tensorrt_build"):
        sys.modules.pop(name, None)


@pytest.fixture
def engine_on() -> Iterator[Import]:
    """`imported`, undone after the test."""
    yield imported
    forget()


def ordered(data: bytes, **metadata: Any) -> tuple[EngineOrder, VerifiedModel]:
    """An order for a plan from a bundle, and its bytes as if they had been verified."""
    declared = {"names": list(NAMES), "input_hw": list(INPUT_HW), "stride": 32, "end2end": False, **metadata}
    body = {"path": "/bundle/model.plan", "sha256": "0" * 64, "device": "cuda", "precision": "fp16"}
    order = EngineOrder.of({**body, "confidence": 0.25, "runtime": "tensorrt", "metadata": declared})
    return order, VerifiedModel(data, declared_metadata(declared, data, Path("model.plan")))
