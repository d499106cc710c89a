from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from defectd.errors import ModelError
from defectd.models.metadata import parse_engine_metadata, parse_metadata, read_metadata
from support.archives import CONFIG, Exploding, archive

EXPORT = "yolo export model=best.pt format=torchscript imgsz=640"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    """The message; it always names the file."""
    with pytest.raises(ModelError) as caught:
        read_metadata(path)
    message = str(caught.value)
    assert str(path) in message
    return message


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in CONFIG.items() if name != key}


def test_a_stock_export_is_read(tmp_path: Path) -> None:
    data = archive()
    metadata = read_metadata(write(tmp_path / "best.torchscript", data))
    assert metadata.names == ("open", "short")
    assert metadata.input_hw == (640, 512)
    assert (metadata.stride, metadata.task, metadata.end2end) == (16, "detect", False)
    assert (metadata.batch, metadata.channels, metadata.dynamic) == (1, 3, False)
    assert metadata.exporter == "8.4.190"
    assert metadata.sha256 == hashlib.sha256(data).hexdigest()
    assert metadata.size_bytes == len(data)


def test_bytes_in_memory_and_the_file_say_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "best.torchscript", archive())
    assert parse_metadata(path.read_bytes(), path) == read_metadata(path)


def test_what_older_exporters_left_out_has_a_default(tmp_path: Path) -> None:
    old = {"stride": 32, "task": "detect", "imgsz": 320, "names": ["open"]}
    metadata = read_metadata(write(tmp_path / "old.torchscript", archive(old)))
    assert metadata.input_hw == (320, 320)
    assert (metadata.batch, metadata.channels, metadata.end2end) == (1, 3, None)


def test_class_names_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    names = {str(index): f"class {index}" for index in (10, 2, 1, 0, 3, 4, 5, 6, 7, 8, 9)}
    metadata = read_metadata(write(tmp_path / "m.torchscript", archive({**CONFIG, "names": names})))
    assert metadata.names == tuple(f"class {index}" for index in range(11))


def test_a_dynamic_export_with_a_size_is_accepted(tmp_path: Path) -> None:
    config = {**CONFIG, "args": {"dynamic": True}}
    assert read_metadata(write(tmp_path / "m.torchscript", archive(config))).dynamic


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nothing.torchscript")
    assert "No such file" in message
    assert EXPORT in message


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "is empty" in refusal(write(tmp_path / "m.torchscript", b""))


def test_a_file_that_is_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    data = archive()
    for length in range(1, len(data), 37):
        message = refusal(write(tmp_path / "m.torchscript", data[:length]))
        assert "truncated" in message or length < 2


def test_a_damaged_entry_is_refused(tmp_path: Path) -> None:
    damaged = archive().replace(b'"stride"', b'"strife"')
    assert "damaged" in refusal(write(tmp_path / "m.torchscript", damaged))


def test_a_zipped_checkpoint_is_named_and_never_unpickled(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "best.pt", archive(None)))
    assert "pickled checkpoint" in message
    assert EXPORT in message


def test_a_legacy_checkpoint_is_named_and_never_unpickled(tmp_path: Path) -> None:
    assert "pickled checkpoint" in refusal(write(tmp_path / "old.pt", pickle.dumps(Exploding(), protocol=2)))


def test_a_tar_checkpoint_is_named_and_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "oldest.pt"
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("pickle"))
    assert "pickled checkpoint" in refusal(path)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("m.engine", b"anything", "TensorRT"),
        ("m.bin", b"\x20\x00\x00\x00" + b'{"stride": 32}', "TensorRT"),
        ("m.bin", b"ptrt\x00\x00\x00\x00", "TensorRT"),
        ("m.onnx", b"anything", "ONNX"),
        ("m.bin", b"\x08\x09\x12\x07pytorch", "ONNX"),
        ("m.txt", b"hello", "no zip archive"),
    ],
)
def test_another_format_is_named(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    message = refusal(write(tmp_path / name, data))
    assert kind in message
    assert EXPORT in message


def test_a_zip_that_is_no_model_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("folder/readme.txt", "hello")
    assert "not a TorchScript model" in refusal(write(tmp_path / "m.zip", buffer.getvalue()))


def test_torchscript_without_the_exporters_metadata_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("best/code/model.py", "")
    message = refusal(write(tmp_path / "m.torchscript", buffer.getvalue()))
    assert "extra/config.txt" in message
    assert EXPORT in message


def test_metadata_of_absurd_size_are_not_read(tmp_path: Path) -> None:
    huge = json.dumps({**CONFIG, "description": "x" * 2_000_000})
    assert "limit" in refusal(write(tmp_path / "m.torchscript", archive(huge)))


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe{", b"", b"[" * 100_000])
def test_metadata_that_are_no_json_are_refused(tmp_path: Path, text: bytes) -> None:
    assert "not JSON" in refusal(write(tmp_path / "m.torchscript", archive(text)))


def test_metadata_that_are_no_object_are_refused(tmp_path: Path) -> None:
    assert "expected a JSON object, got list" in refusal(write(tmp_path / "m.torchscript", archive("[1]")))


@pytest.mark.parametrize("task", ["segment", "classify", "pose", "obb", None, 3])
def test_another_task_is_refused(tmp_path: Path, task: Any) -> None:
    message = refusal(write(tmp_path / "m.torchscript", archive({**CONFIG, "task": task})))
    assert repr(task) in message
    assert "'detect'" in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("batch", 4, "batch=1"),
        ("batch", "1", "batch=1"),
        ("channels", 1, "expected 3, got 1"),
        ("stride", 0, "stride"),
        ("end2end", "yes", "end2end"),
        ("head", "RTDETRDecoder", "RT-DETR"),
        ("args", {"nms": True}, "nms=True"),
        ("imgsz", None, "imgsz"),
        ("imgsz", "640", "imgsz"),
        ("imgsz", [640], "imgsz"),
        ("imgsz", [640, 0], "imgsz"),
        ("imgsz", [640, 1e9], "imgsz"),
        ("imgsz", [True, True], "imgsz"),
        ("names", {}, "names"),
        ("names", None, "names"),
        ("names", "open", "names"),
        ("names", {"1": "open"}, "names"),
        ("names", {"0": "open", "2": "short"}, "names"),
        ("names", {"0": 7}, "names"),
        ("names", {"0": ""}, "names"),
    ],
)
def test_a_malformed_value_is_refused_by_its_key(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    assert expected in refusal(write(tmp_path / "m.torchscript", archive({**CONFIG, key: value})))


@pytest.mark.parametrize("key", ["task", "imgsz", "names"])
def test_a_missing_key_is_refused(tmp_path: Path, key: str) -> None:
    assert key in refusal(write(tmp_path / "m.torchscript", archive(without(key))))


def engine_file(header: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(4, "little") + header + b"the plan"


def test_the_plan_of_a_stock_engine_begins_behind_its_header() -> None:
    data = engine_file(json.dumps(CONFIG).encode())
    metadata, begin = parse_engine_metadata(data, Path("best.engine"))
    assert data[begin:] == b"the plan"
    assert metadata.names == ("open", "short")
    assert metadata.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ptrt\x00\x00\x00\x00 a bare plan",
        engine_file(json.dumps(CONFIG).encode(), length=10),
        engine_file(json.dumps(CONFIG).encode(), length=2**31),
        engine_file(b"{" * 100_000),
        engine_file(b'{"task": "detect"}'),
        engine_file(json.dumps({**CONFIG, "task": "segment"}).encode()),
    ],
)
def test_an_engine_without_a_sound_header_is_refused_with_its_name(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"^best\.engine: ") as caught:
        parse_engine_metadata(data, Path("best.engine"))
    assert "format=torchscript" not in str(caught.value)
