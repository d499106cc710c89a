from __future__ import annotations

import warnings
from typing import Iterator

import pytest

pytest.importorskip("torch", reason="needs torch")
import torch

from defectd.errors import ModelError
from defectd.export.branches import traceable
from defectd.export.formats import trace
from defectd.export.layers import Calls, culprits
from support.branching import BranchByDictionary, BranchOnBrightness, BranchThatNoProbeTakes

pytestmark = pytest.mark.torch
INPUTS = [torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), -torch.ones(1, 3, 8, 8)]


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch about torch.jit
        yield


def network(*layers: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), *layers, torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))).eval()


def test_a_network_without_branches_stays_as_it_is() -> None:
    plain = network(torch.nn.SiLU())
    found = traceable(plain, INPUTS)
    assert found.network is plain
    assert found.scripted == ()


def test_a_branch_on_data_is_found_and_kept_by_scripting() -> None:
    branching = network(BranchOnBrightness(torch.nn.Conv2d(3, 3, 1), level=0.1))
    found = traceable(branching, INPUTS)
    assert [(one.name, one.kind) for one in found.scripted] == [("1", "BranchOnBrightness")]
    traced = trace(found.network, (INPUTS[0],))
    with torch.no_grad():
        assert all(torch.allclose(traced(one), branching(one)) for one in INPUTS)


def test_a_branch_that_no_input_takes_is_found_too() -> None:
    found = traceable(network(BranchThatNoProbeTakes(torch.nn.SiLU())), INPUTS)
    assert [one.name for one in found.scripted] == ["1"]


def test_every_branch_is_found_at_any_depth() -> None:
    branching = network(
        BranchOnBrightness(torch.nn.Sequential(torch.nn.SiLU(), BranchOnBrightness(torch.nn.SiLU(), 0.2)), 0.1),
        torch.nn.SiLU(),
        BranchThatNoProbeTakes(torch.nn.SiLU()),
    )
    found = traceable(branching, INPUTS)
    assert {one.name for one in found.scripted} >= {"1.layer.1", "3"}
    traced = trace(found.network, (INPUTS[0],))
    with torch.no_grad():
        assert all(torch.allclose(traced(one), branching(one)) for one in INPUTS)


def test_a_branch_that_torchscript_cannot_express_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"layer 1 \(BranchByDictionary\) branches on data.*torch.where"):
        traceable(network(BranchByDictionary(torch.nn.SiLU(), level=0.1)), INPUTS)


def test_a_fault_is_followed_to_the_deepest_layer_that_shows_it() -> None:
    def fault(module: torch.nn.Module, calls: Calls) -> str | None:
        return "has a SiLU" if any(isinstance(one, torch.nn.SiLU) for one in module.modules()) else None

    found = culprits(network(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.SiLU())), INPUTS, fault)
    assert [str(one) for one in found] == ["layer 1.1 (SiLU) has a SiLU"]
