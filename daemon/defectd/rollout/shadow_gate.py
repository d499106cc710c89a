"""Whether a candidate may go on beside the serving model. Pure.

Pairs are compared: both models judge the same units, so a change of the process cannot pass for a change of the model.
No data is failure.
"""

from __future__ import annotations

from defectd.inspection.shadow import ShadowUnit
from defectd.rollout.baseline import JUDGED, Baseline, GateVerdict, Numbers
from defectd.rollout.policy import Policy
from defectd.rollout.statistics import Latencies, Pairs, prove_share_above

_SHIFT_P = 0.01


class ShadowGate:
    """Both models judge the same units. With a *baseline*, what a unit takes beside the inference is counted in."""

    def __init__(self, policy: Policy, deadline_ms: float, baseline: Baseline | None = None) -> None:
        self._policy, self._deadline_ms = policy, deadline_ms
        self._line_p99_ms = baseline.p99_ms if baseline is not None and baseline.telling else None
        self._interval_ms = baseline.interval_ms if baseline is not None and baseline.telling else None
        self._pairs = Pairs()
        self._not_compared = self._errors = self._other_codes = 0
        self._served, self._candidate = Latencies(), Latencies()
        self._verdict = None if policy.shadow_units else GateVerdict(True, "", "no shadow was asked for")

    def add(self, unit: ShadowUnit) -> None:
        """One unit. It is compared if both models passed or failed it."""
        if unit.shadow == "error":
            self._errors += 1
            why = unit.detail or "no reason was given"
            self._end(False, "candidate_error", f"after {self.units} units the candidate could not judge one: {why}")
        elif unit.served in JUDGED and unit.shadow in JUDGED:
            self._pairs.add(unit.served == "failed", unit.shadow == "failed")
            self._other_codes += not unit.same_codes
            self._served.add(unit.served_inference_ms)
            if unit.shadow_inference_ms is not None:
                self._candidate.add(unit.shadow_inference_ms)
        else:
            self._not_compared += 1

    @property
    def units(self) -> int:
        """How many were compared."""
        return self._pairs.units

    @property
    def share(self) -> float:
        """Of the units that are needed, 0..1."""
        return min(1.0, self.units / self._policy.shadow_units) if self._policy.shadow_units else 1.0

    def verdict(self) -> GateVerdict | None:
        """None: it needs more units. Once given, it stays."""
        if self._verdict is None:
            complete = self.units >= self._policy.shadow_units
            self._judge_disagreement(complete)
            self._judge_codes(complete)
            if complete:
                self._judge_shift()
                self._judge_latency()
                self._end(True, "", f"{self._pairs}; {self._latency_in_words()}")
        return self._verdict

    def timed_out(self) -> GateVerdict:
        """The verdict when the shadow's time is over: what it did not see, it did not prove."""
        return self.verdict() or self._end(
            False, "no_data",
            f"only {self.units} of {self._policy.shadow_units} units were judged by both models within "
            f"{self._policy.shadow_s} s ({self._not_compared} could not be compared); send it again while the line "
            "runs, or ask for fewer units",
        )  # fmt: skip

    def numbers(self) -> Numbers:
        """Milliseconds are of the inference; `shift_permille` is above 0 if the candidate fails more."""
        return {
            **self._pairs.numbers(),
            "units_needed": self._policy.shadow_units,
            "other_codes": self._other_codes,
            "not_compared": self._not_compared,
            "candidate_errors": self._errors,
            "served_p99_ms": self._served.rounded_p99_ms(),
            "candidate_p99_ms": self._candidate.rounded_p99_ms(),
        }

    def _judge_disagreement(self, complete: bool) -> None:
        limit, disagreeing = self._policy.max_disagree_permille / 1000, self._pairs.stricter + self._pairs.milder
        if self._pairs.prove_disagreement_above(limit) or (complete and disagreeing > limit * self.units):
            self._end(
                False, "disagreement",
                f"{self._pairs}; at most {limit:.1%} of the units may be judged otherwise. Look at such units: if the "
                "candidate is right, send it again with a higher max_disagree_permille",
            )  # fmt: skip

    def _judge_codes(self, complete: bool) -> None:
        """A unit that both fail, for different reasons: the line would sort it wrongly."""
        limit, found = self._policy.max_other_codes_permille / 1000, self._other_codes
        if prove_share_above(limit, found, self.units) or (complete and found > limit * self.units):
            self._end(
                False, "other_codes",
                f"both fail {found} of {self.units} units for different defects (their codes differ); at most "
                f"{limit:.1%} may be. Look at such units: if the candidate is right, send it again with a higher "
                "max_other_codes_permille",
            )  # fmt: skip

    def _judge_shift(self) -> None:
        limit, shift = self._policy.max_shift_permille / 1000, self._pairs.stricter - self._pairs.milder
        if self._pairs.p < _SHIFT_P and abs(shift) > limit * self.units:
            self._end(
                False, "shift",
                f"{self._pairs}: it is {'stricter' if shift > 0 else 'milder'}, and not by chance (McNemar p "
                f"{self._pairs.p:.2g}); a shift of {limit:.1%} is allowed. If it is meant, send it again with a higher "
                "max_shift_permille",
            )  # fmt: skip

    def _judge_latency(self) -> None:
        if not len(self._candidate):
            self._end(False, "no_data", f"the candidate judged {self.units} units and never said how long it took")
            return
        if self._interval_ms is not None and self._candidate.median_ms > self._interval_ms:
            self._end(
                False, "too_slow",
                f"the candidate's inference takes {self._candidate.median_ms:.0f} ms (median), and a unit comes every "
                f"{self._interval_ms:.0f} ms: it cannot keep up. Take a smaller model, or a faster runtime",
            )  # fmt: skip
        beside_ms = 0.0 if self._line_p99_ms is None else max(0.0, self._line_p99_ms - self._served.telling_ms)
        if self._candidate.telling_ms + beside_ms > self._deadline_ms:
            self._end(
                False, "too_slow",
                f"{self._latency_in_words()}; with {beside_ms:.1f} ms for the rest of a unit's way it would miss the "
                f"deadline of {self._deadline_ms:g} ms. Take a smaller model, or a faster runtime",
            )  # fmt: skip

    def _latency_in_words(self) -> str:
        candidate_ms, served_ms = self._candidate.p99_ms, self._served.p99_ms
        return f"the candidate's inference takes {candidate_ms:.1f} ms (p99), the serving model's {served_ms:.1f} ms"

    def _end(self, passed: bool, code: str, detail: str) -> GateVerdict:
        self._verdict = self._verdict or GateVerdict(passed, code, detail)
        return self._verdict
