"""Layers that an export must not take as they are. Needs torch."""

from __future__ import annotations

from typing import Any

import torch


class BranchOnBrightness(torch.nn.Module):
    """Another way for bright inputs than for dark ones; TorchScript can express it."""

    def __init__(self, layer: torch.nn.Module, level: float = 0.0) -> None:
        super().__init__()
        self.layer = layer
        self.level = level

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer says, turned round for bright inputs."""
        y = self.layer(x)
        if float(x.mean()) > self.level:
            y = y * -0.5
        return y


class BranchByDictionary(BranchOnBrightness):
    """The same in words that TorchScript does not know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer says, turned round for bright inputs."""
        ways = {True: lambda y: y * -0.5, False: lambda y: y}
        return ways[bool(x.mean() > self.level)](self.layer(x))


class BranchThatNoProbeTakes(BranchOnBrightness):
    """A branch that only `torch.export` sees."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__(layer, level=1e9)


class _Private(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() + 1)

    @staticmethod
    def backward(_context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


class PrivateOperator(torch.nn.Module):
    """Computes in Python, which no format carries."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One more than the layer says."""
        return _Private.apply(self.layer(x))  # type: ignore[no-untyped-call,no-any-return]


class UnknownToOnnx(torch.nn.Module):
    """An operator of torch that ONNX has no word for."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's answer, and next to nothing."""
        y = self.layer(x)
        return y + 0 * torch.special.i1(y)
