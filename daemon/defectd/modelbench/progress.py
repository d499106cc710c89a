"""How much longer: stages with a share done, and what stages took so far. Pure; the caller brings the time."""

from __future__ import annotations

from typing import Sequence

STAGES = ("building", "loading", "warming", "golden", "measuring", "batch")
"""Of a trial; whatever a builder says before the trial itself is "building"."""
_GUESS_S = {"building": 0.0, "loading": 8.0, "warming": 5.0, "golden": 3.0, "measuring": 6.0, "batch": 15.0}
_WORDS = {
    "building": "building",
    "loading": "loading",
    "warming": "warming up",
    "golden": "golden pictures",
    "measuring": "measuring",
    "batch": "batches",
}
_ENOUGH = 0.05
"""Of a stage, before its own pace is believed."""


class Estimate:
    """Of a bench of *names*, one after the other; guesses are scaled by what finished stages really took."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._trial = -1
        self._stage, self._share, self._stage_began_s = "loading", 0.0, 0.0
        self._took_s: dict[str, list[float]] = {}

    def begin(self, at_s: float) -> None:
        """The next one begins."""
        self._trial += 1
        self._stage, self._share, self._stage_began_s = "loading", 0.0, at_s

    def see(self, stage: str, share: float | None, at_s: float) -> bool:
        """What the trial, or the builder before it, says. True if it is another stage than before."""
        stage = stage if stage in STAGES else STAGES[0]
        changed = stage != self._stage
        if changed:
            if stage != "building":  # that one comes before all others, and not always
                self._took_s.setdefault(self._stage, []).append(at_s - self._stage_began_s)
            self._stage_began_s = at_s
        self._stage, self._share = stage, min(1.0, max(0.0, share or 0.0))
        return changed

    def end(self, at_s: float, completely: bool = True) -> None:
        """It is over; one that failed halfway teaches nothing."""
        if completely:
            self._took_s.setdefault(self._stage, []).append(at_s - self._stage_began_s)
        self._stage, self._share, self._stage_began_s = STAGES[-1], 1.0, at_s

    @property
    def share(self) -> float:
        """Of the whole bench that is done, 0..1, by trials and their stages."""
        weights = [_GUESS_S[stage] for stage in STAGES]
        done = sum(weights[: STAGES.index(self._stage)]) + self._share * _GUESS_S[self._stage]
        return min(1.0, (max(0, self._trial) + done / sum(weights)) / max(1, len(self._names)))

    def left_s(self, at_s: float) -> float:
        """Seconds, as far as can be told."""
        now = STAGES.index(self._stage)
        passed_s = at_s - self._stage_began_s
        if self._share >= _ENOUGH:
            rest_s = passed_s / self._share * (1 - self._share)
        else:
            rest_s = max(0.0, self._expect_s(self._stage) * (1 - self._share) - passed_s)
        later_s = sum(self._expect_s(stage) for stage in STAGES[now + 1 :])
        trials = max(0, len(self._names) - self._trial - 1)
        return rest_s + later_s + trials * sum(self._expect_s(stage) for stage in STAGES)

    def _expect_s(self, stage: str) -> float:
        took_s = self._took_s.get(stage)
        if took_s:
            return sum(took_s) / len(took_s)
        known = [(sum(took) / len(took), _GUESS_S[name]) for name, took in self._took_s.items() if _GUESS_S[name]]
        guessed_s = sum(guess for _, guess in known)
        pace = sum(took for took, _ in known) / guessed_s if guessed_s else 1.0
        return _GUESS_S[stage] * min(5.0, max(0.2, pace))


def words(stage: str) -> str:
    """A stage for a person."""
    return _WORDS.get(stage, stage)


def about(seconds: float) -> str:
    """A duration that pretends nothing: about 5 s, about 40 s, about 3 min."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} s"
    return f"about {seconds / 60:.0f} min"
