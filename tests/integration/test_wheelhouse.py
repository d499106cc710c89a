"""Locks resolved anew against the index that pip knows, for the Pythons and machines of JetPack 5, 6 and 7.

Skipped where no index answers. The locks of the repository themselves are looked at in tests/deploy.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("the controller's side needs Python 3.11", allow_module_level=True)
pytest.importorskip("uv", reason="needs uv; .venv-deploy has it (make wheels)")

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy"))
from wheelhouse import fetch as fetching
from wheelhouse.fetch import fetch
from wheelhouse.locks import read_lock, requirements, resolve
from wheelhouse.targets import WheelError, named

SMALL = "annotated-types"


@pytest.fixture(scope="module", autouse=True)
def index(tmp_path_factory):
    """Something answers."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest",
               str(tmp_path_factory.mktemp("index")), SMALL]  # fmt: skip
    if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("no package index answers here")


def _pins(text, tmp_path):
    path = tmp_path / "lock.txt"
    path.write_text(text)
    return {pin.name: pin for pin in read_lock(path)}


@pytest.mark.parametrize("name", ["cp38-aarch64", "cp310-aarch64", "cp312-aarch64"])
def test_there_is_a_set_of_wheels_for_each_jetpack(name, tmp_path):
    pins = _pins(resolve(named(name), requirements()), tmp_path)
    assert pins["numpy"].version.startswith("1.") and "torch" not in pins
    assert ("eval-type-backport" in pins) == (name == "cp38-aarch64")  # its marker is judged for the target, not for us


def test_what_would_replace_jetpacks_torch_is_refused(tmp_path):
    with pytest.raises(WheelError, match=r"cp310-aarch64: no set of wheels fits with jetpack6\.txt"):
        resolve(named("cp310-aarch64"), [*requirements(), "torch"])


def test_wheels_of_another_machine_are_fetched_with_the_hashes_of_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "CACHE", tmp_path)
    target = named("cp38-aarch64")
    pins = _pins(resolve(target, ["cffi"]), tmp_path)
    wheels = {wheel.pin.name: wheel for wheel in fetch(target, list(pins.values()))}
    assert "cp38-cp38-manylinux" in wheels["cffi"].path.name and "aarch64" in wheels["cffi"].path.name
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert {wheel.path for wheel in fetch(target, list(pins.values()))} == {wheel.path for wheel in wheels.values()}


def test_a_wheel_that_does_not_match_the_lock_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "CACHE", tmp_path)
    target = named("cp38-aarch64")
    pin = _pins(resolve(target, [SMALL]), tmp_path)[SMALL]
    forged = type(pin)(pin.name, pin.version, ("sha256:" + "0" * 64,))
    with pytest.raises(WheelError, match="the wheels cannot be fetched here"):
        fetch(target, [forged])


def test_a_package_without_wheels_is_built_here_if_it_is_pure(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "CACHE", tmp_path)
    target = named("cp310-aarch64")
    pins = _pins(resolve(target, ["docopt==0.6.2"], sdist_only=["docopt"]), tmp_path)
    (wheel,) = fetch(target, list(pins.values()), sdist_only=["docopt"])
    assert wheel.path.name == "docopt-0.6.2-py2.py3-none-any.whl"
