"""The configuration that the demo writes."""

from __future__ import annotations

from pathlib import Path

from defectd.camera.boards import CLASS_NAMES
from defectd.configuration import load_settings
from defectd.demo.station import CODES, DemoStation
from defectd.messaging.topics import Topics
from defectd.watch.listener import BrokerAddress


def settings_of(folder: Path, units: int | None):
    broker = BrokerAddress("127.0.0.1", 21883, "ada", "secret")
    station = DemoStation(Topics("demo", "smt", "line1", "aoi1"), broker, folder, 4.0, units)
    config = folder / "station.toml"
    config.write_text(station.toml())
    assert "secret" not in station.toml()
    return load_settings(config)


def test_the_daemon_accepts_it(tmp_path):
    settings = settings_of(tmp_path, 40)
    (camera,) = settings.camera
    assert (camera.kind, camera.seed, camera.rate_hz, camera.units) == ("simulated", 7, 4.0, 40)
    assert settings.mqtt.port == 21883
    assert settings.state.directory == tmp_path / "state"


def test_without_a_number_the_line_goes_on_for_ever(tmp_path):
    assert settings_of(tmp_path, None).camera[0].units is None


def test_every_class_of_the_simulated_boards_has_a_code():
    assert tuple(CODES) == CLASS_NAMES


def test_a_path_with_spaces_and_quotes_is_no_trouble(tmp_path):
    folder = tmp_path / 'a "strange" \\ plåce'
    folder.mkdir()
    assert settings_of(folder, 1).state.directory == folder / "state"
