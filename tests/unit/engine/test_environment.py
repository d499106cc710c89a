from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from defectd.engine.environment import cache_directory
from defectd.workers.child import Unusable


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def test_the_wanted_directory_is_made_for_this_user_alone(tmp_path: Path) -> None:
    wanted = tmp_path / "engines" / "1"
    assert cache_directory(wanted) == (wanted, [])
    assert wanted.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("wanted", [None, Path("/proc/nothing/can/be/written/here")])
def test_without_a_directory_to_write_to_one_is_found_and_it_is_said(wanted: Path | None, temporary: Path) -> None:
    directory, notes = cache_directory(wanted)
    assert directory.parent == temporary
    assert directory.stat().st_mode & 0o777 == 0o700
    assert str(directory) in notes[0]
    assert cache_directory(wanted)[0] == directory  # the same one at the next start: what was compiled is there


def test_a_directory_that_others_can_write_to_is_not_trusted(tmp_path: Path) -> None:
    wanted = tmp_path / "shared"
    wanted.mkdir()
    wanted.chmod(0o777)
    directory, notes = cache_directory(wanted)
    assert directory != wanted
    assert "written by others" in notes[0]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    wanted = tmp_path / "link"
    wanted.symlink_to(tmp_path / "elsewhere")
    assert cache_directory(wanted)[0] != wanted


def test_where_somebody_else_was_first_nothing_is_compiled(temporary: Path) -> None:
    taken = temporary / f"defectd-compiled-{os.geteuid()}"
    taken.mkdir()
    taken.chmod(0o777)
    with pytest.raises(Unusable, match="written by others"):
        cache_directory(None)
