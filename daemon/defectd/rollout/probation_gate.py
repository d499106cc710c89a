"""Whether a candidate may stay that decides already. Pure.

It can only be compared with the time before, and there is room for chance. No data is failure.
"""

from __future__ import annotations

from collections import Counter, deque

from defectd.clock import NS_PER_S
from defectd.inspection.events import ErrorReason
from defectd.inspection.shadow import JudgedUnit
from defectd.rollout.baseline import ENGINE_ERRORS, JUDGED, Baseline, GateVerdict, Numbers, has_latency
from defectd.rollout.policy import Policy
from defectd.rollout.statistics import LEAST_UNITS, Latencies, chance_difference, permille, wilson
from defectd.rollout.vitals import Vitals

_BREACHES = 3
_CHECK_EVERY_NS = NS_PER_S
_STANDSTILL_NS = 10 * NS_PER_S
_UNJUDGED_UNITS = 20
_FAILING_UNITS = 5  # in a row, by the candidate: whatever the shares say, this is no model to decide
_SIGMAS = 3.0


class ProbationGate:
    """The candidate decides, and the old model is resident. Give every decided unit to `add`, and ask `check` every
    few seconds. Only a running line counts: of the time between two of the candidate's units, at most 10 s."""

    def __init__(self, policy: Policy, deadline_ms: float, baseline: Baseline, candidate_sha256: str) -> None:
        self._policy, self._baseline, self._sha256 = policy, baseline, candidate_sha256
        self._latency_limit_ms = deadline_ms
        if baseline.telling and baseline.p99_ms is not None:
            self._latency_limit_ms = min(deadline_ms, (1 + policy.max_slower_percent / 100) * baseline.p99_ms)
        self._passed = self._failed = self._camera_errors = 0
        self._errors: Counter[ErrorReason] = Counter()
        self._latencies = Latencies()
        self._failing: deque[ErrorReason] = deque(maxlen=_FAILING_UNITS)
        self._unjudged: deque[str] = deque(maxlen=_UNJUDGED_UNITS)
        self._last_ns: int | None = None
        self._running_ns = 0
        self._checked_ns: int | None = None
        self._seen = self._seen_at_check = 0
        self._streaks: Counter[str] = Counter()
        self._worst = Vitals()
        self._verdict = None if policy.probation_units else GateVerdict(True, "", "no probation was asked for")

    def add(self, unit: JudgedUnit) -> None:
        """One decided unit. Aborted and skipped ones say nothing; a camera's errors are not the candidate's."""
        if unit.verdict not in (*JUDGED, "error"):
            return
        self._seen += 1
        if unit.verdict in JUDGED and unit.model_sha256 == self._sha256:
            self._count(unit)
            return
        if unit.error in ENGINE_ERRORS and unit.model_sha256 in (None, self._sha256):
            self._errors[unit.error] += 1
            self._failing.append(unit.error)
            if has_latency(unit):
                self._latencies.add(unit.capture_to_verdict_ms)
            if unit.error == "non_finite_output":
                self._fail("non_finite_output", f"the candidate's answer to unit {self._seen} holds NaN or infinity")
        elif unit.error is not None and unit.error not in ENGINE_ERRORS:
            self._camera_errors += 1
        if len(self._failing) == _FAILING_UNITS:
            code = "too_slow" if set(self._failing) == {"deadline_exceeded"} else "errors"
            self._fail(code, f"{_FAILING_UNITS} units in a row had no verdict: {_in_words(Counter(self._failing))}")
        self._unjudged.append(unit.error or "judged by another model")
        if len(self._unjudged) == _UNJUDGED_UNITS:
            reasons = _in_words(Counter(self._unjudged))
            self._fail("no_data", f"{_UNJUDGED_UNITS} units in a row were not judged by the candidate: {reasons}")

    @property
    def units(self) -> int:
        """How many the candidate passed or failed."""
        return self._passed + self._failed

    @property
    def running_s(self) -> float:
        """Of a line whose units the candidate judged."""
        return self._running_ns / NS_PER_S

    @property
    def share(self) -> float:
        """Of the units or of the time that is needed, whichever is further away. 0..1."""
        if not self._policy.probation_units:
            return 1.0
        needed = ((self.units, self._policy.probation_units), (self.running_s, self._policy.probation_s))
        return min(1.0, *(have / least if least else 1.0 for have, least in needed))

    def check(self, now_ns: int, vitals: Vitals) -> GateVerdict | None:
        """None: it goes on. Fails at the third breach in a row of the same kind; those of units count only if units
        came since the check before, and checks less than a second apart count once. Once given, a verdict stays."""
        due = self._checked_ns is None or now_ns - self._checked_ns >= _CHECK_EVERY_NS
        if self._verdict is None and due:
            self._checked_ns = now_ns
            self._worst = self._worst.or_worse(vitals)
            self._weigh(vitals)
        return self._verdict

    def numbers(self) -> Numbers:
        """Milliseconds are from capture to verdict, of the last 5000 units; memory and heat are the worst there was."""
        errors, before = sum(self._errors.values()), self._baseline
        return {
            "units": self.units,
            "units_needed": self._policy.probation_units,
            "running_s": round(self.running_s, 1),
            "running_s_needed": self._policy.probation_s,
            "failed": self._failed,
            "failed_permille": permille(self._failed, self.units),
            "errors": errors,
            "error_permille": permille(errors, self.units + errors),
            "camera_errors": self._camera_errors,
            "p99_ms": self._latencies.rounded_p99_ms(),
            "p99_limit_ms": round(self._latency_limit_ms, 2),
            "baseline_units": before.units,
            "baseline_failed_permille": round(1000 * before.failed_share, 1) if before.units else None,
            "baseline_error_permille": round(1000 * before.error_share, 1) if before.units else None,
            "baseline_p99_ms": None if before.p99_ms is None else round(before.p99_ms, 2),
            "least_free_mb": self._worst.free_mb,
            "hottest_c": self._worst.hottest_c,
        }

    def _count(self, unit: JudgedUnit) -> None:
        self._unjudged.clear()
        self._failing.clear()
        self._passed += unit.verdict == "passed"
        self._failed += unit.verdict == "failed"
        self._latencies.add(unit.capture_to_verdict_ms)
        last_ns = unit.at_ns if self._last_ns is None else self._last_ns
        self._last_ns = max(unit.at_ns, last_ns)  # two cameras may tell of theirs in any order
        self._running_ns += min(self._last_ns - last_ns, _STANDSTILL_NS)  # so that a slow line comes to an end, too

    def _weigh(self, vitals: Vitals) -> None:
        of_units = {"errors": self._too_many_errors(), "too_slow": self._too_slow(), "drift": self._drift()}
        memory, heat = vitals.lacks_memory(self._policy.min_free_mb), vitals.is_too_hot(self._policy.max_temp_c)
        of_machine = {"memory": memory, "heat": heat}
        came, self._seen_at_check = self._seen > self._seen_at_check, self._seen
        for code, breach in (*(of_units.items() if came else ()), *of_machine.items()):
            self._streaks[code] = self._streaks[code] + 1 if breach else 0
            if breach and self._streaks[code] >= _BREACHES:
                self._fail(code, breach)
        enough = self.units >= self._policy.probation_units and self.running_s >= self._policy.probation_s
        if self._verdict is None and enough and not any((*of_units.values(), *of_machine.values())):
            self._verdict = GateVerdict(
                True, "",
                f"{self.units} units in {self.running_s:.0f} s of a running line: {self._failed} failed, "
                f"{sum(self._errors.values())} errors, p99 {self._latencies.p99_ms:.1f} ms, "
                f"{self._latency_limit_ms:.1f} ms are allowed",
            )  # fmt: skip

    def _too_many_errors(self) -> str | None:
        errors, limit = sum(self._errors.values()), self._policy.max_error_permille / 1000
        units = self.units + errors
        enough = errors >= 3 or (errors >= (2 if limit else 1) and wilson(errors, units)[0] > limit)  # one is chance
        if not enough or errors <= limit * units:
            return None
        before = f"; the model before had {self._baseline.error_share:.1%}" if self._baseline.telling else ""
        return f"{errors} errors in {units} units ({_in_words(self._errors)}), {limit:.1%} are allowed{before}"

    def _too_slow(self) -> str | None:
        limit_ms = self._latency_limit_ms
        if not self._latencies.prove_p99_above(limit_ms):
            return None
        before = f"the model before had {self._baseline.p99_ms:.1f} ms" if self._baseline.telling else "the deadline"
        return (
            f"p99 from capture to verdict is {self._latencies.p99_ms:.1f} ms: {self._latencies.above(limit_ms)} of the "
            f"last {len(self._latencies)} units took longer than the allowed {limit_ms:.1f} ms ({before})"
        )

    def _drift(self) -> str | None:
        if not self._baseline.telling or self.units < LEAST_UNITS:
            return None
        share, before = self._failed / self.units, self._baseline.failed_share
        chance = chance_difference(before, self._baseline.units, share, self.units, _SIGMAS)
        limit = max(chance, self._policy.max_drift_permille / 1000)
        if abs(share - before) <= limit:
            return None
        return (
            f"the candidate fails {share:.1%} of {self.units} units, the model before failed {before:.1%} of "
            f"{self._baseline.units}; a difference of {limit:.1%} is allowed. If the product changed, send it again"
        )

    def _fail(self, code: str, detail: str) -> None:
        self._verdict = self._verdict or GateVerdict(False, code, detail)  # the first reason is the cause


def _in_words(reasons: Counter[ErrorReason] | Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
