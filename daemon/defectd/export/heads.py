"""How far a format's raw head is from the original's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from defectd.export.runners import run_module

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """The original's output for one input. For an end-to-end head also what it chose from: `dense` (anchors,
    4 + classes), corners in pixels and a score per class."""

    output: Floats
    dense: Floats | None


@dataclass(frozen=True)
class Difference:
    """Mean square and largest, over all numbers of a head; coordinates in pixels, scores in 0..1."""

    mse: float
    largest: float


class Reference:
    """The original network. An end-to-end head picks its rows by score; while it runs here, it is asked for what it
    picks from."""

    def __init__(self, module: torch.nn.Module) -> None:
        layers: Any = module.model
        head = layers[-1]
        self.forward = run_module(module)
        self._chosen_from: Floats | None = None
        if getattr(head, "end2end", False):
            choose = head.postprocess

            def remember(candidates: torch.Tensor, *rest: Any) -> torch.Tensor:
                self._chosen_from = candidates[0].float().numpy()
                return choose(candidates, *rest)  # type: ignore[no-any-return]

            head.postprocess = remember

    def answer(self, tensor: Floats) -> Answer:
        """For an input (1, 3, height, width)."""
        output = self.forward(tensor)
        return Answer(output, self._chosen_from)


def difference(expected: Answer, output: Floats) -> Difference:
    """Between what the original answered and *output*; infinite where the shapes differ, or a number is none."""
    if expected.output.shape != output.shape or not np.isfinite(output).all():
        return Difference(float("inf"), float("inf"))
    gaps = (
        expected.output.astype(np.float64) - output
        if expected.dense is None
        else _gaps_of_rows(expected.output[0].astype(np.float64), expected.dense, output[0])
    )
    return Difference(float(np.square(gaps).mean()), float(np.abs(gaps).max()))


def worst(differences: list[Difference]) -> Difference:
    """The largest of each."""
    return Difference(max(one.mse for one in differences), max(one.largest for one in differences))


def _gaps_of_rows(expected: NDArray[np.float64], dense: Floats, rows: Floats) -> NDArray[np.float64]:
    """(N, 6): of each row its box and its score to the anchor it must come from, and its score to the one of the same
    rank. Row by row the two outputs cannot be compared: rounding swaps rows of nearly the same score."""
    gaps = np.zeros(rows.shape)
    gaps[:, 5] = np.sort(expected[:, 4]) - np.sort(rows[:, 4].astype(np.float64))
    class_count = dense.shape[1] - 4
    for index, row in enumerate(rows):
        label = int(row[5])
        if not 0 <= label < class_count or label != row[5]:
            return np.full(rows.shape, np.inf)
        candidates = dense[:, [0, 1, 2, 3, 4 + label]].astype(np.float64) - row[:5]
        gaps[index, :5] = candidates[int(np.square(candidates).sum(axis=1).argmin())]
    return gaps
