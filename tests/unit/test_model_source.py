"""Which root, which bundle, which warning: what `[model]` comes to before anything is started."""

from __future__ import annotations

import pytest

pytest.importorskip("cryptography")

from defectd.checked import build_recipe
from defectd.committed import committed_model
from defectd.errors import ModelError
from defectd.model_planner import ModelPlanner
from defectd.model_source import open_model
from defectd.settings import Settings
from support.bundles import RELEASE_KEY, ROOT_KEY, STRANGER, make_root, signed_root, write_bundle


def settings(tmp_path, **model):
    return Settings.model_validate(
        {
            "station": {"site": "a", "area": "b", "line": "c", "station": "d"},
            "model": {"path": tmp_path / "bundle", "trust": tmp_path / "root.json", "device": "cpu", **model},
            "camera": [{"name": "top", "kind": "simulated"}],
            "inspection": {"defect": [{"class_name": "open", "code": "OPEN", "min_confidence": 0.5}]},
            "state": {"directory": tmp_path / "state"},
        }
    )


@pytest.fixture
def station(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "root.json").write_bytes(signed_root(make_root(), ROOT_KEY))
    write_bundle(tmp_path / "bundle", RELEASE_KEY)
    return tmp_path


def served(tmp_path):
    """As at a start of the daemon."""
    one = settings(tmp_path)
    return committed_model(open_model(one, dev=False), one, build_recipe(one))


def test_a_signed_bundle_is_served_from_the_store(station):
    committed = served(station)
    assert (committed.model.name, committed.warnings) == ("pcb", [])
    assert (station / "state" / "models" / "releases").is_dir()


def test_an_unsigned_bundle_is_served_with_dev_alone(tmp_path):
    write_bundle(tmp_path / "bundle")
    with pytest.raises(ModelError, match="nobody vouches for this bundle"):
        open_model(settings(tmp_path, trust=None), dev=False)
    assert "nobody vouches" in open_model(settings(tmp_path, trust=None), dev=True).warning


def test_a_root_that_follows_is_trusted_and_the_old_one_no_longer(station):
    old = (station / "root.json").read_bytes()
    served(station)
    (station / "root.json").write_bytes(signed_root(make_root(version=2), ROOT_KEY))
    served(station)
    (station / "root.json").write_bytes(old)
    with pytest.raises(ModelError, match="is version 1, this device trusts version 2; to trust anew by hand, delete"):
        served(station)


def test_a_root_of_somebody_else_is_not_trusted(station):
    served(station)
    (station / "root.json").write_bytes(signed_root(make_root(version=2, root=(STRANGER,)), STRANGER))
    with pytest.raises(ModelError, match="does not follow version 1, which this device trusts"):
        served(station)


def test_an_expired_bundle_that_this_device_never_accepted_is_refused(station):
    served(station)
    import shutil

    shutil.rmtree(station / "bundle")
    write_bundle(station / "bundle", RELEASE_KEY, expires="2026-05-02T10:00:00Z")
    with pytest.raises(ModelError, match="expired at 2026-05-02"):
        served(station)


def test_a_store_that_cannot_be_used_is_no_reason_to_stop(station):
    (station / "state" / "models").write_text("not a directory")
    committed = served(station)
    assert "the bundle is served from" in committed.warnings[0]
    pytest.importorskip("torch", reason="without it there is nothing to plan")
    planner = ModelPlanner(committed.model, committed.store, settings(station), build_recipe(settings(station)))
    assert planner.first_plans()[0].configuration["path"] == str(station / "bundle" / "model.torchscript")
    assert not planner.undecided


def test_a_damaged_store_is_put_aside_and_begun_anew(station):
    served(station)
    for path in (station / "state" / "models").glob("models.db*"):
        path.write_bytes(b"not a database, but long enough to look at" * 100)
    committed = served(station)
    assert "put aside" in committed.warnings[0]
    assert len(list((station / "state").glob("models.damaged-*"))) == 1
