"""Targets, locks and payloads, as far as they need no index."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile

import pytest
from wheelhouse import fetch as fetching
from wheelhouse import payload as payloads
from wheelhouse.fetch import fetch, name_of
from wheelhouse.locks import DEPLOY, Pin, check_covers, constraints_path, lock_path, read_lock, requirements
from wheelhouse.targets import TARGETS, Target, WheelError, named, provided_by, target_of

NUMPY_1 = ("1.",)


def test_each_target_has_a_lock_that_covers_what_pyproject_asks_for():
    for target in TARGETS:
        check_covers(read_lock(lock_path(target)), requirements(), target.name)


def test_no_lock_holds_what_jetpack_brings():
    for target in TARGETS:
        names = {pin.name for pin in read_lock(lock_path(target))}
        assert not names & {"torch", "torchvision", "tensorrt", "onnxruntime", "opencv-python"}, target.name


def test_on_jetpack_numpy_stays_below_2():
    for target in TARGETS:
        if target.jetpack is None:
            continue
        assert constraints_path(target).is_file()
        (numpy,) = [pin for pin in read_lock(lock_path(target)) if pin.name == "numpy"]
        assert numpy.version.startswith(NUMPY_1)


def test_a_lock_names_no_host():
    for path in (DEPLOY / "lock").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_what_the_system_has_stays_the_systems(facts):
    assert provided_by(facts) == {"opencv-python-headless": "cv2 4.8.0 of the system"}  # its numpy is older than 1.23
    facts["packages"] = {"numpy": "1.26.4"}
    assert provided_by(facts) == {"numpy": "numpy 1.26.4 of the system"}


def test_a_station_finds_its_target(facts):
    assert target_of(facts) is named("cp310-aarch64")


def test_pip_is_told_a_python_that_a_system_has():
    assert named("cp39-x86_64").python_version == "3.9.2"  # 3.9 would be 3.9.0, which cryptography excludes


def test_older_wheels_are_taken_too_but_no_newer_ones():
    platforms = Target((3, 8), "x86_64", 31).platforms
    assert platforms[0] == "manylinux_2_31_x86_64" and "manylinux2014_x86_64" in platforms
    assert "manylinux_2_35_x86_64" not in platforms
    assert "manylinux1_aarch64" not in Target((3, 8), "aarch64", 31).platforms


@pytest.mark.parametrize("line", ["numpy>=1", "numpy==1.0", "numpy==1.0 --hash=md5:00", "-r other.txt"])
def test_a_lock_without_hashes_is_refused(tmp_path, line):
    path = tmp_path / "cp310-aarch64.txt"
    path.write_text(line + "\n")
    with pytest.raises(WheelError, match="no pinned package with hashes; run make lock TARGET=cp310-aarch64"):
        read_lock(path)


def test_a_missing_lock_says_how_to_make_it(tmp_path):
    with pytest.raises(WheelError, match="make lock TARGET=cp310-aarch64"):
        read_lock(tmp_path / "cp310-aarch64.txt")


def test_a_lock_from_before_a_dependency_is_refused():
    with pytest.raises(WheelError, match=r"older than pyproject\.toml: httpx>=1; run make lock"):
        check_covers([Pin("numpy", "1.26.4", ())], ["numpy>=1.23", "httpx>=1", "tomli; python_version < '3.11'"], "x")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "CACHE", tmp_path)
    monkeypatch.setattr(payloads, "CACHE", tmp_path)
    return tmp_path


def _wheel(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(name.encode())
    return Pin(*name_of(path), (f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",))


def test_what_is_in_the_cache_needs_no_index(own_cache):
    target = named("cp310-aarch64")
    pin = _wheel(own_cache / "wheels" / target.name, "some_thing-1.0-py3-none-any.whl")
    (wheel,) = fetch(target, [pin])
    assert wheel.path.name == "some_thing-1.0-py3-none-any.whl" and f"sha256:{wheel.sha256}" in pin.hashes


def test_the_same_content_makes_the_same_payload(own_cache, monkeypatch, facts):
    target = target_of(facts)
    names = ["numpy-1.26.4-cp310-cp310-linux.whl", "pip-26.3-py3-none-any.whl"]
    pins = [_wheel(own_cache / "wheels" / target.name, name) for name in names]
    _wheel(own_cache / "own", "defectd-0.1.0-py3-none-any.whl")
    monkeypatch.setattr(payloads, "read_lock", lambda path: pins)
    monkeypatch.setattr(payloads, "requirements", list)
    own = own_cache / "own" / "defectd-0.1.0-py3-none-any.whl"
    made = payloads.make(facts, own)
    path = own_cache / "payloads" / f"{made['release']}.tar"
    first = path.read_bytes()
    path.unlink()
    assert payloads.make(facts, own) == made and path.read_bytes() == first
    with tarfile.open(path) as archive:
        listed = archive.getnames()
        text = archive.extractfile("requirements.txt").read().decode()
    assert {"payload.json", "systemd/defectd.service", "wheels/defectd-0.1.0-py3-none-any.whl"} <= set(listed)
    assert "numpy==1.26.4 --hash=sha256:" in text and "defectd==0.1.0 --hash" in text and "pip==" not in text
    own.write_bytes(b"other content, same version")
    assert payloads.make(facts, own)["release"] != made["release"]


def test_the_stations_program_is_the_same_bytes_for_the_same_sources(tmp_path):
    first = payloads.station_program(tmp_path / "a").read_bytes()
    assert payloads.station_program(tmp_path / "b").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "a/station.pyz") as archive:
        assert "station/judge.py" in archive.namelist()


def test_a_version_that_is_nowhere_says_where_it_was_looked_for():
    with pytest.raises(
        WheelError, match=r"VERSION=99\.9: neither dist/defectd-99\.9-py3-none-any\.whl nor the tag v99\.9"
    ):
        payloads.build("99.9")
