"""Which model a station starts with: on real stores and signed bundles."""

from __future__ import annotations

import os
import shutil

import pytest

pytest.importorskip("cryptography")

from defectd.checked import build_recipe
from defectd.committed import committed_model, lost_marker
from defectd.model_source import open_model
from defectd.models.bundle import open_bundle
from defectd.models.store import Store
from defectd.settings import Settings
from support.bundles import RELEASE_KEY, ROOT_KEY, make_root, signed_root, write_bundle


@pytest.fixture
def station(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "usb").mkdir()
    (tmp_path / "root.json").write_bytes(signed_root(make_root(), ROOT_KEY))
    write_bundle(tmp_path / "bundle", RELEASE_KEY)
    return tmp_path


def start(station, bundle="bundle"):
    settings = Settings.model_validate(
        {
            "station": {"site": "a", "area": "b", "line": "c", "station": "d"},
            "model": {"path": station / bundle, "trust": station / "root.json", "device": "cpu"},
            "camera": [{"name": "top", "kind": "simulated"}],
            "inspection": {"defect": [{"class_name": "open", "code": "OPEN", "min_confidence": 0.5}]},
            "state": {"directory": station / "state"},
            "rollout": {"source": [{"alias": "usb", "directory": station / "usb"}]},
        }
    )
    committed = committed_model(open_model(settings, dev=False), settings, build_recipe(settings))
    if committed.store is not None:
        committed.store.close()
    return committed


def commit(station, name, **changes):
    """What a rollout leaves: another release is `current`."""
    directory = write_bundle(station / name, RELEASE_KEY, **changes)
    store = Store(station / "state" / "models")
    release = store.import_bundle(open_bundle(directory, make_root(), now=None), "current")
    store.set_pointers({"previous": store.pointers()["factory"]})
    store.close()
    return release


def test_the_configured_bundle_is_the_factory_model_and_served_first(station):
    committed = start(station)
    assert committed.warnings == []
    pointers = Store(station / "state" / "models").pointers()
    assert pointers == {"factory": committed.model.sha256, "current": committed.model.sha256}


def test_a_committed_release_is_served_from_the_store_whatever_the_configuration_names(station):
    start(station)
    release = commit(station, "new", version="2", release_seq=9)
    shutil.rmtree(station / "new")
    committed = start(station)
    assert (committed.model.version, committed.model.sha256) == ("2", release.manifest_sha256)
    assert committed.model.bundle.directory == release.directory


def test_a_person_who_names_another_bundle_is_obeyed(station):
    start(station)
    commit(station, "new", version="2", release_seq=9)
    write_bundle(station / "third", RELEASE_KEY, version="3", release_seq=10)
    assert start(station, "third").model.version == "3"
    assert start(station, "third").model.version == "3"


def test_a_person_on_the_station_can_bring_the_configured_model_back(station):
    first = start(station)
    commit(station, "new", version="2", release_seq=9)
    (station / "state" / "serve-configured").touch()
    assert start(station).model.sha256 == first.model.sha256
    assert not (station / "state" / "serve-configured").exists()
    assert Store(station / "state" / "models").pointers()["current"] == first.model.sha256


def test_a_committed_release_that_was_damaged_gives_way_to_the_previous_one(station):
    first = start(station)
    release = commit(station, "new", version="2", release_seq=9)
    victim = next(release.directory.glob("*.onnx"))
    victim.chmod(0o600)
    victim.unlink()
    victim.write_bytes(b"something else")
    committed = start(station)
    assert committed.model.sha256 == first.model.sha256
    assert "the current model cannot be served" in committed.warnings[0] and "model.onnx" in committed.warnings[0]
    assert Store(station / "state" / "models").pointers()["current"] == first.model.sha256


def test_a_committed_release_for_other_hardware_gives_way_too(station):
    first = start(station)
    commit(station, "new", version="2", release_seq=9, compatible=["sm_1"])
    committed = start(station)
    assert committed.model.sha256 == first.model.sha256 and "sm_1" in committed.warnings[0]


def test_three_starts_that_come_to_nothing_lead_back(station):
    first = start(station)
    release = commit(station, "new", version="2", release_seq=9)
    served = [start(station).model.sha256 for _ in range(4)]
    assert served == [release.manifest_sha256] * 3 + [first.model.sha256]
    store = Store(station / "state" / "models")
    assert store.rows("SELECT code FROM quarantine") == [("boot_loop",)]
    store.close()


def test_a_lost_database_means_the_factory_model_and_no_rollouts_until_a_person_has_looked(station):
    first = start(station)
    commit(station, "new", version="2", release_seq=9)
    for path in (station / "state" / "models").glob("models.db*"):
        path.write_bytes(os.urandom(20_000))
    committed = start(station)
    assert committed.model.sha256 == first.model.sha256
    assert "put aside" in committed.warnings[0]
    assert lost_marker(station / "state").exists()
