from __future__ import annotations

import json
from typing import Any

import pytest

from defectd.errors import ModelError
from defectd.models.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from support.bundles import manifest_fields


def parse(fields: Any) -> Manifest:
    return parse_manifest(json.dumps(fields).encode(), "manifest.json")


def refusal(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        parse_manifest(data, "manifest.json")
    message = str(caught.value)
    assert message.startswith("manifest.json: ")
    return message


def test_what_is_written_is_what_is_read() -> None:
    manifest = parse(manifest_fields(expires="2027-01-01T00:00:00+02:00"))
    assert parse_manifest(manifest.to_json(), "x") == manifest


def test_what_is_not_said_has_the_careful_default() -> None:
    manifest = parse(manifest_fields())
    assert manifest.compatible == ["*"]
    assert manifest.expires is None
    assert (manifest.golden.limits.recall, manifest.golden.limits.iou) == (0.98, 0.8)


def test_a_format_is_found_by_its_role() -> None:
    manifest = parse(manifest_fields())
    onnx = manifest.artifact("onnx")
    assert onnx is not None and onnx.name == "model.onnx"
    assert manifest.artifact("torch_tensorrt") is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_json_is_said(data: bytes) -> None:
    assert "is not JSON" in refusal(data)


@pytest.mark.parametrize("data", [b"[]", b"null", b"{}", b'{"schema": "defectd.bundle/2.0"}'])
def test_another_schema_is_not_guessed_at(data: bytes) -> None:
    assert "schema: expected 'defectd.bundle/1.0'" in refusal(data)


def test_an_endless_manifest_is_not_parsed() -> None:
    assert f"expected at most {MAX_MANIFEST_BYTES}" in refusal(b" " * (MAX_MANIFEST_BYTES + 1))


ARTIFACTS = manifest_fields()["artifacts"]
NETWORK = manifest_fields()["network"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"name": "../pcb"}, "name"),
        ({"version": "1 0"}, "version"),
        ({"release_seq": 0}, "release_seq"),
        ({"release_seq": 2**60}, "release_seq"),
        ({"created": "2026-05-01T10:00:00"}, "with its zone"),
        ({"created": "yesterday"}, "created"),
        ({"expires": "2026-05-01"}, "expires"),
        ({"compatible": []}, "compatible"),
        ({"compatible": ["sm 87"]}, "compatible.0"),
        ({"requires": {"mem_mb": -1}}, "requires.mem_mb"),
        ({"artifacts": []}, "artifacts"),
        ({"artifacts": [ARTIFACTS[0], ARTIFACTS[0]]}, "names that differ"),
        ({"artifacts": [ARTIFACTS[0], {**ARTIFACTS[0], "name": "other.ts"}]}, "each format once"),
        ({"artifacts": [ARTIFACTS[2]]}, "at least one format"),
        ({"artifacts": [{**ARTIFACTS[0], "sha256": "AB" * 32}]}, "artifacts.0.sha256"),
        ({"artifacts": [{**ARTIFACTS[0], "role": "pickle"}]}, "artifacts.0.role"),
        ({"artifacts": ARTIFACTS[:2]}, "golden.pictures: expected exactly the artifacts"),
        ({"network": {**NETWORK, "input_hw": [480]}}, "network.input_hw"),
        ({"network": {**NETWORK, "input_hw": [1_000_000, 640]}}, "network.input_hw.0"),
        ({"network": {**NETWORK, "classes": []}}, "network.classes"),
        ({"network": {**NETWORK, "confidence": 1.5}}, "network.confidence"),
        ({"golden": {"pictures": [{"image": "golden-0001.png", "boxes": [[0, 0, 9, 9, 0.9, 2]]}]}}, "class ids 0..1"),
        ({"golden": {"pictures": [{"image": "golden-0001.png", "boxes": [[0, 0, 9, 9]]}]}}, "boxes.0"),
    ],
)
def test_every_mistake_is_named_by_its_key(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(json.dumps(manifest_fields(**changes)).encode())


def test_a_critical_class_must_be_one_of_the_model() -> None:
    golden = {**manifest_fields()["golden"], "limits": {"critical_classes": ["burnt"]}}
    assert "the model has no burnt" in refusal(json.dumps(manifest_fields(golden=golden)).encode())
