"""Which layers is it? From a fault of the whole network down to the deepest modules that show it by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Sequence

import torch


@dataclass(frozen=True)
class Calls:
    """How a module is called: `arguments` run by run. `repeatable` if these are all there is to a call, in every run:
    then it can be run by itself."""

    arguments: Sequence[tuple[Any, ...]]
    repeatable: bool = True


Fault = Callable[[torch.nn.Module, Calls], "str | None"]
"""What is wrong with a module that is called so, in words; None: nothing."""


@dataclass(frozen=True)
class Culprit:
    """A deepest module with a fault: `name` as in named_modules, "" for the network itself."""

    name: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"layer {self.name or '(the whole network)'} ({self.kind}) {self.reason}"


def culprits(network: torch.nn.Module, inputs: Sequence[torch.Tensor], fault: Fault) -> list[Culprit]:
    """All deepest modules of *network* that show *fault* when it sees *inputs* one by one; none if it has no fault."""
    reason = fault(network, Calls([(one,) for one in inputs]))
    return [] if reason is None else _below(network, "", network, reason, inputs, fault)


def record(
    network: torch.nn.Module, modules: dict[str, torch.nn.Module], inputs: Sequence[torch.Tensor]
) -> dict[str, Calls]:
    """How each of *modules* is called while *network* sees *inputs* one by one: of several calls in a run the first."""
    seen: dict[str, list[tuple[Any, ...]]] = {name: [] for name in modules}
    fresh: set[str] = set()  # not yet called in this run
    odd: set[str] = set()  # called with keywords, or not in every run

    def hook(name: str) -> Callable[..., None]:
        def remember(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if kwargs:
                odd.add(name)
            if name in fresh:
                fresh.discard(name)
                seen[name].append(_copy(args))

        return remember

    handles = [module.register_forward_pre_hook(hook(name), with_kwargs=True) for name, module in modules.items()]
    try:
        with torch.no_grad():
            for one in inputs:
                fresh.update(modules)
                network(one)
                odd |= fresh
    finally:
        for handle in handles:
            handle.remove()
    return {name: Calls(arguments, repeatable=name not in odd) for name, arguments in seen.items()}


def _below(
    network: torch.nn.Module, name: str, module: torch.nn.Module, reason: str, inputs: Sequence[torch.Tensor],
    fault: Fault,
) -> list[Culprit]:  # fmt: skip
    """The culprits inside *module*, which has a fault for *reason*; itself, if its children have none."""
    found: list[Culprit] = []
    children = _children(module)
    for child_name, calls in record(network, children, inputs).items():
        child = children[child_name]
        inner = fault(child, calls) if calls.repeatable else None
        if inner is not None:
            path = f"{name}.{child_name}" if name else child_name
            found += _below(network, path, child, inner, inputs, fault)
    return found or [Culprit(name, type(module).__name__, reason)]


def _children(module: torch.nn.Module, prefix: str = "") -> dict[str, torch.nn.Module]:
    """Children; in place of containers, which may never be called themselves, what is in them."""
    found: dict[str, torch.nn.Module] = {}
    for name, child in module.named_children():
        if isinstance(child, (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)):
            found.update(_children(child, f"{prefix}{name}."))
        else:
            found[prefix + name] = child
    return found


def _copy(value: Any) -> Any:
    """Tensors copied, because modules may write into what they get; lists and tuples followed."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(_copy(one) for one in value)
    return value
