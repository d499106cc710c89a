"""What a person may put on the bench, and what is told when it is something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectd.errors import ModelError, SettingsError, StateError
from defectd.modelbench import Options, run
from defectd.modelbench.target import open_target


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such: no such file; expected a bundle"):
        open_target(tmp_path / "no-such", None, allow_unsigned=False)


def test_a_directory_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no manifest\.json; expected a bundle"):
        open_target(tmp_path, None, allow_unsigned=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("best.pt", b"\x80\x02}q\x00.", "is a pickled checkpoint"),
        ("model.onnx", b"\x08\x08\x12\x07pytorch", "is an ONNX model"),
        ("photo.jpg", b"\xff\xd8\xff\xe0", "is not a TorchScript model"),
        ("empty.torchscript", b"", "is empty"),
    ],
)
def test_a_file_of_another_kind_is_told_what_it_is(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: {message}"):
        open_target(tmp_path / name, None, allow_unsigned=False)


def test_a_report_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    options = Options(json=tmp_path / "missing/bench.json")
    with pytest.raises(StateError, match=r"missing/bench\.json: cannot be written"):
        run(tmp_path / "model.torchscript", None, options, lambda _: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="file: "):
        run(tmp_path / "model.torchscript", tmp_path / "file", Options(), lambda _: None)


def test_every_mistake_in_the_options_is_told_at_once(tmp_path: Path) -> None:
    options = Options(runtimes=("onnx",), calls=1, batches=(0, 1), seconds=0)
    with pytest.raises(SettingsError) as caught:
        run(tmp_path, None, options, lambda _: None)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "runtime",
        "calls",
        "batches",
        "seconds",
    ]
