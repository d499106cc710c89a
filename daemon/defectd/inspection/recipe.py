"""The recipe: which classes matter, how sure the model must be, and where on the unit it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DefectRule:
    """One class that matters. More than `allowed_count` detections with at least `min_confidence` and
    `min_area_px` fail the unit; a detection from `review_from` up to `min_confidence` asks for a person."""

    class_name: str
    code: str
    min_confidence: float
    review_from: float | None = None
    min_area_px: float = 0.0
    allowed_count: int = 0
    category: str = ""
    description: str = ""
    priority: int = 1


@dataclass(frozen=True)
class Region:
    """A polygon in pixels of the full frame that includes or excludes boxes by their centre. camera None: all."""

    include: bool
    polygon: tuple[tuple[float, float], ...]
    camera: str | None = None

    def holds(self, points: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """(N, 2) x, y -> (N,) True inside. Even-odd rule: W. R. Franklin's PNPOLY."""
        x, y = points[:, 0], points[:, 1]
        inside = np.zeros(len(points), np.bool_)
        previous = self.polygon[-1]
        for corner in self.polygon:
            (x1, y1), (x2, y2) = previous, corner
            crosses = (y1 > y) != (y2 > y)
            if y1 != y2:
                inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
            previous = corner
        return inside


@dataclass(frozen=True)
class Recipe:
    """Product type: rules and regions, with a revision."""

    name: str
    revision: str
    rules: tuple[DefectRule, ...]
    regions: tuple[Region, ...] = ()

    @property
    def lowest_confidence(self) -> float:
        """Below this no detection matters; the engine need not report it."""
        return min(rule.min_confidence if rule.review_from is None else rule.review_from for rule in self.rules)

    def unknown_classes(self, names: tuple[str, ...]) -> list[str]:
        """Classes of the recipe that a model with *names* cannot see."""
        return [rule.class_name for rule in self.rules if rule.class_name not in names]
