from __future__ import annotations

from pathlib import Path

from defectd.telemetry.sample import ROOT_VARIABLE, Roots


def test_without_the_variable_they_are_the_machines_own(monkeypatch):
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    assert Roots.of_environment() == Roots(Path("/sys"), Path("/proc"), Path("/etc"), Path("/var"))


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv(ROOT_VARIABLE, "")
    assert Roots.of_environment() == Roots()


def test_what_is_below_the_folder_comes_from_there_and_the_rest_from_the_machine(monkeypatch, tmp_path):
    for name in ("sys", "etc"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert Roots.of_environment() == Roots(sys=tmp_path / "sys", etc=tmp_path / "etc")
