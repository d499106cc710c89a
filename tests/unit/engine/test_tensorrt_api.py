"""The fake against what the vendor's bindings of each release told `tests/tensorrt-stubs`."""

from __future__ import annotations

import pytest

from support import tensorrt_api
from support.tensorrt_api import Api

KEPT = tensorrt_api.kept()


def test_all_supported_releases_are_kept() -> None:
    assert list(KEPT) == ["8.5.2.2", "8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106"]


@pytest.mark.parametrize("version", KEPT)
def test_the_fake_has_the_signatures_of_the_release(version: str) -> None:
    assert tensorrt_api.differences(tensorrt_api.of_fake(version), KEPT[version]) == []


def test_a_fake_that_has_more_or_other_is_found_out() -> None:
    vendor: Api = {"Builder": {"create_network": [["flags"]], "num_DLA_cores": "value"}}
    fake: Api = {
        "Builder": {"create_network": [["options"]], "num_DLA_cores": "value", "build_engine": [["network"]]},
        "Caffe": {"parse": [[]]},
    }
    assert tensorrt_api.differences(fake, vendor) == [
        "Builder.create_network: ours [['options']], theirs [['flags']]",
        "Builder.build_engine: ours [['network']], theirs None",
        "Caffe is not there",
    ]


def test_a_stub_is_read_with_its_overloads_properties_and_values() -> None:
    stub = (
        "class Builder:\n"
        "    @property\n    def num_DLA_cores(self) -> int: ...\n"
        "    @typing.overload\n    def create_network(self, flags: int = 0) -> None: ...\n"
        "    @typing.overload\n    def create_network(self) -> None: ...\n"
        "class BuilderFlag:\n    FP16: typing.ClassVar[BuilderFlag]\n"
        "class SomethingElse: ...\n"
    )
    assert tensorrt_api.of_stub(stub) == {
        "Builder": {"num_DLA_cores": "value", "create_network": [["flags"], []]},
        "BuilderFlag": {"FP16": "value"},
    }
