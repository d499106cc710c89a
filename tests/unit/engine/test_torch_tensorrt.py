"""Torch-TensorRT with a real TorchScript file on the CPU; its own library and compiler are stood in for."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from defectd.engine.base import EngineOrder, VerifiedModel  # noqa: E402
from defectd.engine.build_order import BuildOrder  # noqa: E402
from defectd.engine.torch_tensorrt import TorchTensorRtRuntime, compile_module  # noqa: E402
from defectd.models.metadata import read_metadata  # noqa: E402
from defectd.workers.child import Unusable  # noqa: E402
from support.models import INPUT_HW, NAMES, save  # noqa: E402

CPU = torch.device("cpu")


class Package:
    """A directory with the outside of torch_tensorrt, and the signature of its `ts.compile` in 1.4, 2.8 and 2.14 as
    far as we use it. Compiling returns the module as it was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.loaded: list[str] = []
        self.ordered: dict[str, Any] = {}
        module: Any = types.ModuleType("torch_tensorrt")
        module.__version__ = "2.8.0"
        module.__spec__ = importlib.machinery.ModuleSpec("torch_tensorrt", None, is_package=True)
        module.__spec__.submodule_search_locations = [str(tmp_path / "torch_tensorrt")]
        module.Input = lambda shape, dtype: (tuple(shape), dtype)
        module.ts = types.SimpleNamespace(compile=self._compile)
        monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
        monkeypatch.setattr(torch.ops, "load_library", self.loaded.append)

    def _compile(
        self, module: Any, inputs: Any, enabled_precisions: Any, workspace_size: int, truncate_long_and_double: bool
    ) -> Any:
        self.ordered = {"inputs": inputs, "precisions": enabled_precisions, "workspace": workspace_size}
        assert truncate_long_and_double
        return module


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Package:
    return Package(monkeypatch, tmp_path)


def opened(path: Path) -> TorchTensorRtRuntime:
    body = {"path": str(path), "sha256": read_metadata(path).sha256, "device": "cuda", "precision": "fp16"}
    order = EngineOrder.of({**body, "confidence": 0.25, "runtime": "torch-tensorrt"})
    return TorchTensorRtRuntime(order, VerifiedModel.read(order), CPU, torch.float16)


def build(tmp_path: Path, **changes: Any) -> BuildOrder:
    body = {"kind": "torch-tensorrt", "source": str(save(tmp_path / "model.torchscript")), "out": str(tmp_path / "out")}
    return BuildOrder.of({**body, "precision": "fp16", "workspace_mb": 256, "input_hw": list(INPUT_HW), **changes})


def test_only_the_runtime_library_is_loaded_and_the_file_runs_in_place(package: Package, tmp_path: Path) -> None:
    runtime = opened(save(tmp_path / "model.trt.ts"))
    program = runtime.program(runtime.variants()[0])
    assert package.loaded == [str(tmp_path / "torch_tensorrt" / "lib" / "libtorchtrt_runtime.so")]
    assert program.input.dtype is torch.float32
    program.input.fill_(0.5)
    head = program.forward()
    assert tuple(head.shape) == (1, 4 + len(NAMES), 96)
    assert torch.allclose(head[0, 4:], torch.tensor(0.5))
    assert not program.graphable
    assert runtime.notes() == ["with libtorchtrt_runtime.so"]


def test_another_batch_is_refused(package: Package, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="compiled for batch 1, not 2"):
        opened(save(tmp_path / "model.trt.ts")).program("contiguous", batch=2)


def test_a_library_for_another_torch_is_refused_with_the_loaders_reason(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: str) -> None:
        raise OSError(f"{path}: undefined symbol: _ZN3c104cuda")

    monkeypatch.setattr(torch.ops, "load_library", load)
    with pytest.raises(Unusable, match=r"does not fit torch .*undefined symbol.*built for this torch"):
        opened(save(tmp_path / "model.trt.ts"))


def test_without_the_package_it_is_an_import_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises((ImportError, ValueError)):
        opened(save(tmp_path / "model.trt.ts"))


def test_compiling_keeps_the_exporters_metadata_and_allows_half_precision(package: Package, tmp_path: Path) -> None:
    said: list[str] = []
    data, versions = compile_module(build(tmp_path), lambda stage, share: said.append(stage), CPU)
    (tmp_path / "model.trt.ts").write_bytes(data)
    assert read_metadata(tmp_path / "model.trt.ts").names == NAMES
    assert tuple(opened(tmp_path / "model.trt.ts").program("contiguous").forward().shape) == (1, 7, 96)
    assert package.ordered == {
        "inputs": [((1, 3, *INPUT_HW), torch.float32)],
        "precisions": {torch.float32, torch.float16},
        "workspace": 256 * 1024 * 1024,
    }
    assert versions == {"torch": torch.__version__, "torch_tensorrt": "2.8.0"}
    assert said == ["loading the compiler", "compiling"]
    assert json.dumps(versions)


@pytest.mark.parametrize("changes", [{"precision": "int8"}, {"dla": 0}])
def test_what_only_tensorrt_itself_is_asked_for_is_refused(
    package: Package, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(Unusable, match='for int8 or a DLA use "tensorrt"'):
        compile_module(build(tmp_path, **changes), lambda stage, share: None, CPU)
