"""The store under kill -9, on a full disk, and used by several processes."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from defectd.errors import ModelError, StateError
from defectd.models.bundle import open_bundle
from defectd.models.store import Store
from support.releases import small

KILLS = 25
MIB = 1 << 20

IMPORTER = """
    import hashlib, itertools, sys
    from pathlib import Path
    from defectd.models.bundle import open_bundle
    from defectd.models.store import Store
    bundles = [open_bundle(path, None, now=None, allow_unsigned=True) for path in sorted(Path(sys.argv[2]).iterdir())]
    store = Store(Path(sys.argv[1]))
    print("ready", flush=True)
    for number in itertools.count(int(sys.argv[3])):
        bundle = bundles[number % len(bundles)]
        release = store.import_bundle(bundle, "candidate")
        current = store.pointers().get("current")
        store.set_pointers({"previous": current, "current": bundle.manifest_sha256, "candidate": None})
        fingerprint = f"{number % len(bundles):032x}"
        artifact = bundle.manifest.artifacts[0].sha256
        plan = store.engine_cache(fingerprint, artifact) / "model.plan"
        data = b"plan " * 1000
        if store.engine(fingerprint) is None:
            plan.write_bytes(data)
            store.record_engine(fingerprint, plan.name, hashlib.sha256(data).hexdigest())
        store.record_decision(bundle.manifest_sha256, fingerprint, {"runtime": "torchscript"})
        store.collect_garbage()
        print(number, bundle.manifest_sha256, flush=True)
"""


def importer(store: Path, bundles: Path, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(IMPORTER), str(store), str(bundles), str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check(directory: Path) -> Store:
    """Whatever happened: all that the database names is there, whole, and can be served."""
    store = Store(directory)
    known = {release.manifest_sha256 for release in store.releases()}
    assert set(store.pointers().values()) <= known
    for release in store.releases():
        bundle = open_bundle(release.directory, None, now=None, allow_unsigned=True)  # hashes every file
        assert bundle.manifest_sha256 == release.manifest_sha256
    return store


def test_killed_at_any_moment_it_names_only_what_is_whole_and_goes_on(tmp_path):
    for seq in range(1, 6):
        small(tmp_path / f"bundles/{seq}", seq, size=2 * MIB)
    generator, number, imported = random.Random(7), 0, 0
    for _ in range(KILLS):
        process = importer(tmp_path / "models", tmp_path / "bundles", number)
        assert process.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0, 0.25))
        process.kill()
        said = process.stdout.read().splitlines()
        process.stdout.close()
        process.wait()
        store = check(tmp_path / "models")
        if said:  # what it had said to be done is done, whatever came after
            number, manifest_sha256 = int(said[-1].split()[0]) + 1, said[-1].split()[1]
            imported += len(said)
            assert manifest_sha256 in store.pointers().values()
        store.close()
    assert imported > KILLS / 5  # it was not always killed before it had begun
    with contextlib.closing(check(tmp_path / "models")) as store:
        store.collect_garbage()
        leftovers = list(store.directory.rglob("*.tmp*"))
        kept = {release.directory.name for release in store.releases()}
        assert not leftovers and {path.name for path in (store.directory / "releases").iterdir()} == kept
        assert len(list((store.directory / "blobs/sha256").iterdir())) == len(kept) + 1


def test_several_processes_import_at_once(tmp_path):
    for seq in range(1, 4):
        small(tmp_path / f"bundles/{seq}", seq)
    processes = [importer(tmp_path / "models", tmp_path / "bundles", number) for number in range(3)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
            for _ in range(3):
                assert process.stdout.readline(), "it has ended"
    finally:
        for process in processes:
            process.kill()
            process.stdout.close()
            process.wait()
    check(tmp_path / "models").close()


def test_every_file_and_every_directory_is_on_disk_before_the_row_that_names_it(tmp_path, monkeypatch):
    synced, at_commit, sync = set(), set(), os.fsync

    def note(descriptor):
        sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def look(statement):
        if statement == "COMMIT":
            at_commit.update(synced)

    with contextlib.closing(Store(tmp_path / "models")) as store:
        monkeypatch.setattr(os, "fsync", note)
        store._db.set_trace_callback(look)
        release = store.import_bundle(small(tmp_path / "bundle"), "current")
        store._db.set_trace_callback(None)
        blobs = store.directory / "blobs/sha256"
        wanted = [*release.directory.iterdir(), *blobs.iterdir(), release.directory, release.directory.parent, blobs]
    assert len(wanted) == 3 + 2 + 3
    assert {path.stat().st_ino for path in wanted} <= at_commit


CALLS = ("fsync", "open", "link", "replace", "rename", "mkdir", "statvfs")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_whichever_call_fails_the_import_has_not_happened_and_the_serving_release_is_whole(
    tmp_path, monkeypatch, number
):
    with contextlib.closing(Store(tmp_path / "models")) as store:
        serving = store.import_bundle(small(tmp_path / "one", 1), "current")
        candidate, failures = small(tmp_path / "two", 2), 0
        for fails_at in itertools.count(1):
            calls = itertools.count(1)
            with monkeypatch.context() as patch:
                for name in CALLS:
                    patch.setattr(os, name, failing(getattr(os, name), calls, fails_at, number))
                try:
                    store.import_bundle(candidate, "candidate")
                except (StateError, ModelError):
                    failures += 1
                    assert store.releases() == [serving]
                    assert store.pointers() == {"current": serving.manifest_sha256}
            check(tmp_path / "models").close()
            if next(calls) <= fails_at:
                break  # it needs no more calls than that
            store.set_pointers({"candidate": None})
            store.collect_garbage()
        assert failures > 15


def failing(call, calls, fails_at, number):
    def instead(*args, **kwargs):
        if next(calls) == fails_at:
            raise OSError(number, os.strerror(number))
        return call(*args, **kwargs)

    return instead


@pytest.fixture
def small_disk(tmp_path):
    """16 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk can be mounted only by root, where mounting is allowed")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_a_disk_that_is_too_small_is_found_before_a_byte_is_written(small_disk, tmp_path):
    with contextlib.closing(Store(small_disk / "models")) as store:
        with pytest.raises(StateError, match=r"this bundle needs 3[0-9]\.\d MB; free some space on that disk"):
            store.import_bundle(small(tmp_path / "bundle", size=30 * MIB))
        assert not list((store.directory / "blobs/sha256").iterdir())


def test_a_disk_that_fills_during_an_import_leaves_the_serving_release_and_nothing_half_written(small_disk, tmp_path):
    with contextlib.closing(Store(small_disk / "models")) as store:
        serving = store.import_bundle(small(tmp_path / "one", 1, size=MIB), "current")
        store._check_space = lambda wanted: None  # as if somebody else fills it after the check
        for size in (15 * MIB, 20 * MIB):
            with pytest.raises(StateError, match=r"No space left on device.*; free some space on that disk"):
                store.import_bundle(small(tmp_path / str(size), 2, size=size), "candidate")
        assert store.releases() == [serving] and store.pointers() == {"current": serving.manifest_sha256}
        assert len(list((store.directory / "blobs/sha256").iterdir())) == 2
        assert len(list((store.directory / "releases").iterdir())) == 1
        store.import_bundle(small(tmp_path / "three", 3, size=MIB))  # the space is free again
    check(small_disk / "models").close()


def test_on_a_disk_without_a_free_byte_reading_works_and_writing_says_what_to_do(small_disk, tmp_path):
    with contextlib.closing(Store(small_disk / "models")) as store:
        serving = store.import_bundle(small(tmp_path / "one", 1, size=MIB), "current").manifest_sha256
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(MIB if os.statvfs(small_disk).f_bavail > 300 else 4096))
        with pytest.raises(StateError, match="free some space on that disk"):
            for number in range(1000):
                store.record_decision(serving, f"{number:032x}", {"runtime": "x" * 10_000})
        assert store.pointers() == {"current": serving}
        (small_disk / "filler").unlink()
        store.record_decision(serving, "ab" * 16, {"runtime": "torchscript"})
    check(small_disk / "models").close()
