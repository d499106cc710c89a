"""What a model saw in one frame, columnar, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUDA_EVENT = "cuda_event"
MONOTONIC = "monotonic"


@dataclass(frozen=True)
class Detections:
    """N boxes, best first: xyxy (N, 4) float32 in pixels of the full frame, scores (N,) float32 in 0..1,
    class_ids (N,) int32."""

    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def none(cls) -> Detections:
        """No boxes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True)
class EngineTimings:
    """Milliseconds per stage inside the engine worker; `inference_clock` is CUDA_EVENT or MONOTONIC."""

    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    inference_clock: str
