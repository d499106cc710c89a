"""What the daemon orders, and what any engine offers, whatever runs the model. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Protocol

import numpy as np
from numpy.typing import NDArray

from defectd.engine.golden import GoldenOrder
from defectd.errors import ModelError
from defectd.inspection.detections import Detections, EngineTimings
from defectd.inspection.yolo import Thresholds
from defectd.models.metadata import ModelMetadata, declared_metadata, parse_engine_metadata, parse_metadata
from defectd.workers.child import Unusable
from defectd.workers.ring import MAX_DETECTIONS

RUNTIMES = ("torchscript", "compiled", "tensorrt", "torch-tensorrt")
"""What can run a network. `compiled` is torch.compile of a `.pt2`, `tensorrt` a plan, `torch-tensorrt` TorchScript with
plans inside."""


@dataclass(frozen=True)
class EngineOrder:
    """The `engine` part of CONFIGURE. `device` is auto, cuda or cpu; `precision`, fp16 or fp32, is for CUDA: a CPU
    always computes in fp32. `threads` None leaves the choice to torch; `keep_warm_s` None or 0 is off.

    `metadata` is what a manifest says of the network: names, input_hw, stride, end2end; None: the file says it.
    `cache` is a directory for what compilers make of the file; None: it is made anew at each start. `golden` is what
    the engine must answer before it serves; None: nothing is known. `variant` was the fastest of its runtime when it
    was last measured on this device; None: measure.
    """

    path: Path
    sha256: str
    device: str
    precision: str
    thresholds: Thresholds
    names: tuple[str, ...]
    warmup_min: int | None
    warmup_max: int | None
    keep_warm_s: float | None
    threads: int | None
    runtime: str = "torchscript"
    metadata: dict[str, Any] | None = None
    cache: Path | None = None
    golden: GoldenOrder | None = None
    variant: str | None = None

    @classmethod
    def of(cls, body: dict[str, Any]) -> EngineOrder:
        """From the JSON of CONFIGURE. Raises Unusable."""
        try:
            thresholds = Thresholds(
                confidence=float(body["confidence"]),
                nms_iou=float(body.get("nms_iou", 0.7)),
                max_detections=min(int(body.get("max_detections", MAX_DETECTIONS)), MAX_DETECTIONS),
            )
            order = cls(
                path=Path(body["path"]),
                sha256=str(body["sha256"]).lower(),
                device=one_of(body, "device", ("auto", "cuda", "cpu")),
                precision=one_of(body, "precision", ("fp16", "fp32")),
                thresholds=thresholds,
                names=tuple(body.get("names") or ()),
                warmup_min=body.get("warmup_min"),
                warmup_max=body.get("warmup_max"),
                keep_warm_s=body.get("keep_warm_s") or None,
                threads=body.get("threads"),
                runtime=one_of({"runtime": "torchscript", **body}, "runtime", RUNTIMES),
                metadata=_object(body, "metadata"),
                cache=Path(body["cache"]) if body.get("cache") else None,
                variant=body.get("variant"),
                golden=GoldenOrder.of(body["golden"]) if _object(body, "golden") else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Unusable(f"engine: bad configuration: {type(error).__name__}: {error}") from error
        return order


def one_of(body: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    """The value of *key*. Raises KeyError, or ValueError if it is none of those that are *allowed*."""
    value = body[key]
    if value not in allowed:
        raise ValueError(f"{key}: expected {', '.join(allowed)}, got {value!r}")
    return str(value)


def _object(body: dict[str, Any], key: str) -> dict[str, Any] | None:
    value = body.get(key)
    if not (value is None or isinstance(value, dict)):
        raise ValueError(f"{key}: expected an object, got {value!r}")
    return value


@dataclass(frozen=True)
class VerifiedModel:
    """The bytes that were hashed: these, not the file, are what is loaded."""

    data: bytes
    metadata: ModelMetadata

    @classmethod
    def read(cls, order: EngineOrder) -> VerifiedModel:
        """Read and verify the ordered file. Raises Unusable."""
        try:
            data = order.path.read_bytes()
            metadata = _metadata(order, data)
        except OSError as error:
            raise Unusable(f"{order.path}: {error.strerror}") from error
        except ModelError as error:
            raise Unusable(str(error)) from error
        if metadata.sha256 != order.sha256:
            raise Unusable(
                f"{order.path}: sha256 is {metadata.sha256}, expected {order.sha256}: the file was replaced; "
                "restart the daemon if that was intended"
            )
        if order.names and order.names != metadata.names:
            raise Unusable(f"{order.path}: its classes are {metadata.names}, expected {order.names}")
        return cls(data, metadata)


def _metadata(order: EngineOrder, data: bytes) -> ModelMetadata:
    """What is known of the network before anything is loaded. Raises ModelError."""
    if order.metadata is not None:
        return declared_metadata(order.metadata, data, order.path)
    if order.runtime == "tensorrt":
        return parse_engine_metadata(data, order.path)[0]
    if order.runtime == "compiled":
        raise ModelError(f"{order.path}: a .pt2 does not tell its classes and its input; serve it from its bundle")
    return parse_metadata(data, order.path)


class Engine(Protocol):
    """A loaded model on a device; used by one thread."""

    runtime: str  # for example torchscript-fp16-cuda
    device: str  # cuda or cpu
    device_name: str

    @property
    def variant(self) -> str:
        """Of its program: what `settle` found to be the fastest."""
        ...

    def infer(self, pixels: NDArray[np.uint8]) -> tuple[Detections, EngineTimings]:
        """Find defects in *pixels* (height, width, 3) uint8 BGR; boxes are in its pixels.

        Raises NonFiniteOutput; ValueError, RuntimeError or MemoryError, of which `faults.classify` tells the meaning.
        """
        ...

    def judge_by(self, thresholds: Thresholds) -> None:
        """Use other thresholds than the order's from now on."""
        ...

    def settle(self, breathe: Callable[[], None]) -> list[str]:
        """After the cold calls, before the rest of the warm-up: choose what is fastest on this device. What was
        chosen, in words. Calls *breathe* now and then."""
        ...

    def check(self) -> None:
        """Raises RuntimeError if the device can go on no longer."""
        ...
