"""The network's files in a bundle: written, or refused with the name of the layer that a format cannot carry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from defectd.errors import ModelError
from defectd.export.branches import traceable
from defectd.export.checkpoint import Original, fused
from defectd.export.formats import Writer, to_exported_program, to_onnx, to_torchscript, trace
from defectd.export.layers import Calls, culprits
from defectd.export.pictures import probes
from defectd.export.privacy import paths_in, places
from defectd.export.progress import Say
from defectd.models.manifest import Role
from defectd.storage import write_durably

FILE_NAMES: dict[Role, str] = {
    "torchscript": "model.torchscript",
    "exported_program": "model.pt2",
    "onnx": "model.onnx",
}
_WRITERS: dict[Role, Writer] = {
    "torchscript": to_torchscript,
    "exported_program": to_exported_program,
    "onnx": to_onnx,
}
_TITLES: dict[Role, str] = {"torchscript": "TorchScript", "exported_program": "torch.export", "onnx": "ONNX"}
_OPERATOR = re.compile(r"\b(?:[a-z_]\w*::[\w.]+|torch\.ops\.[\w.]+|\^\w+)")


def write_formats(original: Original, directory: Path, metadata: dict[str, Any], say: Say) -> list[Role]:
    """Write the network's files; which. All three, but for a network that branches on data those that can carry it.
    Raises ModelError."""
    inputs = [torch.from_numpy(one) for one in probes(original.input_hw)]
    network = fused(original)
    say("looking for branches on data")
    found = traceable(network, inputs)
    for culprit in found.scripted:
        say(f"{culprit}: scripted, so that it keeps its branches")
    network = found.network
    if found.scripted and not isinstance(network, torch.jit.ScriptModule):
        network = trace(network, (inputs[0],))
    written: list[Role] = []
    for role, writer in _WRITERS.items():
        if role == "exported_program" and found.scripted:
            say("left out: torch.export, which cannot carry a branch on data; no station will offer `compiled`")
            continue
        say(f"writing {_TITLES[role]}")
        try:
            data = writer(network, inputs[0], metadata)
        except ModelError:
            raise
        except Exception as error:  # torch and ONNX have dozens of kinds
            if role == "torchscript" or not found.scripted:
                raise _refusal(original, role, network, inputs[0], error) from error
            say(f"left out: {_TITLES[role]}, which cannot carry the scripted layers ({_first_line(error)})")
            continue
        _check_privacy(data, FILE_NAMES[role], original.path, directory)
        write_durably(directory / FILE_NAMES[role], data)
        written.append(role)
    return written


def _refusal(
    original: Original, role: Role, network: torch.nn.Module, example: torch.Tensor, error: Exception
) -> ModelError:
    """Which layer it is, and which operator, that *role* cannot carry."""
    writer = _WRITERS[role]

    def fault(module: torch.nn.Module, calls: Calls) -> str | None:
        try:
            writer(_Apart(module), calls.arguments[0], {})  # type: ignore[arg-type]
        except Exception as inner:  # noqa: BLE001
            return _operator(inner)
        return None

    found = culprits(network, [example], fault)
    what = "; ".join(str(one) for one in found[:3]) if found else f"the network {_operator(error)}"
    return ModelError(
        f"{original.path}: {_TITLES[role]} cannot carry it: {what}; replace that layer by standard operators"
    )


class _Apart(torch.nn.Module):
    """A layer by itself, called with the arguments that it gets inside the network."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, arguments: Any) -> Any:
        """What the layer answers; one tuple, because a writer takes one input."""
        return self.layer(*arguments)


def _operator(error: Exception) -> str:
    names = sorted(set(_OPERATOR.findall(str(error))))
    return f"uses {', '.join(names[:3])} ({_first_line(error)})" if names else f"fails: {_first_line(error)}"


def _check_privacy(data: bytes, name: str, checkpoint: Path, directory: Path) -> None:
    left = paths_in(data, places(checkpoint, directory / name))
    if left:
        raise ModelError(
            f"{name}: would carry paths of this machine: {', '.join(left)}; rename the class or layer that has them "
            "in its name, or report this"
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no reason given'}"
