"""The doctor with real brokers, daemons, cameras and processes that hang."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Mapping

import pytest

from defectd import doctor_cli
from defectd.doctor import asking
from defectd.doctor.checks import rollouts, software
from defectd.doctor.report import Finding, Level, Report
from defectd.doctor.run import STEPS, Nobody, Options, examine
from defectd.models.store import Store
from defectd.rollout.ledger import Ledger
from defectd.rollout.states import State
from support.brokers import NO_MOSQUITTO, Listener, MosquittoBroker, find_mosquitto, free_port
from support.bundle_server import BundleServer, Deaf, make_certificates
from support.releases import small
from support.station import merged, wait_until, write_config

mqtt5 = pytest.mark.skipif(find_mosquitto() is None, reason=NO_MOSQUITTO)
PREFIX = "defectd/v1/plant1/smt/line3/aoi1"
SOURCE = {"rollout": {"source": [{"alias": "usb", "directory": "usb"}]}}

Station = Callable[..., Path]


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """Writes a station.toml with *changes*. Its model is no model, which only matters to those who load it."""
    (tmp_path / "model.torchscript").write_bytes(b"nothing")

    def write(changes: Mapping[str, Any] | None = None, port: int = 1) -> Path:
        settings = {
            "station": {"site": "plant1", "area": "smt", "line": "line3", "station": "aoi1"},
            "mqtt": {"port": port},
            "model": {"path": "model.torchscript"},
            "camera": [{"name": "top", "kind": "simulated", "rate_hz": 50, "width_px": 192, "height_px": 192}],
            "inspection": {"defect": [{"class_name": "open", "code": "OPEN"}]},
            "state": {"directory": "state"},
        }
        return write_config(tmp_path, merged(settings, changes or {}))

    return write


def examined(config: Path, *sections: str, **options: Any) -> Report:
    steps = [step for step in STEPS if not sections or step.section in sections]
    return examine(config, Options(steps=steps, **options), Nobody())


def line(report: Report, subject: str, level: Level | None = None) -> Finding:
    found = [one for _, one in report.findings if one.subject == subject and level in (None, one.level)]
    assert found, f"no {subject} in {[(one.subject, one.level.value, one.found) for _, one in report.findings]}"
    return found[0]


def doctor(*arguments: str | Path) -> int:
    """As the command line would."""
    parser = argparse.ArgumentParser()
    doctor_cli.add_to(parser.add_subparsers())
    options = parser.parse_args(["doctor", *map(str, arguments)])
    return int(options.command(options))


# -- the broker --------------------------------------------------------------------------------------------------


@mqtt5
@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
def test_a_broker_that_takes_all_is_fit_and_nothing_stays_behind(station, tmp_path, protocol):
    with MosquittoBroker(tmp_path / "broker") as broker:
        config = station({"mqtt": {"protocol": protocol}, **SOURCE}, broker.port)
        report = examined(config, "broker")
        assert [one.level for _, one in report.findings] == [Level.OK] * 4
        assert line(report, "login").figures["protocol"] == ("3.1.1" if protocol == "3.1.1" else "5")
        with Listener(broker) as listener:
            assert listener.messages == []  # nothing is retained


@mqtt5
def test_the_probe_is_neither_status_nor_event_nor_retained(station, tmp_path):
    with MosquittoBroker(tmp_path / "broker") as broker, Listener(broker) as listener:
        examined(station(SOURCE, broker.port), "broker")
        wait_until(lambda: listener.messages, 10, "the probe")
        assert {(topic, retained) for topic, _, retained in listener.messages} == {(f"{PREFIX}/tele/doctor", False)}


@mqtt5
def test_an_acl_that_forbids_is_told_with_the_line_to_add(station, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topic read #\n")
    acl.chmod(0o600)
    with MosquittoBroker(tmp_path / "broker", [f"acl_file {acl}"]) as broker:
        told = [one for _, one in examined(station({}, broker.port), "broker").findings if one.level is Level.ERROR]
    assert len(told) == 1
    assert f"topic readwrite {PREFIX}/#" in told[0].remedy or "allow" in told[0].remedy


@mqtt5
def test_a_wrong_password_is_told_from_a_broker_that_is_away(station, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    lines = ["allow_anonymous false", f"password_file {passwords}"]
    with MosquittoBroker(tmp_path / "broker", lines) as broker:
        config = station({"mqtt": {"username": "aoi1", "password": "geheim"}}, broker.port)
        told = line(examined(config, "broker"), "login", Level.ERROR)
        assert "'aoi1'" in told.found
        assert "mqtt.username" in told.remedy
        assert "geheim" not in told.found + told.remedy
    assert "nothing listens" in line(examined(config, "broker"), "broker", Level.ERROR).found


def test_a_broker_that_has_no_such_name_or_is_none_at_all_is_told(station):
    told = line(examined(station({"mqtt": {"host": "nobody.invalid"}}), "broker"), "broker", Level.ERROR)
    assert "nobody.invalid" in told.found
    assert "mqtt.host" in told.remedy


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA and a certificate of 127.0.0.1 for two days, and another CA."""
    directory = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        openssl("req", "-x509", *ec, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "90",
                "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    openssl("req", *ec, "-keyout", "here.key", "-out", "here.csr", "-subj", "/CN=here")
    (directory / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "here.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "here.crt", "-days", "2", "-extfile", "ext")  # fmt: skip
    (directory / "here.key").chmod(0o644)
    return directory


@mqtt5
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves the socket to the GC
def test_certificates_are_told_by_the_day_they_end_and_a_wrong_ca_by_name(station, tmp_path, certificates):
    lines = [f"certfile {certificates}/here.crt", f"keyfile {certificates}/here.key"]
    with MosquittoBroker(tmp_path / "broker", lines) as broker:
        ours = {"ca": certificates / "ca.crt", "cert": certificates / "here.crt", "key": certificates / "here.key"}
        good = examined(station({"mqtt": {"tls": ours}}, broker.port), "broker")
        assert line(good, "station cert").level is Level.WARNING
        assert line(good, "broker cert").level is Level.WARNING  # it ends soon
        assert line(good, "CA").level is Level.OK
        assert "with TLS" in line(good, "login").found
        wrong = examined(station({"mqtt": {"tls": {"ca": certificates / "other.crt"}}}, broker.port), "broker")
        assert "CERTIFICATE_VERIFY_FAILED" in line(wrong, "TLS", Level.ERROR).found
        plain = examined(station({}, broker.port), "broker")
        assert line(plain, "login", Level.ERROR).remedy


# -- processes that hang or crash --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import time; time.sleep(60)", "took longer than 3 s"),
        ("import os; os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
        ("raise OSError('libcudnn.so.8: cannot open shared object file')", "libcudnn.so.8"),
        ("raise ModuleNotFoundError(\"No module named 'torch'\")", "is not installed"),
    ],
)
def test_a_torch_that_hangs_crashes_or_lacks_is_one_line_of_the_report(station, tmp_path, monkeypatch, code, words):
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "fake"), os.environ["PYTHONPATH"]]))
    monkeypatch.setattr(software, "_TORCH_S", 3.0)
    told = line(examined(station(), "software"), "torch", Level.ERROR)
    assert words in told.found
    assert told.remedy


def test_the_real_torch_computes_rightly(station):
    pytest.importorskip("torch")
    told = asking.told_by("torch_build", {"run": True, "device": "cpu"}, 120)
    assert told.trouble is None
    assert told.facts["right"] is True


# -- cameras, disk -----------------------------------------------------------------------------------------------


def test_a_camera_that_is_there_gives_a_picture_and_one_that_is_not_an_error(station):
    pytest.importorskip("cv2")
    cameras = [
        {"name": "top", "kind": "simulated", "width_px": 320, "height_px": 256},
        {"name": "side", "kind": "opencv", "source": "/dev/video99"},
    ]
    report = examined(station({"camera": cameras}), "cameras", "access")
    assert "320x256" in line(report, "camera top").found
    told = [one for _, one in report.findings if one.subject == "camera side"]
    assert [one.level for one in told] == [Level.ERROR, Level.ERROR]
    assert "/dev/video99 is not there" in told[0].found


def test_the_disk_is_measured_and_left_as_it_was(station, tmp_path):
    (tmp_path / "state").mkdir()
    report = examined(station(), "state directory")
    assert line(report, "space").level is not Level.ERROR
    assert line(report, "fsync").figures["p50_ms"] > 0
    assert list((tmp_path / "state").iterdir()) == []


def test_a_state_directory_that_is_not_there_yet_is_not_made(station, tmp_path):
    examined(station({"state": {"directory": "a/b"}}), "state directory", "configuration")
    assert not (tmp_path / "a").exists()


# -- rollouts ----------------------------------------------------------------------------------------------------


def test_sources_are_asked_and_those_that_do_not_answer_are_errors_with_a_remedy(station, tmp_path, monkeypatch):
    monkeypatch.setattr(rollouts, "_SOURCE_S", 1.0)
    (tmp_path / "usb").mkdir()
    make_certificates(tmp_path)
    ours, theirs = tmp_path / "ca.crt", tmp_path / "other-ca.crt"
    with BundleServer(tmp_path / "server.crt") as server, Deaf() as deaf:
        sources = [
            {"alias": "usb", "directory": "usb"},
            {"alias": "server", "url": f"{server.url}/bundles", "ca": ours},
            {"alias": "other-ca", "url": server.url, "ca": theirs},
            {"alias": "nobody", "url": f"https://localhost:{free_port()}", "ca": ours},
            {"alias": "deaf", "url": deaf.url, "ca": ours},
        ]
        report = examined(station({"rollout": {"source": sources}}), "rollouts")
    assert [line(report, f"source {one['alias']}").level for one in sources] == [Level.OK] * 2 + [Level.ERROR] * 3
    assert line(report, "source other-ca").figures == {"code": "tls"}
    assert all(one.remedy for _, one in report.findings if one.level is Level.ERROR)


def test_a_station_without_a_source_is_asked_nothing(station):
    assert [one.level for _, one in examined(station(), "rollouts").findings] == [Level.SKIPPED]


def test_trust_that_is_missing_and_state_that_was_lost_are_told(station, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/models.lost").write_text("2026-11-20: malformed")
    report = examined(station(SOURCE), "rollouts")
    assert "sudo rm" in line(report, "state_lost", Level.ERROR).remedy
    assert "model.trust" in line(report, "root.json", Level.ERROR).remedy
    assert "none so far" in line(report, "last rollout", Level.OK).found


def test_the_last_rollout_and_a_damaged_memory_of_it_are_told(station, tmp_path):
    models = tmp_path / "state/models"
    with closing(Store(models)) as store:
        ledger = Ledger(store)
        bundle = store.import_bundle(small(tmp_path / "bundle", 5), None).manifest_sha256
        begun = ledger.begin("request-1", 7, "deploy", b"{}", datetime(2026, 5, 1, tzinfo=timezone.utc), bundle, 5)
        ledger.move(ledger.move(begun, State.DOWNLOADING), State.FAILED, "not_found", "nothing is there")
    report = examined(station(SOURCE), "rollouts")
    assert line(report, "models.db").level is Level.OK
    assert "deploy of pcb 1.5" in line(report, "last rollout", Level.WARNING).found
    assert "failed: not_found: nothing is there" in line(report, "last rollout").found
    (models / "models.db").write_bytes(b"no database" * 1000)
    assert "docs/rollout.md" in line(examined(station(SOURCE), "rollouts"), "models.db", Level.ERROR).remedy


# -- the whole ---------------------------------------------------------------------------------------------------


def test_every_mistake_in_the_settings_is_told_and_the_rest_is_examined_all_the_same(station, capsys):
    config = station({"mqtt": {"port": "x", "colour": "red"}, "state": {"outbox_max_mb": 0}})
    assert doctor("--config", config, "--quick", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    wrong = [one["found"] for one in told["findings"] if one["section"] == "configuration"]
    assert [found.split(":")[0] for found in wrong] == ["mqtt.port", "mqtt.colour", "state.outbox_max_mb"]
    assert all(one["remedy"] for one in told["findings"] if one["level"] in ("warning", "error"))
    assert {"Python", "memory", "clock"} <= {one["subject"] for one in told["findings"]}


def test_a_web_port_that_is_taken_is_told_before_the_daemon_finds_out(station, tmp_path):
    import socket

    port = free_port()
    config = station({"web": {"port": port}})
    assert "is free" in line(examined(config, "service"), "web").found
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert line(examined(config, "service"), "web").level is Level.ERROR


@pytest.mark.torch
@mqtt5
def test_a_running_station_does_not_feel_the_doctor(tmp_path, capsys):
    pytest.importorskip("torch")
    from support.rolling import rolling

    with rolling(tmp_path, units=600, rate_hz=15) as line_:
        here = line_.here
        here.await_units(10)
        before = {name: dict(value) for name, value in here.collector.retained.items()}
        assert doctor("--config", here.daemon.config, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        here.await_units(len(here.collector.inspections) + 10)
        after = here.collector.retained
        assert before["birth"] == after["birth"]  # a new connection would have published it again
        assert before["status"]["state"] == after["status"]["state"] == "online"
        assert {one["verdict"] for one in here.collector.inspections} <= {"passed", "failed"}
        found = {one["subject"]: one for one in told["findings"]}
        assert found["daemon"]["figures"] == {"pid": here.daemon.pid}
        assert found["cameras"]["level"] == found["pauses"]["level"] == found["computing"]["level"] == "skipped"
        assert found["model"]["level"] == found["publishing"]["level"] == found["commands"]["level"] == "ok"
        here.daemon.terminate()
        assert doctor("--config", here.daemon.config) == 0
        shown = capsys.readouterr().out
        assert "camera top" in shown
        assert "ms after 0.5 s of rest" in shown
        assert shown.splitlines()[-1].endswith(("the station works; see the warnings", "the station is fit"))


def test_somebody_else_than_the_daemons_user_is_told_to_look_as_that_user(station, tmp_path, monkeypatch):
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/.lock").touch(mode=0o600)
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "state").stat().st_uid + 4711)
    monkeypatch.setattr(os, "access", lambda *_: False)
    report = examined(station(), "configuration", "state directory")
    assert "sudo -u " in line(report, "user", Level.WARNING).remedy
    assert line(report, "state").level is Level.SKIPPED
