"""Which program an engine keeps, with programs that take as long as they are told."""

from __future__ import annotations

import time
from typing import Callable, Sequence

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from defectd.engine import fastest  # noqa: E402 - it imports torch
from defectd.engine.fastest import agree, fastest_of  # noqa: E402

pytestmark = pytest.mark.torch


class Timed:
    """A program that sums its input, *change* added, in *ms*."""

    graphable = False

    def __init__(self, variant: str, ms: float, change: float = 0.0, error: Exception | None = None) -> None:
        self.variant, self.input = variant, torch.zeros(1, 3, 8, 8)
        self._ms, self._change, self._error = ms, change, error

    def forward(self) -> torch.Tensor:
        if self._error is not None:
            raise self._error
        time.sleep(self._ms / 1000)
        return self.input.mean(dim=1) + self._change


class Shelf:
    """A runtime of programs that are made already."""

    name = "shelf"

    def __init__(self, *programs: Timed) -> None:
        self._programs = {program.variant: program for program in programs}
        self.asked: list[str] = []

    def variants(self) -> Sequence[str]:
        return list(self._programs)

    def program(self, variant: str, batch: int = 1) -> Timed:
        self.asked.append(variant)
        return self._programs[variant]

    def notes(self) -> list[str]:
        return []


def settle(*programs: Timed, breathe: Callable[[], None] = lambda: None) -> tuple[str, list[str]]:
    chosen, notes = fastest_of(programs[0], Shelf(*programs), lambda: None, breathe)
    return chosen.variant, notes


def test_the_fastest_is_kept_and_all_figures_are_told() -> None:
    breaths: list[int] = []
    programs = [Timed("plain", 3), Timed("slow", 6), Timed("fast", 1)]
    chosen, notes = settle(*programs, breathe=lambda: breaths.append(1))
    assert chosen == "fast"
    assert notes[0].startswith("layout fast (plain 3.")
    assert "slow 6." in notes[0]
    assert breaths


def test_a_program_that_answers_otherwise_is_not_kept_however_fast_it_is() -> None:
    chosen, notes = settle(Timed("plain", 3), Timed("wrong", 0, change=0.5))
    assert chosen == "plain"
    assert notes == ["wrong not taken: it answers otherwise"]


def test_a_program_that_fails_is_not_kept_and_the_next_one_is_tried() -> None:
    chosen, notes = settle(Timed("plain", 3), Timed("bad", 0, error=RuntimeError("no such operator")), Timed("good", 1))
    assert chosen == "good"
    assert "bad not taken: RuntimeError: no such operator" in notes


def test_without_memory_for_a_second_program_the_first_one_stays() -> None:
    programs = [Timed("plain", 1), Timed("big", 0, error=RuntimeError("CUDA out of memory")), Timed("bigger", 0)]
    shelf = Shelf(*programs)
    chosen, notes = fastest_of(programs[0], shelf, lambda: None, lambda: None)
    assert chosen is programs[0]
    assert shelf.asked == ["big"]
    assert notes == ["big not taken: RuntimeError: CUDA out of memory"]


def test_a_lost_device_ends_it() -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        settle(Timed("plain", 1), Timed("deadly", 0, error=RuntimeError("CUDA error: an illegal memory access")))


def test_measuring_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "_BUDGET_NS", 0)
    chosen, notes = settle(Timed("plain", 3), Timed("faster", 1), Timed("fastest", 0))
    assert chosen == "faster"  # one is always measured
    assert notes[-1] == "not measured for lack of time: fastest"


def test_a_runtime_with_one_variant_has_nothing_to_measure() -> None:
    assert settle(Timed("plain", 1)) == ("plain", [])


def test_rounding_is_no_disagreement() -> None:
    assert agree(Timed("one", 0), Timed("other", 0, change=1e-3), lambda: None)
