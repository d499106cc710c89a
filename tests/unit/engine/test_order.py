from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from defectd.engine.base import EngineOrder, VerifiedModel
from defectd.workers.child import Unusable
from support.archives import archive

BODY: dict[str, Any] = {
    "path": "/models/best.torchscript",
    "sha256": "AB" * 32,
    "device": "auto",
    "precision": "fp16",
    "confidence": 0.25,
    "nms_iou": 0.6,
    "max_detections": 5000,
    "names": ["open", "short"],
    "warmup_min": None,
    "warmup_max": 20,
    "keep_warm_s": 2.0,
    "threads": None,
}

DECLARED: dict[str, Any] = {"names": ["open", "short"], "input_hw": [64, 96], "stride": 32, "end2end": False}


def test_an_order_is_read_from_the_configuration() -> None:
    order = EngineOrder.of(BODY)
    assert order.path == Path("/models/best.torchscript")
    assert order.sha256 == "ab" * 32
    assert (order.thresholds.confidence, order.thresholds.nms_iou) == (0.25, 0.6)
    assert order.names == ("open", "short")
    assert (order.warmup_min, order.warmup_max, order.keep_warm_s, order.threads) == (None, 20, 2.0, None)


def test_an_order_that_names_no_runtime_is_for_torchscript_and_asks_the_file() -> None:
    order = EngineOrder.of(BODY)
    assert (order.runtime, order.metadata, order.cache) == ("torchscript", None, None)


def test_an_order_for_another_runtime_is_read() -> None:
    order = EngineOrder.of({**BODY, "runtime": "compiled", "metadata": DECLARED, "cache": "/state/engines/1"})
    assert (order.runtime, order.metadata, order.cache) == ("compiled", DECLARED, Path("/state/engines/1"))


def test_no_more_detections_than_fit_a_slot_are_promised() -> None:
    assert EngineOrder.of(BODY).thresholds.max_detections == 300


@pytest.mark.parametrize("keep_warm_s", [None, 0, 0.0])
def test_keeping_warm_can_be_off(keep_warm_s: float | None) -> None:
    assert EngineOrder.of({**BODY, "keep_warm_s": keep_warm_s}).keep_warm_s is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device", "gpu"),
        ("precision", "int8"),
        ("confidence", "high"),
        ("path", None),
        ("runtime", "onnx"),
        ("metadata", "names"),
    ],
)
def test_a_bad_order_is_unusable_and_names_what_is_wrong(key: str, value: Any) -> None:
    with pytest.raises(Unusable, match="bad configuration"):
        EngineOrder.of({**BODY, key: value})


@pytest.mark.parametrize("key", ["path", "sha256", "device", "precision", "confidence"])
def test_an_incomplete_order_is_unusable_and_names_the_key(key: str) -> None:
    with pytest.raises(Unusable, match=key):
        EngineOrder.of({name: value for name, value in BODY.items() if name != key})


def test_a_file_that_was_replaced_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.torchscript"
    path.write_bytes(archive())
    with pytest.raises(Unusable, match="the file was replaced") as caught:
        VerifiedModel.read(EngineOrder.of({**BODY, "path": str(path), "names": []}))
    assert hashlib.sha256(path.read_bytes()).hexdigest() in str(caught.value)


def test_a_model_with_other_classes_than_the_recipe_was_made_for_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.torchscript"
    path.write_bytes(archive())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(Unusable, match="spur"):
        VerifiedModel.read(EngineOrder.of({**BODY, "path": str(path), "sha256": sha256, "names": ["spur"]}))


def test_a_verified_model_is_the_bytes_that_were_hashed(tmp_path: Path) -> None:
    path = tmp_path / "m.torchscript"
    path.write_bytes(archive())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    model = VerifiedModel.read(EngineOrder.of({**BODY, "path": str(path), "sha256": sha256}))
    assert model.data == path.read_bytes()
    assert model.metadata.names == ("open", "short")


def test_a_missing_file_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="No such file"):
        VerifiedModel.read(EngineOrder.of({**BODY, "path": str(tmp_path / "nothing")}))


def file_order(path: Path, data: bytes, **changes: Any) -> EngineOrder:
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return EngineOrder.of({**BODY, "path": str(path), "sha256": sha256, **changes})


def test_what_a_manifest_declares_needs_nothing_inside_the_file(tmp_path: Path) -> None:
    order = file_order(tmp_path / "m.pt2", b"whatever", runtime="compiled", metadata=DECLARED)
    metadata = VerifiedModel.read(order).metadata
    assert (metadata.names, metadata.input_hw, metadata.end2end) == (("open", "short"), (64, 96), False)
    assert metadata.sha256 == order.sha256


def test_a_declaration_without_an_input_size_is_refused(tmp_path: Path) -> None:
    declared = {key: value for key, value in DECLARED.items() if key != "input_hw"}
    with pytest.raises(Unusable, match="imgsz"):
        VerifiedModel.read(file_order(tmp_path / "m.pt2", b"whatever", runtime="compiled", metadata=declared))


def test_a_bare_exported_program_is_sent_back_to_its_bundle(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="from its bundle"):
        VerifiedModel.read(file_order(tmp_path / "m.pt2", b"whatever", runtime="compiled"))


def test_a_stock_tensorrt_engine_says_for_itself_what_it_is(tmp_path: Path) -> None:
    header = json.dumps({"task": "detect", "imgsz": [64, 96], "names": {"0": "open", "1": "short"}}).encode()
    data = len(header).to_bytes(4, "little") + header + b"ptrt..."
    metadata = VerifiedModel.read(file_order(tmp_path / "m.engine", data, runtime="tensorrt")).metadata
    assert (metadata.names, metadata.input_hw) == (("open", "short"), (64, 96))
