"""Power mode, clocks, heat and time, on machines that are not here."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from defectd.doctor.checks.machine import check_board, check_clocks, check_memory, clock_state
from defectd.doctor.patient import Occupancy, Patient, Places
from defectd.doctor.report import Finding, Level
from defectd.telemetry.platforms import read_board
from defectd.telemetry.sample import Roots
from defectd.telemetry.sysfs import Surveyor
from support import trees

NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)


@pytest.fixture
def orin(tmp_path: Path) -> Roots:
    return trees.tree(tmp_path, "agx-orin-jp6")


def patient(roots: Roots, occupied: bool = False) -> Patient:
    sample = Surveyor(roots, Path("/"), pause=lambda _: None).read()
    return Patient(
        Path("station.toml"), read_board(roots), sample, places=Places(roots), occupancy=Occupancy(occupied)
    )  # fmt: skip


def worst(findings: list[Finding], subject: str) -> Finding:
    order = list(Level)
    return max((one for one in findings if one.subject == subject), key=lambda one: order.index(one.level))


def test_a_cool_orin_in_its_fastest_mode_is_fit(orin):
    one = patient(orin)
    findings = [*check_board(one), *check_clocks(one), *check_memory(one)]
    assert {finding.level for finding in findings} == {Level.OK}
    assert worst(findings, "power mode").found == "MAXN, no other lets the GPU run faster"
    assert "AGX Orin" in worst(findings, "board").found


def test_a_slower_power_mode_is_told_with_the_command_that_changes_it(orin):
    trees.set_mode(orin, 1)
    told = worst(list(check_board(patient(orin))), "power mode")
    assert told.level is Level.WARNING
    assert told.found == "MODE_15W lets the GPU run at 408 MHz at most; MAXN would at full speed"
    assert "sudo nvpmodel -m 0" in told.remedy


def test_a_power_mode_that_nobody_describes_is_a_warning(orin):
    trees.set_mode(orin, 7)
    assert worst(list(check_board(patient(orin))), "power mode").level is Level.WARNING


def test_over_currents_of_a_cool_machine_point_at_the_power_supply(orin):
    trees.set_over_current(orin, "oc3", 27_390)
    told = worst(list(check_clocks(patient(orin))), "power supply")
    assert told.level is Level.WARNING
    assert "oc3 27390 times" in told.found
    assert told.figures == {"oc3": 27_390}
    assert "supply" in told.remedy


def test_throttling_is_told_by_its_domain(orin):
    trees.set_throttle(orin, "gpu")
    told = worst(list(check_clocks(patient(orin))), "throttling")
    assert (told.level, told.found) == (Level.WARNING, "now, for heat: gpu")


def test_a_clock_that_is_held_below_its_power_mode_is_told(orin):
    trees.set_gpu_clock(orin, max_mhz=612)
    assert "gpu may not run as fast" in worst(list(check_clocks(patient(orin))), "throttling").found


def test_pinned_clocks_are_told_from_those_that_sleep(orin):
    assert "slows down when idle" in worst(list(check_clocks(patient(orin))), "GPU clock").found
    trees.set_gpu_clock(orin, min_mhz=1300.5, max_mhz=1300.5)
    assert "pinned to 13" in worst(list(check_clocks(patient(orin))), "GPU clock").found


def test_a_hot_machine_is_told_before_it_throttles(orin):
    trees.set_temp(orin, "tj-thermal", 91.0)
    assert worst(list(check_clocks(patient(orin))), "heat").found == "91 °C at its hottest"
    assert worst(list(check_clocks(patient(orin))), "heat").level is Level.WARNING


def test_memory_that_is_too_little_for_torch_is_enough_beside_a_daemon_that_has_its_own(orin):
    trees.set_memory(orin, available_mb=900)
    assert worst(list(check_memory(patient(orin))), "memory").level is Level.WARNING
    assert worst(list(check_memory(patient(orin, occupied=True))), "memory").level is Level.OK


def test_a_clock_in_the_past_is_an_error_and_one_that_drifts_a_warning():
    past = clock_state(datetime(1970, 1, 2, tzinfo=timezone.utc), None, is_jetson=True)
    assert past.level is Level.ERROR
    assert "battery" in past.remedy
    assert clock_state(NOON, False, is_jetson=False).level is Level.WARNING
    assert clock_state(NOON, True, is_jetson=False).level is Level.OK
    assert clock_state(NOON, None, is_jetson=False).level is Level.OK


@pytest.mark.parametrize("machine", sorted(trees.SHAPES))
def test_every_known_machine_is_examined_without_an_error(tmp_path, machine):
    one = patient(trees.tree(tmp_path, machine))
    findings = [*check_board(one), *check_clocks(one), *check_memory(one)]
    assert not [finding for finding in findings if finding.level is Level.ERROR]
    assert worst(findings, "heat").level is Level.OK
