"""Why a unit was slow: each cause is found, and none is made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectd.clock import NS_PER_S
from defectd.telemetry.explain import Pressure, SlowUnit, explain
from defectd.telemetry.latency import Figures
from defectd.telemetry.sample import DeviceSample, Frequency, ThrottleSigns

USUAL = Figures(count=240, p50_ms=40, p95_ms=45, p99_ms=50, max_ms=60, jitter_ms=2)
FAST = Frequency(current_mhz=1300, min_mhz=306, max_mhz=1300)
COLD = replace(FAST, current_mhz=306)
NOW_S = 60
STAGES_MS = {"queue": 1.0, "preprocess": 5.0, "inference": 180.0, "postprocess": 4.0}
WELL = DeviceSample(
    at_ns=0, hottest_c=60.0, gpu=FAST, mem_available_mb=2000, swap_used_mb=100, disk_free_mb=9000, disk_total_mb=20_000,
    throttle=ThrottleSigns(oc_events={"oc3": 5}),
)  # fmt: skip


def slow(ms=200.0, idle_s=0.25, **stages_ms):
    return SlowUnit(ms, at_ns=round((NOW_S + 0.4) * NS_PER_S), stages_ms={**STAGES_MS, **stages_ms}, idle_s=idle_s)


def minute(**at_the_end):
    """One sample per second; those of the last second are different."""
    well = [replace(WELL, at_ns=second * NS_PER_S) for second in range(NOW_S)]
    return [*well, *(replace(WELL, at_ns=(NOW_S + more) * NS_PER_S, **at_the_end) for more in (0, 1))]


def meanwhile(**fields):
    """Only what is read after the unit is different: it happened in the unit's time."""
    return [*minute()[:-1], replace(WELL, at_ns=(NOW_S + 1) * NS_PER_S, **fields)]


def always(**fields):
    return [replace(WELL, at_ns=second * NS_PER_S, **fields) for second in range(NOW_S + 2)]


def pressed(name, per_second, last_second):
    """The kernel's sums, which grow by so much each second, and in the unit's own."""
    return [
        Pressure(second * NS_PER_S, **{name: second * per_second + (last_second if second > NOW_S else 0)})
        for second in range(NOW_S + 2)
    ]


def test_without_a_cause_nothing_is_made_up():
    assert explain(slow(), minute(), USUAL) is None
    assert explain(slow(), [], USUAL) is None
    assert explain(slow(), [], None) is None


@pytest.mark.parametrize("ms", [10.0, 40.0, 49.9])
def test_a_unit_that_was_not_slow_needs_no_explanation(ms):
    assert explain(slow(ms), minute(throttle=ThrottleSigns(alerts=("gpu",))), USUAL) is None


def test_heat():
    samples = minute(throttle=ThrottleSigns(alerts=("gpu", "cpu")), hottest_c=99.2, gpu=replace(FAST, current_mhz=612))
    assert explain(slow(), samples, USUAL) == (
        "200 ms instead of the usual 40 ms: the heat slowed gpu and cpu down at 99.2 °C; the GPU was at 612 MHz"
    )


def test_over_current():
    assert explain(slow(), meanwhile(throttle=ThrottleSigns(oc_events={"oc3": 32})), USUAL) == (
        "200 ms instead of the usual 40 ms: the power supply could not follow: 27 x instantaneous over-current (oc3); "
        "the GPU was at 1300 MHz"
    )


def test_over_current_of_half_a_minute_ago_explains_nothing():
    samples = [*always()[:30], *always(throttle=ThrottleSigns(oc_events={"oc3": 32}))[30:]]
    assert explain(slow(), samples, USUAL) is None


def test_a_cap_that_came_with_it():
    said = explain(slow(), minute(throttle=ThrottleSigns(capped=("gpu",))), USUAL)
    assert said.endswith(": the limit of gpu was below the power mode's; the GPU was at 1300 MHz")


def test_a_cap_that_was_always_there_explains_nothing():
    assert explain(slow(), always(throttle=ThrottleSigns(capped=("gpu",))), USUAL) is None


def test_a_rail_over_its_critical_current():
    said = explain(slow(), minute(gpu=None, throttle=ThrottleSigns(crit_alarms=("VDD_IN",))), USUAL)
    assert said.endswith(": VDD_IN drew more than its critical current")


def test_swap():
    samples = meanwhile(swap_used_mb=164, mem_available_mb=31)
    assert explain(slow(), samples, USUAL).endswith(
        ": 64 MB were swapped out meanwhile; 31 MB of memory were available"
    )


def test_swap_that_was_full_before_explains_nothing():
    assert explain(slow(), always(swap_used_mb=4000), USUAL) is None


def test_cold_clocks_after_a_pause():
    assert explain(slow(idle_s=8.2), always(gpu=COLD), USUAL) == (
        "200 ms instead of the usual 40 ms: the clocks were cold after 8.2 s of idleness: the GPU was at 306 of 1300 "
        "MHz"
    )


def test_clocks_that_had_just_sunk_are_cold():
    said = explain(slow(idle_s=None), minute(gpu=COLD), USUAL)
    assert said.endswith(": the clocks were cold: the GPU was at 306 of 1300 MHz")


def test_clocks_that_are_always_low_explain_no_single_unit():
    assert explain(slow(idle_s=0.25), always(gpu=COLD), USUAL) is None


def test_cold_clocks_do_not_make_a_unit_wait_in_the_queue():
    said = explain(slow(queue=150.0, inference=40.0, idle_s=8.2), always(gpu=COLD), USUAL)
    assert said == "200 ms instead of the usual 40 ms: it waited 150 ms for the engine, behind other units"


def test_the_clock_counts_that_the_unit_began_with():
    before, after = minute(gpu=COLD)[-2:]
    assert explain(slow(), [*minute()[:-2], replace(before, gpu=FAST), after], USUAL) is None


def test_without_a_gpu_the_clock_of_the_cpu_counts():
    said = explain(slow(idle_s=3.0), always(gpu=None, cpu=Frequency(current_mhz=800, max_mhz=3600)), USUAL)
    assert said.endswith("after 3.0 s of idleness: the CPU was at 800 of 3600 MHz")


def test_what_made_the_queue_is_said_before_the_queue():
    said = explain(slow(queue=150.0), minute(throttle=ThrottleSigns(alerts=("gpu",))), USUAL)
    assert "the heat slowed gpu down" in said


def test_a_disk_that_ran_full():
    assert explain(slow(), minute(disk_free_mb=3), USUAL).endswith(": the disk ran full: 3 MB were free")
    assert explain(slow(), always(disk_free_mb=3), USUAL) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("memory_us", "tasks waited for memory 60% of that time (swap, or pages read again from the disk)"),
        ("io_us", "the disk was busy: tasks waited for it 60% of that time"),
        (
            "cpu_us",
            "the CPU was busy with other work: tasks waited for a core 60% of that time",
        ),
    ],
)
def test_pressure_that_came_with_it(name, words):
    assert explain(slow(), minute(), USUAL, pressed(name, 10_000, 590_000)).endswith(f": {words}")


@pytest.mark.parametrize("name", ["memory_us", "io_us", "cpu_us"])
def test_pressure_that_is_always_there_explains_nothing(name):
    assert explain(slow(), minute(), USUAL, pressed(name, 600_000, 0)) is None
    assert explain(slow(), minute(), USUAL, pressed(name, 0, 100_000)) is None


def test_without_pressure_figures_the_load_tells():
    loads = [Pressure(second * NS_PER_S, load_per_core=0.4) for second in range(NOW_S)]
    busy = [*loads, Pressure(NOW_S * NS_PER_S, load_per_core=3.14)]
    said = explain(slow(), minute(), USUAL, busy)
    assert said.endswith(": the CPU was busy with other work: 3.1 tasks per core were ready to run")
    assert explain(slow(), minute(), USUAL, loads) is None


def test_a_pause_of_the_sampler_tells_of_no_moment_in_it():
    far = [Pressure(0, io_us=0), Pressure((NOW_S + 1) * NS_PER_S, io_us=30_000_000)]
    assert explain(slow(), [], USUAL, far) is None


def test_what_is_usual_need_not_be_known():
    said = explain(slow(), minute(throttle=ThrottleSigns(alerts=("gpu",))), None)
    assert said == "200 ms: the heat slowed gpu down at 60.0 °C; the GPU was at 1300 MHz"


def test_pressure_is_read_from_the_kernels_words():
    some = "some avg10=0.00 avg60=0.10 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
    pressure = Pressure.of(7, some.format(11), some.format(12), some.format(13), "1.50 0.70 0.50 2/300 4711\n", 2)
    assert pressure == Pressure(7, cpu_us=11, io_us=12, memory_us=13, load_per_core=0.75)


@pytest.mark.parametrize("text", ["", "\n", "full avg10=0 total=3", "some total=", "some total=-1", "nonsense"])
def test_a_kernel_that_does_not_tell_is_no_error(text):
    assert Pressure.of(7, text, text, text, text, 2) == Pressure(7)


SECONDS = st.integers(0, 70).map(lambda second: second * NS_PER_S)
CLOCKS = st.none() | st.builds(Frequency, current_mhz=st.none() | st.floats(0, 2000), max_mhz=st.none() | st.just(1300))
SAMPLES = st.lists(
    st.builds(
        DeviceSample, at_ns=SECONDS, hottest_c=st.none() | st.floats(20, 110), gpu=CLOCKS, cpu=CLOCKS,
        swap_used_mb=st.none() | st.floats(0, 4000), mem_available_mb=st.none() | st.floats(0, 4000),
        disk_free_mb=st.none() | st.floats(0, 4000), disk_total_mb=st.none() | st.floats(0, 4000),
        throttle=st.builds(
            ThrottleSigns, alerts=st.sampled_from([(), ("gpu",)]), capped=st.sampled_from([(), ("cpu",)]),
            oc_events=st.dictionaries(st.sampled_from(["oc1", "oc9"]), st.integers(0, 9)),
        ),
    ),
    max_size=8,
).map(lambda samples: sorted(samples, key=lambda sample: sample.at_ns))  # fmt: skip
PRESSURES = st.lists(
    st.builds(Pressure, SECONDS, st.none() | st.integers(0, 10**8), st.none() | st.integers(0, 10**8)), max_size=8
).map(lambda pressures: sorted(pressures, key=lambda pressure: pressure.at_ns))


@given(st.floats(0, 1e6), SAMPLES, PRESSURES, st.sampled_from([None, USUAL]), st.sampled_from([{}, STAGES_MS]))
def test_whatever_the_machine_tells_it_is_one_sentence_or_none(ms, samples, pressures, usual, stages_ms):
    said = explain(SlowUnit(ms, at_ns=60 * NS_PER_S, stages_ms=stages_ms), samples, usual, pressures)
    assert said is None or (said.startswith(f"{ms:.0f} ms") and "\n" not in said and "None" not in said)
