from __future__ import annotations

import dataclasses
import hashlib
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from defectd.errors import ModelError, StateError
from defectd.models.bundle import open_bundle
from defectd.models.catalog import SCHEMA, SCHEMA_VERSION, Catalog
from defectd.models.store import Store
from support.releases import release, small

FINGERPRINT = "ab" * 16


@pytest.fixture
def store(tmp_path):
    with_store = Store(tmp_path / "models")
    yield with_store
    with_store.close()


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def reopened(directory: Path):
    return open_bundle(directory, None, now=None, allow_unsigned=True)


def test_an_imported_release_can_be_opened_like_the_bundle(store, tmp_path):
    bundle = small(tmp_path / "bundle")
    stored = store.import_bundle(bundle)
    assert stored.directory.name == f"1-{bundle.manifest_sha256[:12]}"
    again = reopened(stored.directory)
    assert (again.manifest, again.manifest_sha256) == (bundle.manifest, bundle.manifest_sha256)
    assert store.release(bundle.manifest_sha256) == stored
    assert store.release("ff" * 32) is None


def test_blobs_are_read_only_shared_and_named_by_their_content(store, tmp_path):
    one, two = small(tmp_path / "one", 1), small(tmp_path / "two", 2)
    first, second = store.import_bundle(one), store.import_bundle(two)
    blobs = list((store.directory / "blobs/sha256").iterdir())
    assert len(blobs) == 3  # two networks, and the ONNX file that both have
    assert {stat.S_IMODE(blob.stat().st_mode) for blob in blobs} == {0o400}
    assert (first.directory / "model.onnx").samefile(second.directory / "model.onnx")
    assert [each.release_seq for each in store.releases()] == [2, 1]


def test_the_state_is_for_its_owner_alone(store):
    for directory in (store.directory, store.directory / "blobs/sha256", store.directory / "engines"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_importing_twice_changes_nothing(store, tmp_path):
    bundle = small(tmp_path / "bundle")
    first = store.import_bundle(bundle)
    before = files(store.directory)
    assert store.import_bundle(bundle) == first
    assert store.import_bundle(reopened(first.directory)) == first  # even from its own directory
    assert files(store.directory) == before


def test_importing_again_repairs_what_was_damaged(store, tmp_path):
    bundle = small(tmp_path / "bundle")
    stored = store.import_bundle(bundle)
    network = stored.directory / "model.torchscript"
    network.chmod(0o600)
    network.write_bytes(b"x" * 1000)  # the blob, too: it is the same file
    (stored.directory / "model.onnx").unlink()
    store.import_bundle(bundle)
    assert reopened(stored.directory).manifest == bundle.manifest


def test_a_file_that_changed_after_it_was_verified_is_refused_and_leaves_nothing(store, tmp_path):
    bundle = small(tmp_path / "bundle")
    for change in (b"\x02" * 1000, b"\x01" * 999, b"\x01" * 1001):
        (bundle.directory / "model.torchscript").write_bytes(change)
        with pytest.raises(ModelError, match=r"model\.torchscript: is not what the manifest declares"):
            store.import_bundle(bundle)
    assert not files(store.directory / "blobs") and not store.releases()


def test_a_manifest_that_changed_after_it_was_verified_is_refused(store, tmp_path):
    bundle = small(tmp_path / "bundle")
    with (bundle.directory / "manifest.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ModelError, match=r"manifest\.json: has changed"):
        store.import_bundle(bundle)
    assert not files(store.directory / "releases") and not files(store.directory / "blobs")


def test_a_link_in_place_of_a_file_is_not_followed(store, tmp_path):
    bundle = small(tmp_path / "bundle")
    network = bundle.directory / "model.torchscript"
    network.replace(tmp_path / "elsewhere")
    network.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"model\.torchscript: Too many levels of symbolic links; copy the bundle"):
        store.import_bundle(bundle)
    network.unlink()
    with pytest.raises(ModelError, match=r"model\.torchscript: No such file"):
        store.import_bundle(bundle)
    assert not store.releases()


def test_where_there_are_no_hard_links_files_are_copied(store, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    stored = store.import_bundle(small(tmp_path / "bundle"))
    assert reopened(stored.directory).manifest.release_seq == 1
    assert (stored.directory / "model.onnx").stat().st_nlink == 1


def test_a_bundle_for_which_there_is_no_space_is_refused_before_a_byte_is_written(store, tmp_path):
    bundle = small(tmp_path / "bundle")
    huge = bundle.manifest.artifacts[0].model_copy(update={"size": 4 * 1024**4})
    manifest = bundle.manifest.model_copy(update={"artifacts": [huge]})
    with pytest.raises(StateError, match=r"MB are free, this bundle needs 4398\d\d\d\.\d MB; free some space"):
        store.import_bundle(dataclasses.replace(bundle, manifest=manifest))
    assert not files(store.directory / "blobs")


def test_pointers_are_set_together_and_only_to_releases_that_are_there(store, tmp_path):
    one = store.import_bundle(small(tmp_path / "one", 1), "factory").manifest_sha256
    two = store.import_bundle(small(tmp_path / "two", 2), "candidate").manifest_sha256
    store.set_pointers({"previous": one, "current": two, "candidate": None})
    assert store.pointers() == {"current": two, "previous": one, "factory": one}
    with pytest.raises(ModelError, match="candidate: the release ffff"):
        store.set_pointers({"current": one, "candidate": "ff" * 32})
    assert store.pointers()["current"] == two  # nothing of it was done


def test_garbage_collection_never_touches_what_a_pointer_names(store, tmp_path):
    kept = {}
    for seq, pointer in enumerate(("current", "previous", "candidate", "factory", None, None), 1):
        bundle = small(tmp_path / str(seq), seq)
        stored = store.import_bundle(bundle, pointer)
        engine = store.engine_cache(f"{seq:032x}", bundle.manifest.artifacts[0].sha256)
        (engine / "model.plan").write_bytes(b"plan")
        kept[stored] = pointer is not None
    (store.directory / "blobs/sha256/left.tmp").write_bytes(b"half")
    (store.directory / "releases/9-left.tmp").mkdir()
    (store.directory / "engines/left").mkdir()
    assert store.collect_garbage() == 2 * 1000 + 2 * len(b"plan") + len(b"half") + 2 * _manifest_bytes(kept)
    assert {each for each in kept if kept[each]} == set(store.releases())
    for stored in store.releases():
        assert reopened(stored.directory).manifest_sha256 == stored.manifest_sha256
    assert len(list((store.directory / "releases").iterdir())) == 4
    assert sorted(path.name for path in (store.directory / "engines").iterdir()) == [f"{n:032x}" for n in range(1, 5)]
    assert len(list((store.directory / "blobs/sha256").iterdir())) == 5


def _manifest_bytes(kept) -> int:
    """Of one of them: all manifests are equally long."""
    return (next(each for each in kept if kept[each]).directory / "manifest.json").stat().st_size


def test_engines_of_an_older_version_go_when_the_live_ones_are_named(store, tmp_path):
    bundle = small(tmp_path / "bundle")
    store.import_bundle(bundle, "current")
    for fingerprint in ("aa" * 16, "bb" * 16):
        store.engine_cache(fingerprint, bundle.manifest.artifacts[0].sha256)
    store.collect_garbage(live_engines={"bb" * 16})
    assert [path.name for path in (store.directory / "engines").iterdir()] == ["bb" * 16]


def built(store, data: bytes = b"a plan") -> Path:
    path = store.engine_cache(FINGERPRINT, "cd" * 32) / "model.plan"
    path.write_bytes(data)
    store.record_engine(FINGERPRINT, path.name, hashlib.sha256(data).hexdigest())
    return path


def test_an_engine_that_was_built_here_is_hashed_at_each_load(store):
    assert store.engine(FINGERPRINT) is None
    path = built(store)
    engine = store.engine(FINGERPRINT)
    assert (engine.path, engine.size) == (path, 6) and stat.S_IMODE(path.stat().st_mode) == 0o400


def test_an_engine_with_a_flipped_byte_is_refused_deleted_and_can_be_built_again(store):
    path = built(store)
    path.chmod(0o600)
    path.write_bytes(b"a plam")
    assert store.engine(FINGERPRINT) is None
    assert not path.exists()
    assert store.engine(FINGERPRINT) is None
    built(store)
    assert store.engine(FINGERPRINT) is not None


def test_an_engine_that_is_gone_or_replaced_by_a_link_is_refused(store, tmp_path):
    path = built(store)
    path.rename(tmp_path / "moved")
    assert store.engine(FINGERPRINT) is None
    path = built(store)
    path.replace(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert store.engine(FINGERPRINT) is None
    assert (tmp_path / "moved").exists()


def test_an_engine_that_is_not_what_its_builder_says_is_not_owned(store):
    path = store.engine_cache(FINGERPRINT, "cd" * 32) / "model.plan"
    path.write_bytes(b"a plan")
    with pytest.raises(ModelError, match="something else wrote it"):
        store.record_engine(FINGERPRINT, path.name, "00" * 32)
    assert store.engine(FINGERPRINT) is None


def test_decisions_and_acceptances_are_kept(store, tmp_path):
    stored = store.import_bundle(small(tmp_path / "bundle"), "current").manifest_sha256
    assert store.decision(stored, FINGERPRINT) is None and store.accepted(stored) is None
    store.record_decision(stored, FINGERPRINT, {"runtime": "compiled"})
    store.record_decision(stored, FINGERPRINT, {"runtime": "torchscript"})
    store.accept(stored, ["key-1", "key-2"])
    store.close()
    again = Store(store.directory)
    assert again.decision(stored, FINGERPRINT) == {"runtime": "torchscript"}
    assert again.decision(stored, "cd" * 16) is None
    assert again.accepted(stored) == ("key-1", "key-2")
    again.collect_garbage()
    assert again.accepted(stored) == ("key-1", "key-2")
    again.close()


def test_a_timing_cache_of_another_version_is_deleted(store):
    store.timing_cache("aa" * 16).write_bytes(b"old")
    path = store.timing_cache("bb" * 16)
    path.write_bytes(b"new")
    assert store.timing_cache("bb" * 16) == path
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", [b"", b"not a database, but long enough to be one" * 100])
def test_a_damaged_database_is_an_error_that_says_what_to_do(tmp_path, damage):
    store = Store(tmp_path / "models")
    bundle = small(tmp_path / "bundle")
    stored = store.import_bundle(bundle, "current")
    store.close()
    database = tmp_path / "models/models.db"
    if damage:
        database.write_bytes(damage)
    else:  # pages in the middle
        data = bytearray(database.read_bytes())
        data[4096:-4096] = b"\xff" * len(data[4096:-4096])
        database.write_bytes(data)
    with pytest.raises(StateError, match=r"its database is damaged: stop defectd, move .*models away"):
        Store(tmp_path / "models")
    (tmp_path / "models").rename(tmp_path / "aside")  # what it says works
    begun_anew = Store(tmp_path / "models")
    begun_anew.import_bundle(reopened(tmp_path / "aside/releases" / stored.directory.name))
    begun_anew.close()


def test_without_its_database_a_release_is_rubbish_that_an_import_replaces(tmp_path):
    store = Store(tmp_path / "models")
    bundle = small(tmp_path / "bundle")
    stored = store.import_bundle(bundle)
    store.close()
    (tmp_path / "models/models.db").unlink()
    store = Store(tmp_path / "models")
    assert store.releases() == []
    assert store.import_bundle(reopened(stored.directory)).directory == stored.directory
    assert reopened(stored.directory).manifest == bundle.manifest
    store.close()


def test_a_database_of_a_newer_version_is_left_alone(tmp_path):
    Store(tmp_path).close()
    database = sqlite3.connect(str(tmp_path / "models.db"))
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StateError, match="written by a newer defectd"):
        Store(tmp_path)


def test_a_database_of_the_first_version_is_brought_up_to_date_and_keeps_what_it_has(tmp_path, store):
    stored = store.import_bundle(small(tmp_path / "bundle"), "current").manifest_sha256
    old = sqlite3.connect(str(tmp_path / "models.db"), isolation_level=None)
    for statement in SCHEMA[1]:
        old.execute(statement)
    old.execute("INSERT INTO releases VALUES (?, 'pcb', '1.1', 1, '1-ab', '2026-05-01')", (stored,))
    old.execute("INSERT INTO pointers VALUES ('current', ?)", (stored,))
    old.execute("PRAGMA user_version = 1")
    old.close()
    for _ in range(2):  # the second time, there is nothing to do
        catalog = Catalog(tmp_path)
        assert catalog.pointers() == {"current": stored} and catalog.releases()[0].release_seq == 1
        assert (
            catalog.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)] and catalog.rows("SELECT * FROM rollouts") == []
        )
        catalog.close()


def test_an_update_of_the_database_that_fails_leaves_it_as_it_was(tmp_path):
    old = sqlite3.connect(str(tmp_path / "models.db"), isolation_level=None)
    for statement in (*SCHEMA[1], "PRAGMA user_version = 1", "CREATE TABLE quarantine (mine TEXT)"):
        old.execute(statement)
    with pytest.raises(StateError, match="table quarantine already exists"):
        Catalog(tmp_path)
    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    tables = {row[0] for row in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "quarantine" in tables and "rollouts" not in tables
    old.close()


def test_a_transaction_is_done_as_a_whole_or_not_at_all(store, tmp_path):
    one = store.import_bundle(small(tmp_path / "one", 1), "current").manifest_sha256
    two = store.import_bundle(small(tmp_path / "two", 2)).manifest_sha256
    with pytest.raises(KeyboardInterrupt), store.transaction() as change:
        change.point("current", two)
        change.execute("INSERT INTO floors VALUES ('release_seq', 2)")
        raise KeyboardInterrupt
    assert store.pointers() == {"current": one} and store.rows("SELECT * FROM floors") == []
    with store.transaction() as change:
        change.point("current", two)
        change.execute("INSERT INTO floors VALUES ('release_seq', 2)")
    assert store.pointers() == {"current": two} and store.rows("SELECT * FROM floors") == [("release_seq", 2)]


def test_a_place_that_is_no_directory_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"cannot use .*file"):
        Store(tmp_path / "file")


def test_the_same_name_and_sequence_with_other_content_is_another_release(store, tmp_path):
    one = release(tmp_path / "one", {"model.onnx": ("onnx", b"1")}, 5)
    two = release(tmp_path / "two", {"model.onnx": ("onnx", b"2")}, 5)
    assert store.import_bundle(one).directory != store.import_bundle(two).directory
    assert len(store.releases()) == 2
