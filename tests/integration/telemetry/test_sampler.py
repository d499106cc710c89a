"""The sampler's thread on machines of support.trees, at ten looks a second: what it tells, and what it does."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from defectd.faults import Faults
from defectd.inspection.telemetry_wire import DeviceTelemetry, SlowDownEvent
from defectd.telemetry import sampler as sampler_module
from defectd.telemetry.jtop_source import JtopReading
from defectd.telemetry.platforms import read_board
from defectd.telemetry.sample import DeviceSample, Roots
from defectd.telemetry.sampler import Ears, Sampler
from defectd.telemetry.sysfs import Sysfs
from defectd.telemetry.thermal import ThermalLimits
from support import trees
from support.trees import tree
from unit.watch.wire_events import inspection

_WITHIN_S = 15.0


@dataclass
class Told:
    """What came out of it, from its own thread."""

    faults: list[tuple[str, str, str, dict[str, Any]]] = field(default_factory=list)
    messages: list[DeviceTelemetry] = field(default_factory=list)
    slow_downs: list[SlowDownEvent] = field(default_factory=list)
    looks: list[tuple[DeviceSample, bool]] = field(default_factory=list)

    def until(self, holds):
        due = time.monotonic() + _WITHIN_S
        while not holds():
            assert time.monotonic() < due, f"not within {_WITHIN_S} s: {self.faults}, {self.messages[-1:]}"
            time.sleep(0.02)

    def next_message(self):
        seen = len(self.messages) + 1  # the next one may have been begun before
        self.until(lambda: len(self.messages) > seen)
        return self.messages[seen]

    def steps(self):
        noted = [code for component, code, state, _ in self.faults if (component, state) == ("thermal", "noted")]
        return [code[len("level_") :] for code in noted]

    def states(self, component, code):
        return [state for one, other, state, _ in self.faults if (one, other) == (component, code)]


class Jtop:
    """Says what a test wants."""

    def __init__(self):
        self.reading, self.trouble, self.stopped_on = None, None, None

    def latest(self):
        return self.reading

    def stop(self):
        self.stopped_on = threading.current_thread().name


@pytest.fixture
def roots(tmp_path):
    return tree(tmp_path / "machine", "agx-orin-jp6")


@pytest.fixture
def start(tmp_path, roots, monkeypatch):
    monkeypatch.setattr(sampler_module, "_LOOK_EVERY_S", 0.1)
    running = []

    def start(*, reader=None, extra=None, machine: Roots = roots):
        told = Told()
        ears = Ears(
            Faults(lambda component, code, state, _, data: told.faults.append((component, code, state, data))),
            told.messages.append,
            told.slow_downs.append,
            lambda sample, throttled: told.looks.append((sample, throttled)),
        )
        limits = ThermalLimits(leave_after_s=0.5, throttled_s=30.0)
        sampler = Sampler(
            "aoi1", "boot", read_board(machine), reader or Sysfs(machine, tmp_path), extra, limits, ears, 250.0, 0.3,
            lambda: 3, machine,
        )  # fmt: skip
        sampler.start()
        running.append(sampler)
        return sampler, told

    yield start
    for sampler in running:
        sampler.stop(5.0)


def test_a_machine_is_told_as_it_is(start):
    sampler, told = start()
    message = told.next_message()
    assert (message.station, message.boot_id, message.source) == ("aoi1", "boot", "sysfs")
    assert message.board == "NVIDIA Jetson AGX Orin Developer Kit" and message.l4t == "36.4.3"
    assert message.hottest_c == 45.3 and len(message.temps_c) == 6
    assert message.gpu_clock_mhz == 306.0 and message.power_w == 6.71 and message.power_mode == "MAXN"
    assert message.outbox_pending == 3 and message.units == 0 and message.latency == []
    assert not message.throttled and message.thermal_level == "normal" and not sampler.sheds
    assert sampler.conditions is not None and sampler.conditions.gpu_clock_mhz == 306.0
    assert told.faults == []


def test_units_are_counted_once_and_their_latencies_are_of_the_same_minute(start):
    sampler, told = start()
    told.next_message()
    for _ in range(20):
        sampler.inspected(inspection())
    told.until(lambda: any(message.latency for message in told.messages))
    told.next_message()
    assert sum(message.units for message in told.messages) == 20
    stages = {figures.stage for figures in told.messages[-1].latency}
    assert "capture_to_verdict" in stages and "inference" in stages
    assert all(figures.count == 20 for figures in told.messages[-1].latency)


def test_heat_goes_up_the_levels_and_down_again_and_each_step_is_told(start, roots):
    sampler, told = start()
    told.next_message()
    for celsius, step in ((86.0, "warn"), (91.0, "shed"), (95.0, "slow"), (99.0, "alarm")):
        trees.set_temp(roots, "gpu-thermal", celsius)
        told.until(lambda step=step: told.steps()[-1:] == [step])
        assert sampler.sheds == (step != "warn")
    trees.set_temp(roots, "gpu-thermal", 60.0)
    told.until(lambda: told.steps()[-1] == "normal")
    assert told.steps() == ["warn", "shed", "slow", "alarm", "slow", "shed", "warn", "normal"]
    assert told.states("thermal", "hot") == told.states("thermal", "alarm") == ["raised", "cleared"]
    assert not sampler.sheds


def test_the_line_is_asked_to_slow_down_and_let_go_again(start, roots):
    sampler, told = start()
    for _ in range(10):
        sampler.inspected(inspection())
        time.sleep(0.02)
    trees.set_temp(roots, "gpu-thermal", 95.0)
    told.until(lambda: told.slow_downs)
    raised = told.slow_downs[0]
    assert (raised.state, raised.level) == ("raised", "slow") and raised.hottest_c == 95.0
    assert raised.current_rate_hz is not None and raised.sustainable_rate_hz is not None
    assert 0 < raised.sustainable_rate_hz < raised.current_rate_hz
    trees.set_temp(roots, "gpu-thermal", 60.0)
    told.until(lambda: len(told.slow_downs) == 2)
    assert (told.slow_downs[1].state, told.slow_downs[1].level) == ("cleared", None)


def test_throttling_is_a_fault_with_its_duration_and_each_unit_is_told(start, roots):
    sampler, told = start()
    told.next_message()
    trees.set_throttle(roots, "gpu")
    told.until(lambda: sampler.conditions is not None and sampler.conditions.throttled)
    begun_s = time.monotonic()
    assert told.looks[-1][1] and told.next_message().throttle_causes == ["thermal_alert"]
    trees.set_throttle(roots, "gpu", False)
    took_s = time.monotonic() - begun_s
    told.until(lambda: told.states("device", "throttled_thermal_alert") == ["raised", "cleared"])
    assert told.faults[-1][3]["lasted_s"] == pytest.approx(took_s, abs=1.0)
    assert sampler.conditions is not None and not sampler.conditions.throttled


def test_what_sysfs_does_not_tell_is_taken_from_jtop(start):
    jtop = Jtop()
    jtop.reading = JtopReading(DeviceSample(at_ns=1, source="jtop", emc_mhz=2133.0, hottest_c=80.0), 1.0)
    _, told = start(extra=jtop)
    message = told.next_message()
    assert message.emc_clock_mhz == 2133.0
    assert message.hottest_c == 45.3 and message.source == "sysfs"


def test_trouble_with_jtop_is_one_fault_until_it_answers_again(start):
    jtop = Jtop()
    jtop.trouble = "the jtop service does not run: sudo systemctl start jtop"
    _, told = start(extra=jtop)
    assert told.next_message().hottest_c == 45.3
    jtop.trouble, jtop.reading = None, JtopReading(DeviceSample(at_ns=1, source="jtop"), 1.0)
    told.until(lambda: told.states("telemetry", "jtop") == ["raised", "cleared"])


def test_another_trouble_with_jtop_is_told_in_its_own_words(start):
    jtop = Jtop()
    jtop.trouble = "the jtop service went away"
    _, told = start(extra=jtop)
    told.until(lambda: told.states("telemetry", "jtop") == ["raised"])
    jtop.trouble = "Mismatch version"
    told.until(lambda: told.states("telemetry", "jtop") == ["raised", "cleared", "raised"])


def test_jtop_is_stopped_with_the_sampler(start):
    jtop = Jtop()
    sampler, told = start(extra=jtop)
    told.next_message()
    sampler.stop(5.0)
    assert jtop.stopped_on is not None


def test_a_look_that_raises_is_a_fault_and_not_the_end(start, caplog):
    class Reader:
        looks = 0

        def read(self):
            self.looks += 1
            if self.looks == 2:
                raise RuntimeError("a bug")
            return DeviceSample(at_ns=time.monotonic_ns(), hottest_c=40.0)

    _, told = start(reader=Reader())
    told.until(lambda: told.states("telemetry", "internal_error") and told.messages)
    assert told.next_message().hottest_c == 40.0
    assert "telemetry stumbled" in caplog.text


def test_a_machine_that_tells_nothing_is_told_as_such(start, tmp_path):
    nowhere = Roots(*(tmp_path / "nowhere" / name for name in ("sys", "proc", "etc", "var")))
    sampler, told = start(machine=nowhere)
    message = told.next_message()
    assert message.temps_c == {} and message.hottest_c is None and message.gpu_clock_mhz is None
    assert not message.throttled and message.thermal_level == "normal" and not sampler.sheds


def test_an_end_is_quick_and_nothing_is_told_after_it(start):
    sampler, told = start()
    told.next_message()
    begun_s = time.monotonic()
    sampler.stop(5.0)
    assert time.monotonic() - begun_s < 2.0
    count = len(told.messages)
    time.sleep(0.5)
    assert len(told.messages) == count
