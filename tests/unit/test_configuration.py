from __future__ import annotations

from pathlib import Path

import pytest

from defectd.configuration import load_settings
from defectd.errors import SettingsError

GOOD = """
[station]
site = "plant1"
area = "smt"
line = "line1"
station = "aoi1"
[model]
path = "model.torchscript"
[[camera]]
name = "top"
kind = "replay"
path = "images"
[[inspection.defect]]
class_name = "short"
code = "PCB-SHORT"
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "station.toml"
        path.write_text(text)
        return load_settings(path)

    return load


def problems(load, text):
    with pytest.raises(SettingsError) as caught:
        load(text)
    return caught.value.problems


def test_the_shortest_file_gives_the_documented_defaults(load):
    settings = load(GOOD)
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.backlog_rate_hz) == ("127.0.0.1", 1883, 200)
    assert (settings.model.device, settings.model.precision) == ("auto", "fp16")
    assert settings.inspection.deadline_ms == 250
    assert settings.camera[0].rate_hz == 4.0 and settings.camera[0].mode == "triggered"


def test_relative_paths_are_relative_to_the_file(load, tmp_path):
    settings = load(GOOD)
    assert settings.model.path == tmp_path / "model.torchscript"
    assert settings.camera[0].path == tmp_path / "images"
    assert settings.state.directory == Path("/var/lib/defectd")


def test_so_are_those_of_trust_and_of_rollout_sources(load, tmp_path):
    source = '[[rollout.source]]\nalias = "web"\nurl = "https://models"\nca = "ca.crt"\n'
    text = (
        GOOD.replace("[model]", '[model]\ntrust = "root.json"')
        + source
        + '[[rollout.source]]\nalias = "usb"\ndirectory = "usb"\n'
    )
    settings = load(text)
    assert settings.model.trust == tmp_path / "root.json"
    assert [(one.ca, one.directory) for one in settings.rollout.source] == [
        (tmp_path / "ca.crt", None),
        (None, tmp_path / "usb"),
    ]


def test_every_mistake_is_told_at_once_with_key_value_and_expectation(load):
    text = GOOD.replace('site = "plant1"', 'site = "plant 1"').replace('path = "images"', "rate_hz = -3\nloopy = true")
    told = "\n".join(problems(load, text))
    assert "station.site: got 'plant 1', expected: string should match" in told
    assert "camera[1].rate_hz: got -3, expected: input should be greater than 0" in told
    assert "camera[1].loopy: unknown key" in told
    assert "camera[1].path: missing" in told


def test_an_unknown_camera_kind_names_the_known_ones(load):
    (told,) = problems(load, GOOD.replace('"replay"', '"webcam"'))
    assert "camera[1].kind: got 'webcam', expected one of 'replay', 'simulated', 'opencv'" in told


def test_a_password_is_never_shown(load, monkeypatch):
    monkeypatch.setenv("DEFECTD_MQTT__PASSWORD", "geheim")
    settings = load(GOOD)
    assert settings.mqtt.password.get_secret_value() == "geheim"
    assert "geheim" not in str(settings.masked()) and "geheim" not in repr(settings)


def test_the_password_in_an_rtsp_address_is_never_shown(load):
    text = GOOD.replace(
        'kind = "replay"\npath = "images"', 'kind = "opencv"\nsource = "rtsp://admin:S3cret@10.0.0.9/1"'
    )
    assert "S3cret" not in str(load(text).masked()) and "rtsp://admin:" in str(load(text).masked())
    (told,) = problems(load, text.replace("[model]", "[model]\nthreads = 0"))
    assert "S3cret" not in told


def test_the_value_of_an_unknown_key_is_not_shown_for_it_may_be_a_secret(load):
    (told,) = problems(load, GOOD + '[mqtt]\npasswort = "hunter2"\n')
    assert "mqtt.passwort: unknown key" in told and "hunter2" not in told


def test_an_environment_variable_that_is_no_table_is_told(load, monkeypatch):
    monkeypatch.setenv("DEFECTD_STATION", "foo")
    (told,) = problems(load, GOOD)
    assert "environment" in told and "station" in told


def test_a_wrong_password_type_is_told_without_its_value(load):
    (told,) = problems(load, GOOD + "[mqtt]\npassword = 12345\n")
    assert "12345" not in told and "mqtt.password" in told


def test_the_environment_wins_over_the_file(load, monkeypatch):
    monkeypatch.setenv("DEFECTD_MQTT__HOST", "broker.plant1")
    assert load(GOOD + '[mqtt]\nhost = "other"\nport = 8883\n').mqtt.host == "broker.plant1"
    assert load(GOOD + '[mqtt]\nhost = "other"\nport = 8883\n').mqtt.port == 8883


def test_a_file_that_is_no_toml_says_where(load):
    (told,) = problems(load, "[station\n")
    assert "not valid TOML" in told and "line 1" in told


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "none.toml")


def test_two_cameras_of_one_name_are_refused(load):
    (told,) = problems(load, GOOD + '[[camera]]\nname = "top"\nkind = "simulated"\n')
    assert "camera names must differ" in told


def test_one_class_twice_in_the_recipe_is_refused(load):
    (told,) = problems(load, GOOD + '[[inspection.defect]]\nclass_name = "short"\ncode = "X"\n')
    assert "short stands twice" in told


def test_the_fingerprint_changes_with_a_setting_and_not_with_the_password(load, monkeypatch):
    plain = load(GOOD).sha256()
    assert load(GOOD.replace("plant1", "plant2")).sha256() != plain
    monkeypatch.setenv("DEFECTD_MQTT__PASSWORD", "a")
    with_password = load(GOOD).sha256()
    monkeypatch.setenv("DEFECTD_MQTT__PASSWORD", "b")
    assert load(GOOD).sha256() == with_password
