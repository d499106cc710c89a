"""A configuration is tried here before anything is sent."""

from __future__ import annotations

import pytest
from stations import to_toml
from wheelhouse.locks import CHECKOUT
from wheelhouse.rehearse import rehearse
from wheelhouse.targets import WheelError

MODEL = CHECKOUT / "daemon/defectd/demo/boards.torchscript"
FILES = {"/etc/defectd/bundles/boards.torchscript": str(MODEL)}


@pytest.fixture
def table():
    return {
        "station": {"site": "plant1", "area": "smt", "line": "line3", "station": "aoi1"},
        "mqtt": {"host": "broker.example", "port": 8883},
        "model": {"path": "/etc/defectd/bundles/boards.torchscript"},
        "camera": [{"name": "top", "kind": "simulated"}],
        "inspection": {"defect": [{"class_name": "short", "code": "S"}]},
    }


def _write(tmp_path, table):
    path = tmp_path / "station.toml"
    path.write_text(to_toml(table))
    return path


def test_a_right_one_says_where_the_station_will_be_heard(tmp_path, table):
    told = rehearse(_write(tmp_path, table), FILES)
    assert told["prefix"] == "defectd/v1/plant1/smt/line3/aoi1" and told["later"] == []
    assert told["broker"] == {"host": "broker.example", "port": 8883, "ca": None}


def test_a_wrong_one_names_every_mistake_by_its_place_on_the_station(tmp_path, table):
    table["inspection"]["defect"].append({"class_name": "shrot", "code": "X"})
    table["mqtt"]["tls"] = {"ca": "/etc/defectd/tls/ca.crt"}
    with pytest.raises(WheelError) as caught:
        rehearse(_write(tmp_path, table), FILES)
    assert "no class 'shrot'" in str(caught.value) and "/etc/defectd/tls/ca.crt cannot be read" in str(caught.value)
    assert str(tmp_path) not in str(caught.value).replace(str(tmp_path / "station.toml"), "")


def test_a_file_that_is_not_here_is_named(tmp_path, table):
    with pytest.raises(
        WheelError, match=r"/nowhere/root\.json: is not on this machine \(it would be /etc/defectd/root"
    ):
        rehearse(_write(tmp_path, table), {**FILES, "/etc/defectd/root.json": "/nowhere/root.json"})


def test_what_only_the_station_can_tell_is_left_to_its_doctor(tmp_path, table):
    table["camera"] = [{"name": "top", "kind": "replay", "path": "/data/pictures"}]
    told = rehearse(_write(tmp_path, table), FILES)
    assert len(told["later"]) == 1 and "/data/pictures does not exist" in told["later"][0]


@pytest.mark.parametrize(
    "camera",
    [
        {"kind": "aravis", "address": "192.168.10.5"},
        {"kind": "rtsp", "url": "rtsp://192.168.10.7/stream1"},
        {"kind": "simulated", "code": {}},
        {"kind": "simulated", "mode": "free_run", "track": {}},
    ],
)
def test_what_only_the_station_has_installed_is_no_mistake_here(tmp_path, table, camera):
    table["camera"] = [{"name": "top", **camera}]
    told = rehearse(_write(tmp_path, table), FILES)
    assert all("camera[1]" in line for line in told["later"])
