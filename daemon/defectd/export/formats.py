"""One network, three formats, as bytes: TorchScript, `torch.export` and ONNX. All static: (1, 3, height, width)."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import os
import sys
import warnings
from typing import Any, Callable, Iterator

import torch

from defectd.errors import ModelError
from defectd.export.packages import required
from defectd.export.privacy import without_debug_records

OPSET = 17
"""The newest that the ONNX parser of TensorRT 8.5 reads (JetPack 5)."""
_ONNX_IR = 8  # the one that belongs to opset 17; newer files are refused by parsers of that time
INPUT, OUTPUT = "images", "output0"  # as Ultralytics calls them

Writer = Callable[[torch.nn.Module, torch.Tensor, "dict[str, Any]"], bytes]
"""From a network, an input and metadata to a file's content; raises whatever torch or ONNX raise."""


def to_torchscript(network: torch.nn.Module, example: torch.Tensor, metadata: dict[str, Any]) -> bytes:
    """Traced; with the metadata where Ultralytics' exporter puts them, and without the paths of this machine."""
    with quiet(), torch.no_grad():
        traced = network if isinstance(network, torch.jit.ScriptModule) else trace(network, (example,))
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer, _extra_files={"config.txt": json.dumps(metadata)})
    return without_debug_records(buffer.getvalue())


def to_exported_program(network: torch.nn.Module, example: torch.Tensor, metadata: dict[str, Any]) -> bytes:
    """A `.pt2` without example inputs, which would be pickled, and without stack traces, which have paths."""
    if "strict" not in inspect.signature(torch.export.export).parameters:
        raise ModelError(f"torch {torch.__version__} is too old to write .pt2 files; pip install --upgrade torch")
    with quiet(), torch.no_grad():
        program = torch.export.export(network, (example,), strict=False)
        for graph in program.graph_module.modules():
            for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
                node.meta.pop("stack_trace", None)
        program.example_inputs = None
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={"config.txt": json.dumps(metadata)})
    return buffer.getvalue()


def to_onnx(network: torch.nn.Module, example: torch.Tensor, metadata: dict[str, Any]) -> bytes:
    """Opset 17, checked, by the exporter that follows TorchScript: the newer one begins at opset 18."""
    onnx = required("onnx")
    buffer: Any = io.BytesIO()  # as good as a path, though torch's annotations do not say so
    legacy: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with quiet(), _no_output(), torch.no_grad():
        torch.onnx.export(
            network, (example,), buffer, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], **legacy
        )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    _forget_sources(model.graph)
    model.ir_version = min(model.ir_version, _ONNX_IR)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=str(value))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def trace(network: torch.nn.Module, arguments: tuple[Any, ...]) -> torch.jit.ScriptModule:
    """What *network* does with *arguments*, recorded: a branch on data becomes the way that it took."""
    with quiet(), torch.no_grad():
        traced: torch.jit.ScriptModule = torch.jit.trace(network, arguments, strict=False, check_trace=False)  # type: ignore[no-untyped-call]
    return traced


def ultralytics_metadata(
    *, description: str, version: str, stride: int, head: str, input_hw: tuple[int, int], classes: tuple[str, ...],
    end2end: bool,
) -> dict[str, Any]:  # fmt: skip
    """What Ultralytics' own exporter would write, less what it learned about this machine."""
    return {
        "description": description,
        "author": "Ultralytics",
        "version": version,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
        "stride": stride,
        "task": "detect",
        "head": head,
        "batch": 1,
        "imgsz": list(input_hw),
        "names": {str(index): name for index, name in enumerate(classes)},
        "args": {"batch": 1, "dynamic": False, "nms": False, "half": False},
        "channels": 3,
        "end2end": end2end,
    }


def _forget_sources(graph: Any) -> None:
    """Remove the exporter's source lines, in nested graphs, too."""
    graph.doc_string = ""
    for node in graph.node:
        node.doc_string = ""
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    _forget_sources(inner)


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """Below Python: when ONNX export fails, C++ writes the whole graph to standard output."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch warns about itself and about every shape that becomes a constant; parity is what we rely on."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
