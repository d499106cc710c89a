"""What a count proves, and what may be chance. Pure; each formula names its source."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Iterable

from defectd.engine.choice import percentile

Z_95 = 1.959963984540054
"""Of the normal distribution, two-sided 95 %."""
LEAST_UNITS = 100
"""Fewer say nothing about a 99th percentile, or about a share of one percent."""
_SURE_UNITS = 1000
"""From here on a 99th percentile is taken at its word."""
_EARLY_PAIRS = 30
_LATENCIES_KEPT = 5000


def wilson(hits: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """The interval (0..1) of a share of which *hits* of *trials* were seen: Wilson's score interval (Wilson 1927).

    (0, 1) without trials. Raises ValueError unless 0 <= hits <= trials.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"expected 0 <= hits <= trials, got {hits} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    share, weight = hits / trials, z * z / trials
    centre = share + weight / 2
    reach = z * math.sqrt((share * (1 - share) + weight / 4) / trials)
    low = 0.0 if hits == 0 else max(0.0, (centre - reach) / (1 + weight))
    high = 1.0 if hits == trials else min(1.0, (centre + reach) / (1 + weight))
    return low, high


def mcnemar_mid_p(one: int, other: int) -> float:
    """The two-sided p of McNemar's test: *one* and *other* count the pairs that differ, by direction; those that agree
    do not matter. Exact, with half the weight of the outcome itself (mid-p), which makes it less timid and keeps its
    level in nearly all cases (Fagerland, Lydersen, Laake 2013). 1.0 if none differs."""
    if min(one, other) < 0:
        raise ValueError(f"expected counts, got {one} and {other}")
    trials, least = one + other, min(one, other)
    ways = math.lgamma(trials + 1) - math.lgamma(least + 1) - math.lgamma(trials - least + 1)
    outcome = term = math.exp(ways - trials * math.log(2))
    rarer = 0.0
    for hits in range(least, 0, -1):  # outwards from the largest term: a million pairs take no time
        term *= hits / (trials - hits + 1)
        rarer += term
        if term <= rarer * 1e-17:
            break
    return min(1.0, 2 * rarer + outcome)


def chance_difference(first: float, first_trials: int, second: float, second_trials: int, sigmas: float) -> float:
    """By how much two shares (0..1) of so many trials may differ by chance: *sigmas* standard errors of the pooled
    share, and the correction for continuity (Yates 1934), without which one hit is too often a proof.

    Raises ValueError if either has no trials.
    """
    if min(first_trials, second_trials) < 1:
        raise ValueError(f"expected trials, got {first_trials} and {second_trials}")
    pooled = (first * first_trials + second * second_trials) / (first_trials + second_trials)
    step = 1 / first_trials + 1 / second_trials
    return sigmas * math.sqrt(max(0.0, pooled * (1 - pooled)) * step) + step / 2


def prove_share_above(share: float, found: int, units: int) -> bool:
    """Whether *found* of *units* show that more than *share* are so: by Wilson's bound, never with fewer than 30."""
    return units >= _EARLY_PAIRS and wilson(found, units)[0] > share


class Pairs:
    """McNemar's table: units that two models passed or failed, the candidate and the one that serves."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[bool, bool]] = Counter()

    def add(self, served_fails: bool, candidate_fails: bool) -> None:
        """One more."""
        self._counts[served_fails, candidate_fails] += 1

    @property
    def units(self) -> int:
        """All pairs."""
        return sum(self._counts.values())

    @property
    def stricter(self) -> int:
        """How many only the candidate fails."""
        return self._counts[False, True]

    @property
    def milder(self) -> int:
        """How many only the serving one fails."""
        return self._counts[True, False]

    @property
    def p(self) -> float:
        """McNemar's mid-p: how likely a shift like this one is if there is none."""
        return mcnemar_mid_p(self.stricter, self.milder)

    def prove_disagreement_above(self, share: float) -> bool:
        """See prove_share_above."""
        return prove_share_above(share, self.stricter + self.milder, self.units)

    def numbers(self) -> dict[str, int | float | None]:
        """For the report; `shift_permille` is above 0 if the candidate fails more."""
        return {
            "units": self.units,
            "both_passed": self._counts[False, False],
            "both_failed": self._counts[True, True],
            "only_candidate_failed": self.stricter,
            "only_served_failed": self.milder,
            "disagree_permille": permille(self.stricter + self.milder, self.units),
            "shift_permille": permille(self.stricter - self.milder, self.units),
            "mcnemar_p": round(self.p, 6),
        }

    def __str__(self) -> str:
        return (
            f"the candidate fails {self.stricter} of {self.units} units that the serving model passes, and passes "
            f"{self.milder} that it fails"
        )


class Latencies:
    """The last 5000 of them, in milliseconds."""

    def __init__(self, samples_ms: Iterable[float] = ()) -> None:
        self._samples_ms = deque(samples_ms, maxlen=_LATENCIES_KEPT)

    def __len__(self) -> int:
        return len(self._samples_ms)

    def add(self, latency_ms: float) -> None:
        """One more; the oldest gives way."""
        self._samples_ms.append(latency_ms)

    def rounded_p99_ms(self) -> float | None:
        """For the report; None without samples."""
        return round(self.p99_ms, 2) if self._samples_ms else None

    @property
    def p99_ms(self) -> float:
        """NaN without samples."""
        return percentile(self._samples_ms, 0.99) if self._samples_ms else math.nan

    @property
    def median_ms(self) -> float:
        """NaN without samples."""
        return percentile(self._samples_ms, 0.5) if self._samples_ms else math.nan

    @property
    def telling_ms(self) -> float:
        """The p99, but of fewer than 100 the median: of a few, the slowest is chance. NaN without samples."""
        if len(self) >= LEAST_UNITS:
            return self.p99_ms
        return self.median_ms

    def above(self, limit_ms: float) -> int:
        """How many took longer."""
        return sum(sample_ms > limit_ms for sample_ms in self._samples_ms)

    def prove_p99_above(self, limit_ms: float) -> bool:
        """Never with fewer than 100 samples; with fewer than 1000 only if more of them took longer than chance allows
        for one in a hundred."""
        if len(self) < LEAST_UNITS or self.p99_ms <= limit_ms:
            return False
        return len(self) >= _SURE_UNITS or wilson(self.above(limit_ms), len(self))[0] > 0.01


def permille(part: int, whole: int) -> float | None:
    """Rounded to a tenth; None of nothing."""
    return round(1000 * part / whole, 1) if whole else None
