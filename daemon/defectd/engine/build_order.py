"""What the builder process is asked for. No torch, no TensorRT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from defectd.engine.base import one_of
from defectd.workers.child import Unusable

Say = Callable[[str, Optional[float]], None]
"""What is being done, and the share of it that is done: 0..1, None if unknown."""

KINDS = ("tensorrt", "torch-tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class BuildOrder:
    """`kind` tensorrt makes a plan of an ONNX file, torch-tensorrt compiles a TorchScript file. `workspace_mb` caps
    what one layer may use while kernels are tried, and later. `calibration` names pictures, for int8; `dla` is the
    number of an accelerator core, None the GPU; `timing_cache` keeps measurements from one build to the next."""

    kind: str
    source: Path
    out: Path
    precision: str
    workspace_mb: int
    input_hw: tuple[int, int]
    timing_cache: Path | None = None
    calibration: tuple[Path, ...] = ()
    dla: int | None = None

    @classmethod
    def of(cls, body: dict[str, Any]) -> BuildOrder:
        """From JSON. Raises Unusable."""
        try:
            height, width = (_at_least(1, side) for side in body["input_hw"])
            order = cls(
                kind=one_of(body, "kind", KINDS),
                source=Path(body["source"]),
                out=Path(body["out"]),
                precision=one_of(body, "precision", PRECISIONS),
                workspace_mb=_at_least(1, body["workspace_mb"]),
                input_hw=(height, width),
                timing_cache=Path(body["timing_cache"]) if body.get("timing_cache") else None,
                calibration=tuple(Path(path) for path in body.get("calibration") or ()),
                dla=None if body.get("dla") is None else _at_least(0, body["dla"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Unusable(f"build: bad order: {type(error).__name__}: {error}") from error
        return order


def _at_least(least: int, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"expected a whole number from {least} on, got {value!r}")
    return value
