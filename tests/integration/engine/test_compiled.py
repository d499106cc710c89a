"""The real engine process with a network that torch.compile has compiled, by the C++ compiler of this machine."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defectd.workers.child import EXIT_UNUSABLE
from defectd.workers.protocol import Inferred, Kind, Note
from support.archives import Exploding
from support.engine import EngineProcess, order, running

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("cv2", reason="needs OpenCV")
pytest.importorskip("torch._inductor.codecache", reason="needs a torch that compiles")
if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
    pytest.skip(f"torch {torch.__version__} does not count its caches", allow_module_level=True)
if shutil.which("g++") is None:
    pytest.skip("needs g++", allow_module_level=True)

from support import models  # noqa: E402 - it imports torch

pytestmark = pytest.mark.torch

SPOT = np.zeros((64, 96, 3), np.uint8)
SPOT[16:24, 40:48] = (0, 0, 255)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The order for a `.pt2`, warmed as briefly as can be."""
    path = tmp_path_factory.mktemp("models") / "model.pt2"
    return order(path, **models.export(path), warmup_min=4, warmup_max=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state") / "cache"


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for g++ and notes each of its calls in `calls` beside it."""
    compiler = tmp_path_factory.mktemp("bin") / "g++"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> "{compiler.parent}/calls"\nexec {shutil.which("g++")} "$@"\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    return compiler


def compilations(counting: Path) -> int:
    """How many sources have been compiled."""
    calls = counting.parent / "calls"
    return sum(".cpp" in line for line in calls.read_text().splitlines()) if calls.exists() else 0


def start(engine: EngineProcess) -> tuple[list[str], list[list[float]]]:
    """The notes of READY, and the boxes in SPOT."""
    record = engine.next(timeout_s=300)  # a compiler takes a minute or more on a busy machine
    assert isinstance(record, Note), record
    assert record.kind is Kind.READY, record.body
    ready = record.body
    assert ready["runtime"] == "compiled-fp32-cpu"
    reply = engine.infer(SPOT)
    assert isinstance(reply, Inferred), reply
    return ready["notes"], engine.ring.read_detections(0, reply.count).xyxy.tolist()


def last_words(body: dict[str, Any]) -> str:
    """What a worker with this order says before it ends as unusable."""
    with running(body) as process:
        words = process.last_words()
        assert process.process.wait(20) == EXIT_UNUSABLE
        return str(words["detail"])


@pytest.fixture()
def compiler(counting: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CXX", str(counting))
    return counting


def test_a_second_process_compiles_nothing(exported: dict[str, Any], cache: Path, compiler: Path) -> None:
    with running({**exported, "cache": str(cache)}) as engine:
        notes, boxes = start(engine)
    assert boxes == [[36, 12, 52, 28]]
    assert any(note.startswith("compiled in ") for note in notes), notes
    assert compilations(compiler) > 0
    before = compilations(compiler)
    with running({**exported, "cache": str(cache)}) as engine:
        notes, boxes = start(engine)
    assert boxes == [[36, 12, 52, 28]]
    assert any(note.startswith("from cache in ") for note in notes), notes
    assert compilations(compiler) == before
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_written_is_replaced_and_it_is_said(
    exported: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running({**exported, "cache": "/proc/nothing/here"}) as engine:
        notes, boxes = start(engine)
    assert boxes == [[36, 12, 52, 28]]
    assert any(note.startswith("no cache that lasts (/proc/nothing/here: ") for note in notes), notes
    assert (tmp_path / f"defectd-compiled-{os.geteuid()}" / "fxgraph").is_dir()


def test_without_a_compiler_it_says_what_to_install(
    exported: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    words = last_words({**exported, "cache": str(tmp_path / "cache")})
    assert "apt install g++" in words
    assert 'runtime = "torchscript"' in words


def test_a_damaged_file_is_unusable(exported: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "half.pt2"
    data = Path(exported["path"]).read_bytes()[:-1000]
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    assert "copy it again" in last_words({**exported, "path": str(path), "sha256": sha256})


def rewritten(exported: dict[str, Any], path: Path, **changed: bytes) -> dict[str, Any]:
    """The order for a copy in which the members whose names end in a key of *changed* (__ is a dot) are replaced."""
    replaced = {key.replace("__", "."): data for key, data in changed.items()}
    with zipfile.ZipFile(exported["path"]) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = next((data for key, data in replaced.items() if name.endswith(key)), source.read(name))
            target.writestr(name, data)
    return {**exported, "path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_file_of_a_format_that_this_torch_does_not_know_is_unusable(exported: dict[str, Any], tmp_path: Path) -> None:
    words = last_words(rewritten(exported, tmp_path / "future.pt2", model__json=b'{"schema_version": 99}'))
    assert f"this torch {torch.__version__} cannot read" in words
    assert "The TorchScript artifact serves" in words


def test_nothing_in_it_is_unpickled(exported: dict[str, Any], tmp_path: Path) -> None:
    with zipfile.ZipFile(exported["path"]) as archive:
        inputs = [name for name in archive.namelist() if "sample_inputs" in name and name.endswith(".pt")]
    assert inputs  # torch's own format: a zip in the zip, with a pickle inside
    trace = tmp_path / "unpickled"
    trap = tmp_path / "trap.pt"
    torch.save((Trap(str(trace)),), trap)
    words = last_words(rewritten(exported, tmp_path / "trapped.pt2", model__pt=trap.read_bytes()))
    assert "cannot read" in words
    assert not trace.exists()


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.trace,))


def test_a_file_with_a_pickled_object_inside_is_refused(exported: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "opaque.pt2"
    shutil.copy(exported["path"], path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/constants/opaque_obj_0", pickle.dumps(Exploding()))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert "pickled objects" in last_words({**exported, "path": str(path), "sha256": sha256})
