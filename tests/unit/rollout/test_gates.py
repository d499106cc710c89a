"""What lets a candidate go on, and what sends it back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectd.clock import NS_PER_S
from defectd.inspection.shadow import JudgedUnit, ShadowUnit
from defectd.rollout.baseline import Baseline
from defectd.rollout.policy import Policy
from defectd.rollout.probation_gate import ProbationGate
from defectd.rollout.shadow_gate import ShadowGate
from defectd.rollout.vitals import Vitals

DEADLINE_MS = 200.0
CANDIDATE, BEFORE = "c" * 64, "b" * 64
WELL = Vitals(free_mb=2000, hottest_c=60.0)


# -- shadow ----------------------------------------------------------------------------------------------------------


def pair(served="passed", shadow="passed", served_ms=20.0, shadow_ms=15.0, detail=""):
    return ShadowUnit(served, shadow, served_ms, shadow_ms, detail)


def shadow_gate(*units, baseline=None, **policy):
    """A gate that has seen (count, unit) in this order, and was asked after each as the rollout does."""
    gate = ShadowGate(Policy(**policy), DEADLINE_MS, baseline)
    for count, unit in units:
        for _ in range(count):
            gate.add(unit)
            gate.verdict()
    return gate


def test_a_candidate_that_agrees_passes_after_the_units_that_were_asked_for():
    gate = shadow_gate((299, pair()))
    assert gate.verdict() is None
    assert gate.share == pytest.approx(299 / 300)
    gate.add(pair("failed", "failed"))
    verdict = gate.verdict()
    assert (verdict.passed, verdict.code, gate.share) == (True, "", 1)
    assert "fails 0 of 300 units that the serving model passes, and passes 0 that it fails" in verdict.detail
    assert "15.0 ms" in verdict.detail


def test_a_few_disagreements_are_tolerated():
    gate = shadow_gate((290, pair()), (3, pair("passed", "failed")), (3, pair("failed", "passed")), (4, pair()))
    assert gate.verdict().passed
    numbers = gate.numbers()
    assert (numbers["only_candidate_failed"], numbers["only_served_failed"]) == (3, 3)
    assert (numbers["disagree_permille"], numbers["shift_permille"], numbers["mcnemar_p"]) == (20, 0, 1)


def test_a_candidate_that_disagrees_fails_with_the_numbers_in_words():
    gate = shadow_gate(
        (267, pair()), (2, pair("failed", "passed")), (31, pair("passed", "failed")), max_shift_permille=1000
    )
    verdict = gate.verdict()
    assert (verdict.passed, verdict.code) == (False, "disagreement")
    assert "units that the serving model passes, and passes 2 that it fails" in verdict.detail
    assert "2.0%" in verdict.detail
    assert "max_disagree_permille" in verdict.detail


def test_just_above_the_limit_is_seen_at_the_end():
    gate = shadow_gate((293, pair()), (7, pair("passed", "failed")))
    assert gate.verdict().code == "disagreement"
    assert "fails 7 of 300" in gate.verdict().detail


def test_what_is_already_proven_needs_no_more_units():
    gate = shadow_gate((15, pair()), (14, pair("failed", "passed")))
    assert gate.verdict() is None
    gate.add(pair())
    assert gate.verdict().code == "disagreement"
    assert gate.units == 30


@pytest.mark.parametrize(
    ("shadow", "served", "word"), [("failed", "passed", "stricter"), ("passed", "failed", "milder")]
)
def test_a_one_sided_shift_fails_even_where_disagreement_is_allowed(shadow, served, word):
    units = [(970, pair()), (24, pair(served, shadow)), (6, pair(shadow, served))]
    gate = shadow_gate(*units, shadow_units=1000, max_disagree_permille=50)
    assert gate.verdict().code == "shift"
    assert word in gate.verdict().detail
    assert gate.numbers()["mcnemar_p"] < 0.01


def test_as_many_disagreements_in_both_directions_are_no_shift():
    units = [(970, pair()), (15, pair("passed", "failed")), (15, pair("failed", "passed"))]
    assert shadow_gate(*units, shadow_units=1000, max_disagree_permille=50).verdict().passed


def test_a_small_shift_is_tolerated_however_sure_it_is():
    gate = shadow_gate((976, pair()), (24, pair("passed", "failed")), shadow_units=1000, max_disagree_permille=50,
                       max_shift_permille=24)  # fmt: skip
    assert gate.verdict().passed
    assert gate.numbers()["mcnemar_p"] < 0.01


def test_a_shift_that_may_be_chance_is_tolerated():
    units = [(295, pair()), (5, pair("passed", "failed"))]
    gate = shadow_gate(*units, max_shift_permille=0)
    assert gate.verdict().passed
    assert gate.numbers()["mcnemar_p"] > 0.01


def test_an_error_of_the_candidate_ends_it_at_once_with_its_reason():
    gate = shadow_gate((4, pair()), (1, pair(shadow="error", shadow_ms=None, detail="CUDA error: illegal address")))
    assert gate.verdict().code == "candidate_error"
    assert gate.verdict().detail == ("after 4 units the candidate could not judge one: CUDA error: illegal address")
    assert gate.numbers()["candidate_errors"] == 1


def test_units_that_the_serving_model_could_not_judge_are_not_compared():
    gate = shadow_gate((50, pair("error", "passed")), (50, pair("aborted", "skipped")), (10, pair()))
    numbers = gate.numbers()
    assert (numbers["units"], numbers["not_compared"]) == (10, 100)
    assert gate.verdict() is None


def test_a_candidate_whose_inference_misses_the_deadline_fails():
    gate = shadow_gate((297, pair(shadow_ms=180.0)), (3, pair(shadow_ms=201.0)))
    assert gate.verdict().code == "too_slow"
    assert "201.0 ms (p99)" in gate.verdict().detail
    assert "200 ms" in gate.verdict().detail


def test_what_a_unit_takes_beside_the_inference_counts_towards_the_deadline():
    baseline = Baseline(units=1000, p99_ms=120.0, failed_share=0.01, error_share=0.0)
    assert shadow_gate((300, pair(served_ms=20.0, shadow_ms=99.0)), baseline=baseline).verdict().passed
    assert shadow_gate((300, pair(served_ms=20.0, shadow_ms=101.0)), baseline=baseline).verdict().code == "too_slow"


def test_a_baseline_of_a_few_units_says_nothing_about_the_rest_of_the_way():
    baseline = Baseline(units=99, p99_ms=190.0, failed_share=0.01, error_share=0.0)
    assert shadow_gate((300, pair(served_ms=20.0, shadow_ms=99.0)), baseline=baseline).verdict().passed


def test_the_slowest_of_a_few_is_chance_and_most_of_them_are_not():
    assert shadow_gate((19, pair()), (1, pair(shadow_ms=900.0)), shadow_units=20).verdict().passed
    assert shadow_gate((20, pair(shadow_ms=900.0)), shadow_units=20).verdict().code == "too_slow"


def test_a_candidate_that_never_says_how_long_it_took_has_no_data():
    assert shadow_gate((300, pair(shadow_ms=None))).verdict().code == "no_data"


def test_a_shadow_of_no_units_is_none():
    gate = shadow_gate(shadow_units=0)
    assert (gate.verdict().passed, gate.share) == (True, 1)


def test_no_data_in_time_is_failure():
    gate = shadow_gate((12, pair()), (3, pair("error")), shadow_s=60)
    verdict = gate.timed_out()
    assert (verdict.passed, verdict.code) == (False, "no_data")
    assert "only 12 of 300 units" in verdict.detail
    assert "within 60 s (3 could not be compared)" in verdict.detail
    assert gate.verdict() == verdict


def test_a_verdict_that_was_reached_is_not_lost_when_time_is_over():
    gate = shadow_gate()
    for _ in range(300):
        gate.add(pair())
    assert gate.timed_out().passed


def test_a_verdict_stays():
    gate = shadow_gate((300, pair()))
    first = gate.verdict()
    gate.add(pair(shadow="error"))
    assert gate.verdict() is first


VERDICTS = st.sampled_from(["passed", "failed", "error", "aborted", "skipped"])
PAIRS = st.one_of(*[st.just(("passed", "passed")), st.just(("failed", "failed"))] * 9, st.tuples(VERDICTS, VERDICTS))


@settings(max_examples=50)
@given(st.lists(PAIRS, max_size=60))
def test_a_candidate_passes_the_shadow_exactly_if_it_did_not_err_nor_disagree_too_often(verdicts):
    gate, verdict, seen = shadow_gate(shadow_units=20), None, []
    for served, shadow in verdicts:
        gate.add(pair(served, shadow))
        seen.append((served, shadow))
        verdict = gate.verdict()
        if verdict is not None:
            break
    numbers = gate.numbers()
    assert numbers["units"] + numbers["not_compared"] + numbers["candidate_errors"] == len(seen)
    compared = [(served, shadow) for served, shadow in seen if {served, shadow} <= {"passed", "failed"}]
    differing = sum(served != shadow for served, shadow in compared)
    erred = any(shadow == "error" for _, shadow in seen)
    if verdict is None:
        assert len(compared) < 20
        assert not erred
    else:
        assert verdict.passed == (not erred and differing == 0)


# -- the time before -------------------------------------------------------------------------------------------------


def judged(verdict="passed", error=None, ms=100.0, model=CANDIDATE, at_s=0.0):
    return JudgedUnit(verdict, error, ms, model, int(at_s * NS_PER_S))


def test_the_baseline_is_of_judged_units_and_of_errors_that_are_the_engines():
    units = [
        *[judged(ms=100.0)] * 90,
        *[judged("failed", ms=110.0)] * 10,
        *[judged("error", "deadline_exceeded", ms=190.0)] * 2,
        *[judged("error", "engine_failed", ms=3.0, model=None)] * 2,
        *[judged("error", "camera_lost", ms=190.0, model=None)] * 50,
        judged("aborted", ms=1.0, model=None),
    ]
    assert Baseline.of(units) == Baseline(100, p99_ms=190.0, failed_share=0.1, error_share=4 / 104, interval_ms=0.0)


def test_the_interval_is_the_usual_one_and_not_that_of_a_pause():
    at_ms = [0, 250, 500, 60_500, 60_750]
    units = [JudgedUnit("passed", None, 30.0, BEFORE, ms * 1_000_000) for ms in at_ms]
    assert Baseline.of(units).interval_ms == 250.0


def test_a_candidate_that_cannot_keep_up_with_the_line_is_too_slow_whatever_the_deadline():
    baseline = Baseline(units=1000, p99_ms=40.0, failed_share=0.0, error_share=0.0, interval_ms=250.0)
    gate = ShadowGate(Policy(shadow_units=50), 5000.0, baseline)
    for _ in range(50):
        gate.add(ShadowUnit("passed", "passed", 30.0, 300.0))
    verdict = gate.verdict()
    assert verdict is not None and verdict.code == "too_slow"
    assert "takes 300 ms (median), and a unit comes every 250 ms" in verdict.detail


def test_an_idle_line_leaves_no_baseline():
    baseline = Baseline.of([])
    assert baseline == Baseline(units=0, p99_ms=None, failed_share=0.0, error_share=0.0)
    assert not baseline.telling


# -- probation -------------------------------------------------------------------------------------------------------

USUAL = Baseline(units=1000, p99_ms=100.0, failed_share=0.02, error_share=0.0)
FLAWLESS = Baseline(units=1000, p99_ms=100.0, failed_share=0.0, error_share=0.0)


class Probation:
    """A gate on a line with 4 units a second, asked every 5 s."""

    def __init__(self, baseline=USUAL, **policy):
        self.gate = ProbationGate(Policy(**policy), DEADLINE_MS, baseline, CANDIDATE)
        self.now_s = 1000.0
        self.vitals = WELL
        self._next_check_s = self.now_s

    def run(self, *units):
        """The units come, over and over for (count, unit). Stops at a verdict, which it returns."""
        for count, unit in units:
            for _ in range(count):
                self.now_s += 0.25
                at_ns = int(self.now_s * NS_PER_S)
                self.gate.add(
                    JudgedUnit(unit.verdict, unit.error, unit.capture_to_verdict_ms, unit.model_sha256, at_ns)
                )
                verdict = self.check_when_due()
                if verdict is not None:
                    return verdict
        return None

    def stand_still(self, seconds):
        """No units."""
        for _ in range(int(seconds)):
            self.now_s += 1
            verdict = self.check_when_due()
            if verdict is not None:
                return verdict
        return None

    def check_when_due(self):
        if self.now_s < self._next_check_s:
            return None
        self._next_check_s = self.now_s + 5
        return self.gate.check(int(self.now_s * NS_PER_S), self.vitals)


def mixed(units, failed_permille=20, seed=1, **unit):
    """So many units in random order, of which about so many failed."""
    chance = random.Random(seed)
    return [
        (1, judged("failed" if chance.random() * 1000 < failed_permille else "passed", **unit)) for _ in range(units)
    ]


def test_a_good_candidate_passes_after_enough_units_and_enough_time():
    line = Probation(probation_units=1000, probation_s=300)
    assert line.run(*mixed(1000)) is None
    assert line.gate.share == pytest.approx(0.8325)
    verdict = line.run(*mixed(300, seed=2))
    assert (verdict.passed, verdict.code, line.gate.share) == (True, "", 1)
    assert "s of a running line" in verdict.detail
    numbers = line.gate.numbers()
    assert (numbers["errors"], numbers["p99_ms"], numbers["p99_limit_ms"]) == (0, 100, 115)
    assert (numbers["least_free_mb"], numbers["hottest_c"]) == (2000, 60)


def test_a_probation_of_no_units_is_none():
    gate = ProbationGate(Policy(probation_units=0), DEADLINE_MS, USUAL, CANDIDATE)
    assert gate.check(0, WELL).passed
    assert gate.share == 1


def test_a_line_that_stands_still_is_no_time():
    line = Probation(probation_units=10, probation_s=60)
    line.run((20, judged()))
    assert line.stand_still(3600) is None
    line.run((1, judged()))
    assert line.gate.running_s == 4.75 + 10
    assert line.run((300, judged())).passed


def test_a_line_slower_than_that_still_comes_to_an_end():
    line = Probation(probation_units=10, probation_s=60)
    verdicts = [line.stand_still(30) or line.run((1, judged())) for _ in range(11)]
    assert verdicts[:9] == [None] * 9
    assert verdicts[10].passed


def test_units_of_two_cameras_in_any_order_count_their_time_once():
    gate = ProbationGate(Policy(), DEADLINE_MS, USUAL, CANDIDATE)
    for at_s in (10.0, 11.0, 10.5, 11.5, 11.25):
        gate.add(judged(at_s=at_s))
    assert gate.running_s == 1.5


def test_nan_ends_it_at_once():
    line = Probation()
    line.run((3, judged()))
    line.gate.add(judged("error", "non_finite_output"))
    verdict = line.gate.check(int(line.now_s * NS_PER_S) + 1, WELL)
    assert verdict.code == "non_finite_output"
    assert "unit 4" in verdict.detail


def test_nan_of_the_model_before_is_not_the_candidates():
    line = Probation()
    assert line.run((1, judged("error", "non_finite_output", model=BEFORE)), (40, judged())) is None
    assert line.gate.numbers()["errors"] == 0
    assert line.gate.numbers()["camera_errors"] == 0


def test_errors_are_a_breach_only_if_they_stay():
    line = Probation()
    verdict = line.run((200, judged()), (3, judged("error", "engine_failed")), (100, judged()))
    assert (verdict.passed, verdict.code) == (False, "errors")
    assert "3 errors in " in verdict.detail
    assert "3 engine_failed" in verdict.detail
    assert "0.1% are allowed" in verdict.detail
    assert line.gate.units - 200 >= 40  # three checks, 5 s apart, at 4 units a second


def test_one_error_is_chance_but_not_where_none_is_allowed():
    one = [(50, judged()), (1, judged("error", "deadline_exceeded")), (100, judged())]
    assert Probation().run(*one) is None
    assert Probation(max_error_permille=0).run(*one).code == "errors"


def test_errors_within_the_limit_do_not_matter():
    line = Probation(FLAWLESS, max_error_permille=10)
    assert line.run(*[(150, judged()), (1, judged("error", "engine_failed"))] * 5) is None
    assert line.gate.numbers()["errors"] == 5


def test_a_share_just_above_the_limit_counts_from_three_errors_on():
    line = Probation(FLAWLESS, probation_units=6000, probation_s=0)
    assert line.run((5000, judged()), (6, judged("error", "engine_failed")), (200, judged())).code == "errors"


def test_errors_of_the_camera_are_not_the_candidates():
    line = Probation(FLAWLESS, probation_units=500, probation_s=10)
    assert line.run(*[(10, judged()), (5, judged("error", "frame_torn", model=None))] * 40) is None
    assert line.run((120, judged())).passed
    assert (line.gate.numbers()["errors"], line.gate.numbers()["camera_errors"]) == (0, 200)


def test_a_slow_candidate_goes_back_and_it_is_said_how_many_were_slow():
    verdict = Probation().run((90, judged(ms=100.0)), (300, judged(ms=130.0)))
    assert (verdict.passed, verdict.code) == (False, "too_slow")
    assert "p99 from capture to verdict is 130.0 ms" in verdict.detail
    assert "took longer than the allowed 115.0 ms (the model before had 100.0 ms)" in verdict.detail


def test_a_candidate_that_is_too_late_is_slow_where_errors_are_allowed():
    units = [(9, judged()), (1, judged("error", "deadline_exceeded", ms=195.0))] * 30
    assert Probation(FLAWLESS, max_error_permille=1000).run(*units).code == "too_slow"


def test_a_hundred_units_are_needed_to_call_it_slow():
    assert Probation().run((99, judged(ms=190.0))) is None


def test_a_few_slow_units_among_many_are_tolerated():
    assert Probation(FLAWLESS).run(*[(199, judged()), (1, judged(ms=180.0))] * 10) is None


def test_the_deadline_bounds_how_slow_it_may_be():
    slow_before = Baseline(units=1000, p99_ms=190.0, failed_share=0.02, error_share=0.0)
    gate = ProbationGate(Policy(), DEADLINE_MS, slow_before, CANDIDATE)
    assert gate.numbers()["p99_limit_ms"] == DEADLINE_MS


@pytest.mark.parametrize("baseline", [Baseline.of([]), Baseline(99, 10.0, 0.0, 0.0)])
def test_after_an_idle_line_only_the_deadline_counts(baseline):
    line = Probation(baseline, probation_units=400, probation_s=0)
    assert line.gate.numbers()["p99_limit_ms"] == DEADLINE_MS
    assert line.run(*mixed(420, failed_permille=500, ms=199.0)).passed
    assert Probation(baseline).run((200, judged(ms=201.0))).code == "too_slow"


@pytest.mark.parametrize("failed_permille", [12, 20, 28])
def test_a_share_of_failed_units_near_the_old_one_is_tolerated(failed_permille):
    line = Probation(probation_units=2000, probation_s=0)
    assert line.run(*mixed(2100, failed_permille)).passed


def test_a_candidate_that_fails_many_more_goes_back():
    verdict = Probation().run(*mixed(2000, failed_permille=100))
    assert verdict.code == "drift"
    assert "the model before failed 2.0% of 1000" in verdict.detail


def test_a_candidate_that_fails_none_any_more_goes_back_too():
    verdict = Probation().run((4000, judged()))
    assert verdict.code == "drift"
    assert "the candidate fails 0.0%" in verdict.detail


def test_a_larger_drift_may_be_allowed():
    assert Probation(max_drift_permille=200).run(*mixed(1000, failed_permille=100)) is None


def test_too_little_memory_and_too_much_heat_go_back_at_the_third_check():
    for vitals, code in ((Vitals(100, 60.0), "memory"), (Vitals(2000, 96.0), "heat")):
        line = Probation()
        line.run((10, judged()))
        line.vitals = vitals
        began_s = line.now_s
        verdict = line.run((100, judged()))
        assert (verdict.passed, verdict.code) == (False, code)
        assert 10 <= line.now_s - began_s <= 15


def test_a_breach_that_ends_before_the_third_check_is_forgotten():
    line = Probation()
    for _ in range(5):
        line.vitals = Vitals(100, 60.0)
        assert line.run((40, judged())) is None
        line.vitals = WELL
        assert line.run((20, judged())) is None
    assert line.gate.numbers()["least_free_mb"] == 100


def test_a_station_that_does_not_tell_its_vitals_is_judged_by_its_units():
    line = Probation(probation_units=100, probation_s=0)
    line.vitals = Vitals()
    assert line.run((120, judged())).passed


def test_a_line_that_stands_still_is_not_blamed_three_times_for_the_same_units():
    line = Probation()
    assert line.run((40, judged()), (3, judged("error", "engine_failed"))) is None
    assert line.stand_still(600) is None


def test_heat_is_watched_while_the_line_stands_still():
    line = Probation()
    line.run((10, judged()))
    line.vitals = Vitals(2000, 99.0)
    assert line.stand_still(60).code == "heat"


def test_asking_after_every_unit_does_not_make_three_breaches_of_one():
    gate = ProbationGate(Policy(), DEADLINE_MS, USUAL, CANDIDATE)
    assert all(gate.check(tenth * NS_PER_S // 10, Vitals(100, 60.0)) is None for tenth in range(20))
    assert gate.check(2 * NS_PER_S, Vitals(100, 60.0)).code == "memory"


def test_a_candidate_in_breach_does_not_pass_although_it_has_enough_units():
    line = Probation(probation_units=20, probation_s=0)
    line.vitals = Vitals(100, 60.0)
    assert line.run((30, judged())) is None
    line.vitals = WELL
    assert line.run((20, judged())).passed


@pytest.mark.parametrize(
    ("unit", "word"),
    [
        (judged(model=BEFORE), "20 judged by another model"),
        (judged("error", "camera_lost", model=None), "20 camera_lost"),
    ],
)
def test_units_that_the_candidate_does_not_judge_are_no_data(unit, word):
    line = Probation()
    assert line.run((19, unit), (1, judged()), (19, unit)) is None
    verdict = line.run((40, unit))
    assert verdict.code == "no_data"
    assert verdict.detail.endswith(word)


@pytest.mark.parametrize(
    ("error", "code"),
    [("deadline_exceeded", "too_slow"), ("engine_unavailable", "errors"), ("engine_failed", "errors")],
)
def test_five_units_in_a_row_without_a_verdict_are_enough(error, code):
    line, unit = Probation(max_error_permille=1000), judged("error", error)
    assert line.run((4, unit), (1, judged()), (4, unit)) is None
    verdict = line.run((25, unit))
    assert verdict.code == code
    assert verdict.detail == f"5 units in a row had no verdict: 5 {error}"


def test_aborted_and_skipped_units_say_nothing():
    line = Probation(probation_units=10, probation_s=0)
    assert line.run((100, judged("aborted", model=None)), (100, judged("skipped", model=None))) is None
    assert line.gate.numbers()["units"] == 0


def test_a_verdict_of_probation_stays():
    line = Probation(probation_units=10, probation_s=0)
    first = line.run((40, judged()))
    assert first.passed
    line.run((40, judged("error", "non_finite_output")))
    assert line.gate.check(int(line.now_s * NS_PER_S) + NS_PER_S, WELL) is first


@pytest.mark.parametrize("seed", range(20))
def test_a_candidate_as_good_as_the_old_model_is_not_sent_back_by_chance(seed):
    chance = random.Random(seed)
    units = [
        judged("failed" if chance.random() < 0.02 else "passed", ms=chance.gauss(80, 8.6), model=BEFORE)
        for _ in range(1000)
    ]
    line = Probation(Baseline.of(units), probation_units=2000, probation_s=400)
    new = [judged("failed" if chance.random() < 0.02 else "passed", ms=chance.gauss(80, 8.6)) for _ in range(2200)]
    verdict = line.run(*[(1, unit) for unit in new])
    assert verdict.passed, verdict


ANY_UNIT = st.builds(
    judged,
    verdict=st.sampled_from(["passed", "failed"]),
    ms=st.floats(1, 400),
    model=st.sampled_from([CANDIDATE, CANDIDATE, CANDIDATE, BEFORE, None]),
)


@settings(max_examples=50)
@given(st.lists(ANY_UNIT, max_size=150), st.integers(1, 50), st.integers(0, 20))
def test_nothing_passes_without_the_units_and_the_time(units, least, seconds):
    line = Probation(probation_units=least, probation_s=seconds)
    shares = []
    for unit in units:
        verdict = line.run((1, unit))
        shares.append(line.gate.share)
        if verdict is not None:
            break
    else:
        verdict = None
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    if verdict is not None and verdict.passed:
        assert line.gate.units >= least
        assert line.gate.running_s >= seconds
        assert line.gate.share == 1


def test_a_candidate_that_fails_the_same_units_for_other_reasons_is_stopped():
    gate = ShadowGate(Policy(shadow_units=300), 250.0)
    for number in range(300):
        other = number % 10 == 0
        gate.add(ShadowUnit("failed", "failed", 10.0, 10.0, same_codes=not other))
    verdict = gate.verdict()
    assert verdict is not None and (verdict.passed, verdict.code) == (False, "other_codes")
    assert "30 of 300 units for different defects" in verdict.detail
    assert gate.numbers()["other_codes"] == 30
