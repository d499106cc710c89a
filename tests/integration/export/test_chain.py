"""Real checkpoints through the whole chain. DEFECTD_DEEPPCB names a folder with images/, labels/ and best.pt."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("ultralytics", reason="needs Ultralytics: pip install 'defectd[export]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'defectd[export]'")
pytest.importorskip("onnx", reason="needs ONNX: pip install 'defectd[export]'")
import onnx
import torch

from defectd.errors import ModelError
from defectd.export.chain import export
from defectd.export.options import ExportOptions
from defectd.models.manifest import Manifest, parse_manifest
from defectd.models.metadata import read_metadata
from support import branching, checkpoints

FOLDER = Path(os.environ.get("DEFECTD_DEEPPCB", "/nonexistent"))
CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]  # of Ultralytics and ONNX, not ours
needs_deeppcb = pytest.mark.skipif(not (FOLDER / "best.pt").is_file(), reason="set DEFECTD_DEEPPCB")


def run(checkpoint: Path, out: Path, **options: Any) -> tuple[Manifest, str]:
    """The manifest, and all that was said."""
    said: list[str] = []
    manifest = export(checkpoint, out, ExportOptions(**options), said.append)
    return manifest, "\n".join(said)


def refused(checkpoint: Path, out: Path, expected: str, **options: Any) -> None:
    """It is refused for that reason, and nothing is left behind."""
    before = set(out.parent.iterdir()) if out.parent.exists() else set()
    with pytest.raises(ModelError, match=expected):
        run(checkpoint, out, **options)
    assert set(out.parent.iterdir()) == before


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save(tmp_path_factory.mktemp("tiny") / "tiny.pt", "yolov8n.yaml")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data.yaml with twelve of the pictures."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for image in sorted((FOLDER / "images").glob("*.jpg"))[::10]:
        shutil.copy(image, folder / "images")
        shutil.copy(FOLDER / "labels" / f"{image.stem}.txt", folder / "labels")
    (folder / "data.yaml").write_text(f"val: images\nnames: [{', '.join(CLASSES)}]\n")
    return folder / "data.yaml"


@pytest.fixture(scope="module")
def deeppcb(tmp_path_factory: pytest.TempPathFactory, labelled: Path) -> tuple[Path, Manifest, str]:
    out = tmp_path_factory.mktemp("bundles") / "deeppcb"
    options = {"data": labelled, "critical_classes": ("open", "short"), "release_seq": 7, "expires_days": 30}
    return (out, *run(FOLDER / "best.pt", out, **options))


@needs_deeppcb
def test_a_trained_model_becomes_a_bundle_within_its_limits(deeppcb: tuple[Path, Manifest, str]) -> None:
    out, manifest, said = deeppcb
    assert parse_manifest((out / "manifest.json").read_bytes(), "manifest.json") == manifest
    assert manifest.network.classes == list(CLASSES)
    assert manifest.network.input_hw == (640, 640)
    assert (manifest.release_seq, manifest.golden.limits.critical_classes) == (7, ["open", "short"])
    eager, *formats = manifest.parity
    assert [one.format for one in formats] == ["torchscript", "torchscript-fp16-weights", "exported_program", "onnx"]
    assert eager.map50 is not None
    assert eager.map50 > 0.75
    for one in formats:
        assert one.recall == 1
        assert one.map50 == pytest.approx(eager.map50, abs=0.005)
        assert one.format.endswith("fp16-weights") or (one.head_mse is not None and one.head_mse < 1e-5)
    assert "mAP50-95" in said


@needs_deeppcb
def test_the_directory_is_exactly_what_the_manifest_says(deeppcb: tuple[Path, Manifest, str]) -> None:
    out, manifest, _ = deeppcb
    assert {path.name for path in out.iterdir()} == {"manifest.json", *(one.name for one in manifest.artifacts)}
    for one in manifest.artifacts:
        data = (out / one.name).read_bytes()
        assert (one.size, one.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert list(out.parent.iterdir()) == [out]


@needs_deeppcb
def test_golden_pictures_have_the_boxes_of_the_original(deeppcb: tuple[Path, Manifest, str]) -> None:
    _, manifest, _ = deeppcb
    assert len(manifest.golden.pictures) == 12
    boxes = [box for picture in manifest.golden.pictures for box in picture.boxes]
    assert len(boxes) > 40
    assert all(0.25 < box[4] <= 1 and 0 <= box[0] < box[2] <= 640 for box in boxes)


@needs_deeppcb
def test_no_file_names_the_machine_that_made_it(deeppcb: tuple[Path, Manifest, str], labelled: Path) -> None:
    out, _, _ = deeppcb
    for path in out.iterdir():
        data = path.read_bytes()
        for place in (FOLDER, labelled.parent, Path.home(), Path(sys.prefix), Path(torch.__file__).parent, Path.cwd()):
            assert f"{place}/".encode() not in data, f"{path.name} names {place}"


@needs_deeppcb
def test_the_torchscript_file_describes_itself_as_a_stock_export(deeppcb: tuple[Path, Manifest, str]) -> None:
    metadata = read_metadata(deeppcb[0] / "model.torchscript")
    assert (metadata.names, metadata.input_hw, metadata.stride, metadata.end2end) == (CLASSES, (640, 640), 16, False)


@needs_deeppcb
def test_no_pickle_is_in_the_exported_program(deeppcb: tuple[Path, Manifest, str]) -> None:
    with zipfile.ZipFile(deeppcb[0] / "model.pt2") as archive:
        files = {one.filename: one.file_size for one in archive.infolist()}
        pickled = [name for name, size in files.items() if name.endswith((".pt", ".pkl")) and size]
        configs = [archive.read(name) for name in archive.namelist() if name.endswith("_config.json")]
    assert pickled == []
    assert configs
    assert not any(b'"use_pickle": true' in config for config in configs)


@needs_deeppcb
def test_onnx_is_what_tensorrt_8_5_reads(deeppcb: tuple[Path, Manifest, str]) -> None:
    model = onnx.load(io.BytesIO((deeppcb[0] / "model.onnx").read_bytes()))
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert [one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 640, 640]


@needs_deeppcb
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"val: images\nnames: [{', '.join(CLASSES[:5])}]\n", "5 classes, but the model has 6"),
        (f"val: images\nnames: [{', '.join(reversed(CLASSES))}]\n", "class 0 is 'pin-hole'"),
    ],
)
def test_a_data_yaml_of_other_classes_is_refused(tmp_path: Path, labelled: Path, text: str, expected: str) -> None:
    other = labelled.with_name("other.yaml")
    other.write_text(text)
    refused(FOLDER / "best.pt", tmp_path / "bundle", expected, data=other)


@pytest.mark.parametrize(
    ("family", "end2end"),
    [("yolov8n", False), ("yolo11n", False), ("yolov10n", True), ("yolo26n", True)],
)
def test_every_family_goes_through(tmp_path: Path, family: str, end2end: bool) -> None:
    checkpoint = checkpoints.save(tmp_path / f"{family}.pt", f"{family}.yaml")
    manifest, said = run(checkpoint, tmp_path / "bundle")
    assert manifest.network.end2end is end2end
    assert (manifest.network.input_hw, manifest.name) == ((128, 128), family)
    exact = [one for one in manifest.parity if one.format in ("torchscript", "exported_program", "onnx")]
    assert len(exact) == 3
    assert all(one.head_mse is not None and one.head_mse <= 1e-5 for one in exact)
    assert all(one.recall is None for one in manifest.parity)
    assert "no boxes to compare: parity rests on the raw head" in said
    assert "four of noise" in said


def test_the_other_head_is_exported_where_it_is_asked_for(tmp_path: Path) -> None:
    checkpoint = checkpoints.save(tmp_path / "yolov10n.pt", "yolov10n.yaml")
    manifest, _ = run(checkpoint, tmp_path / "bundle", end2end=False)
    assert manifest.network.end2end is False


def test_a_layer_that_branches_keeps_its_branches(tmp_path: Path) -> None:
    change = checkpoints.wrap(1, branching.BranchOnBrightness)
    checkpoint = checkpoints.save(tmp_path / "a.pt", "yolov8n.yaml", change=change)
    manifest, said = run(checkpoint, tmp_path / "bundle")
    assert "layer model.1 (BranchOnBrightness) branches on data" in said
    assert "left out: torch.export" in said
    assert manifest.artifact("torchscript") is not None
    assert manifest.artifact("exported_program") is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (branching.BranchByDictionary, r"layer model.1 \(BranchByDictionary\) branches on data.*torch.where"),
        (branching.PrivateOperator, r"TorchScript cannot carry it: layer model.1 \(PrivateOperator\).*_Private"),
        (branching.UnknownToOnnx, r"ONNX cannot carry it: layer model.1 \(UnknownToOnnx\) uses aten::special_i1"),
    ],
)
def test_a_layer_that_cannot_be_carried_is_named(tmp_path: Path, kind: Any, expected: str) -> None:
    checkpoint = checkpoints.save(tmp_path / "a.pt", "yolov8n.yaml", change=checkpoints.wrap(1, kind))
    refused(checkpoint, tmp_path / "bundle", expected)


def test_a_model_of_another_task_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "segment.pt"
    from ultralytics import YOLO

    torch.save({"model": YOLO("yolo11n-seg.yaml", verbose=False).model}, checkpoint)
    refused(checkpoint, tmp_path / "bundle", r"segment.pt: its task is 'segment'; expected 'detect'")


@pytest.mark.parametrize(
    ("kept", "expected"),
    [(0, "is empty"), (1000, "is truncated or damaged"), (-1000, "is truncated or damaged")],
)
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, tiny: Path, kept: int, expected: str) -> None:
    (tmp_path / "best.pt").write_bytes(tiny.read_bytes()[:kept])
    refused(tmp_path / "best.pt", tmp_path / "bundle", expected)


def test_a_changed_byte_in_a_checkpoint_is_found(tmp_path: Path, tiny: Path) -> None:
    data = bytearray(tiny.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "best.pt").write_bytes(data)
    refused(tmp_path / "best.pt", tmp_path / "bundle", "fails its checksum")


def test_a_checkpoint_whose_code_is_missing_names_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "line7_layers.py").write_text("import torch\nclass Special(torch.nn.SiLU):\n    pass\n")
    monkeypatch.syspath_prepend(str(code))
    import line7_layers

    change = checkpoints.wrap(1, lambda layer: torch.nn.Sequential(layer, line7_layers.Special()))
    checkpoint = checkpoints.save(tmp_path / "a.pt", "yolov8n.yaml", change=change)
    monkeypatch.undo()
    del sys.modules["line7_layers"]
    refused(checkpoint, tmp_path / "bundle", "needs the Python module line7_layers.*PYTHONPATH")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"no pickle at all")
    refused(tmp_path / "best.pt", tmp_path / "bundle", "Ultralytics cannot load it")
    refused(tmp_path / "gone.pt", tmp_path / "bundle", "gone.pt: No such file")
    (tmp_path / "best.onnx").write_bytes(b"x")
    refused(tmp_path / "best.onnx", tmp_path / "bundle", "ends in .pt")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imgsz": 650}, "imgsz: 650; .* multiple of its stride 32.* such as 640 or 672"),
        ({"imgsz": 0}, "imgsz: 0"),
        ({"critical_classes": ("crack",)}, "the model has no crack"),
        ({"name": "no spaces please"}, "name: .*'no spaces please'"),
        ({"release_seq": 0}, "release-seq: .*greater than or equal to 1"),
        ({"expires_days": 0}, "expires-days: 0"),
        ({"confidence": 1.5}, "confidence: .*1.5"),
        ({"golden": Path("/nonexistent")}, "golden: /nonexistent is no folder"),
        ({"data": Path("/nonexistent.yaml")}, "nonexistent.yaml: No such file"),
    ],
)
def test_a_wrong_option_is_named_before_the_work(
    tmp_path: Path, tiny: Path, options: dict[str, Any], expected: str
) -> None:
    refused(tiny, tmp_path / "bundle", expected, **options)


def test_an_existing_bundle_is_never_touched(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "bundle").mkdir()
    refused(tiny, tmp_path / "bundle", "bundle: exists already")
