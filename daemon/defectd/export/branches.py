"""Branches on data: what tracing would bake in without a word is found, and scripted where that works.

Two witnesses: the traced network against the network itself on inputs that differ as much as inputs can, and
`torch.export`, which stumbles over a branch on data whatever the input.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Sequence

import torch

from defectd.errors import ModelError
from defectd.export.formats import quiet, trace
from defectd.export.layers import Calls, Culprit, culprits, record

_RELATIVE = 1e-3  # of the largest value: rounding differs by far less, and another branch by far more
_COMPLAINTS = ("GuardOnDataDependent", "DataDependentOutput", "dynamic_control_flow", "data-dependent")


@dataclass(frozen=True)
class Traceable:
    """A network that can be traced without loss; `scripted` are its layers that keep their branches as TorchScript."""

    network: torch.nn.Module
    scripted: tuple[Culprit, ...]


def traceable(network: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> Traceable:
    """*network*, with each layer that branches on data scripted. Raises ModelError, which names the layer, where
    TorchScript cannot express it."""
    found = culprits(network, inputs, branch_on_data)
    if not found:
        return Traceable(network, ())
    result = copy.deepcopy(network)
    for culprit in found:
        result = _with_scripted(result, culprit, inputs)
    left = culprits(result, inputs, differs_when_traced)
    if left:
        raise ModelError(f"{left[0]}, even with {', '.join(one.name for one in found)} scripted")
    return Traceable(result, tuple(found))


def branch_on_data(module: torch.nn.Module, calls: Calls) -> str | None:
    """A fault for `culprits`: either witness."""
    return differs_when_traced(module, calls) or stumbles_in_export(module, calls)


def differs_when_traced(module: torch.nn.Module, calls: Calls) -> str | None:
    """A fault for `culprits`: traced with its first arguments, the module answers other ones otherwise."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    try:
        traced = trace(module, copy.deepcopy(calls.arguments[0]))
    except Exception:  # what cannot be traced alone is no witness; the layers around it are asked, too  # noqa: BLE001
        return None
    with torch.no_grad():
        for number, arguments in enumerate(calls.arguments, 1):
            expected = module(*copy.deepcopy(arguments))
            try:
                same = _same(expected, traced(*copy.deepcopy(arguments)))
            except RuntimeError:  # the other branch may have had another shape
                same = False
            if not same:
                return f"branches on data: traced with one input, it answers input {number} otherwise than the original"
    return None


def stumbles_in_export(module: torch.nn.Module, calls: Calls) -> str | None:
    """A fault for `culprits`: `torch.export` meets a branch on data."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    try:
        with quiet(), torch.no_grad():
            torch.export.export(module, copy.deepcopy(calls.arguments[0]), strict=False)
    except Exception as error:  # torch.export has many; only these few are meant  # noqa: BLE001
        text = f"{type(error).__name__}: {error}"
        if any(word in text for word in _COMPLAINTS):
            return "branches on data"
    return None


def _with_scripted(network: torch.nn.Module, culprit: Culprit, inputs: Sequence[torch.Tensor]) -> torch.nn.Module:
    """*network* with the culprit scripted in place. Its children are traced first where they are called in every run:
    only the culprit's own code needs to be what TorchScript understands."""
    module = network.get_submodule(culprit.name)
    children = dict(module.named_children())
    for name, calls in record(network, children, inputs).items():
        if calls.repeatable and not isinstance(children[name], torch.jit.ScriptModule):
            setattr(module, name, trace(children[name], calls.arguments[0]))
    try:
        with quiet():
            scripted: Any = torch.jit.script(module)
    except Exception as error:  # the compiler's own kinds
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"{culprit}, and TorchScript cannot express it ({line}); rewrite it with torch.where, or so that "
            "torch.jit.script understands it"
        ) from error
    if not culprit.name:
        return scripted  # type: ignore[no-any-return]
    parent, _, name = culprit.name.rpartition(".")
    setattr(network.get_submodule(parent), name, scripted)
    return network


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or one.shape != other.shape:
            return False
        scale = float(one.abs().max()) if one.numel() else 0.0
        return bool(torch.allclose(one, other, rtol=0, atol=_RELATIVE * max(scale, 1e-6), equal_nan=True))
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    return True
