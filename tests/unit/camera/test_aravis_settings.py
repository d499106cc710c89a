"""Mistakes in the table of a GenICam camera are told before it is opened."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from defectd.camera_settings import AravisSettings


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "expected one of address, serial and user_name"),
        ({"address": "10.0.0.5", "serial": "1"}, "expected one of address, serial and user_name"),
        ({"address": "camera.local"}, "Expected 4 octets"),
        ({"user_name": "top"}, "name the network interface"),
        ({"address": "10.0.0.5", "trigger_source": "Software"}, "nobody would fire it"),
    ],
)
def test_what_cannot_work_is_named(table, words):
    with pytest.raises(ValidationError, match=words):
        AravisSettings(name="top", kind="aravis", **table)


def test_features_keep_their_types_and_their_order():
    features = {"GainAuto": "Off", "Gain": 4.5, "ReverseX": True, "OffsetX": 16}
    camera = AravisSettings(name="top", kind="aravis", address="10.0.0.5", features=features)
    assert list(camera.features.items()) == list(features.items())
    assert [type(value) for value in camera.features.values()] == [str, float, bool, int]
