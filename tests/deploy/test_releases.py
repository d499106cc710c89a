"""Releases on a station: there or not there, never in between."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile

import pytest
from station import releases
from station.places import DeployError, link_durably, read_json, write_durably, write_json


def _release(places, name, at_s, config="", refused=False):
    directory = places.releases / name
    directory.mkdir()
    write_json(directory / "release.json", {})
    os.utime(directory / "release.json", (at_s, at_s))
    if config:
        (directory / "station.toml").write_text(config)
    if refused:
        write_json(places.refused(name), {})


def _payload(path, files):
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def test_a_directory_without_its_last_file_is_no_release(places):
    (places.releases / "0.1.0+11111111").mkdir()
    (places.releases / "0.2.0+22222222.partial").mkdir()
    _release(places, "0.3.0+33333333", 3)
    assert releases.complete(places) == ["0.3.0+33333333"]


def test_a_link_to_what_is_no_release_is_no_current_one(places):
    link_durably(places.current, "releases/0.1.0+11111111")
    assert places.current_release() is None
    _release(places, "0.1.0+11111111", 1)
    assert places.current_release() == "0.1.0+11111111"


@pytest.mark.parametrize("name", ["", "../etc", ".x", "a/b", "0.1.0.partial"])
def test_only_a_plain_name_is_a_release(places, name):
    with pytest.raises(DeployError, match="expected a name like"):
        places.release(name)


def test_the_oldest_go_but_never_the_current_and_the_one_before(places):
    for number in range(1, 6):
        _release(places, f"0.{number}", number)
    link_durably(places.current, "releases/0.1")
    told = releases.prune(places, 3, ["0.2"])
    assert sorted(releases.complete(places)) == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert told["removed"] == [] and not told["changed"]
    told = releases.prune(places, 2)
    assert "0.1" in releases.complete(places) and told["removed"] == ["0.2", "0.3"]


def test_what_a_rollback_would_go_back_to_is_kept(places):
    for number in range(1, 4):
        _release(places, f"0.{number}", number)
    link_durably(places.current, "releases/0.3")
    write_json(places.deploy / "previous.json", {"release": "0.1"})
    assert releases.prune(places, 2)["removed"] == []
    assert releases.prune(places, 1)["removed"] == ["0.2"]


def test_what_was_refused_goes_first(places):
    _release(places, "0.1", 1)
    _release(places, "0.2", 2, refused=True)
    _release(places, "0.3", 3)
    link_durably(places.current, "releases/0.3")
    assert releases.prune(places, 2)["removed"] == ["0.2"]


def test_nothing_is_pruned_while_a_switch_is_under_way(places):
    _release(places, "0.1", 1)
    _release(places, "0.2", 2)
    write_json(places.order, {"id": "x"})
    assert releases.prune(places, 1)["removed"] == []


def test_models_go_when_no_configuration_names_them_any_more(places):
    for name in ("one", "two", "three"):
        (places.etc / "bundles" / name).mkdir(parents=True)
    places.config.write_text('path = "/etc/defectd/bundles/one"')
    _release(places, "0.1", 1, config='path = "/etc/defectd/bundles/two"')
    link_durably(places.current, "releases/0.1")
    assert releases.prune(places, 3)["bundles"] == ["three"]
    assert sorted(one.name for one in (places.etc / "bundles").iterdir()) == ["one", "two"]


def test_what_is_installed_is_not_installed_again(places, tmp_path):
    _release(places, "0.1", 1)
    assert releases.install(places, "0.1", tmp_path / "absent.tar") == {"changed": False, "release": "0.1"}


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_a_payload_that_reaches_outside_is_refused(places, tmp_path, name):
    payload = _payload(tmp_path / "payload.tar", {name: b"x"})
    with pytest.raises(DeployError, match="which is no plain file"):
        releases.install(places, "0.1", payload)
    assert releases.complete(places) == []


def test_wheels_for_another_python_are_refused(places, tmp_path):
    about = {"python": [3, 1], "machine": os.uname().machine}
    payload = _payload(tmp_path / "payload.tar", {"payload.json": json.dumps(about).encode()})
    with pytest.raises(DeployError, match=r"the wheels are for Python 3\.1"):
        releases.install(places, "0.1", payload)


def test_a_changed_pip_is_not_run(places, tmp_path):
    about = {"python": list(sys.version_info[:2]), "machine": os.uname().machine, "pip": "pip-1.whl", "pip_sha256": "0"}
    payload = _payload(tmp_path / "payload.tar", {"payload.json": json.dumps(about).encode(), "wheels/pip-1.whl": b"!"})
    with pytest.raises(DeployError, match=r"pip-1\.whl: is missing or not the one of the lock"):
        releases.install(places, "0.1", payload)


def test_what_an_interrupted_attempt_left_is_thrown_away(places, tmp_path):
    (places.releases / "0.9.partial/lib").mkdir(parents=True)
    with pytest.raises(DeployError, match="cannot be unpacked"):
        releases.install(places, "0.1", tmp_path / "absent.tar")
    assert not (places.releases / "0.9.partial").exists()


def test_a_file_keeps_its_owner_and_mode_when_it_is_replaced(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o640)
    write_durably(tmp_path / "a", b"new", like=tmp_path / "a")
    assert (tmp_path / "a").read_text() == "new" and (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_half_file_is_no_json(tmp_path):
    (tmp_path / "a").write_text('{"id": ')
    assert read_json(tmp_path / "a") is None and read_json(tmp_path / "absent") is None
