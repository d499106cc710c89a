from __future__ import annotations

import os

import pytest

from defectd.engine.seal import SEAL, clear_unless_sealed, seal


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "fxgraph").mkdir()
    (tmp_path / "fxgraph" / "one.py").write_text("compiled")
    (tmp_path / "kernel.so").write_bytes(b"\x7fELF")
    seal(tmp_path)
    return tmp_path


def files(cache):
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def test_a_sealed_cache_is_used_again_and_again(cache):
    for _ in range(2):
        assert clear_unless_sealed(cache) == []
    assert files(cache) == ["fxgraph/one.py", "kernel.so", SEAL]


@pytest.mark.parametrize(
    "damage",
    [
        lambda cache: (cache / "kernel.so").write_bytes(b"\x7fELG"),
        lambda cache: (cache / "kernel.so").unlink(),
        lambda cache: (cache / "fxgraph" / "one.py").write_text("compiled; import os"),
        lambda cache: os.truncate(cache / SEAL, 3),
        lambda cache: (cache / SEAL).unlink(),
        lambda cache: (cache / SEAL).write_text("[]"),
    ],
)
def test_one_that_is_not_whole_is_emptied_and_it_is_said(cache, damage):
    damage(cache)
    (note,) = clear_unless_sealed(cache)
    assert "was not whole" in note and files(cache) == []


def test_what_came_later_goes_and_the_rest_stays(cache):
    (cache / "fxgraph" / "two.py").write_text("half")
    (cache / "locks").mkdir()
    (cache / "locks" / "a.lock").touch()
    assert clear_unless_sealed(cache) == []
    assert files(cache) == ["fxgraph/one.py", "kernel.so", "locks/a.lock", SEAL]


def test_an_empty_cache_needs_no_seal(tmp_path):
    assert clear_unless_sealed(tmp_path) == []
