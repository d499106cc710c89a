"""The technician's commands, as they are typed, against stations on a real broker."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from defectd import rollout_cli
from defectd.errors import SettingsError, StartupError, StateError
from defectd.models import ed25519
from defectd.models.store import Store
from defectd.rollout.command import Audience, Command, Target
from defectd.rollout.ledger import Ledger
from defectd.rollout.states import State
from defectd.technician.fleet import NoRollout
from defectd.technician.screen import Screen
from defectd.technician.standing import Kind, Standing
from support import bundles
from support.brokers import (
    NO_MOSQUITTO,
    NO_NATS,
    Listener,
    MosquittoBroker,
    NatsBroker,
    find_mosquitto,
    find_nats,
    free_port,
)
from support.bundle_server import make_certificates
from support.fake_station import FakeStation, Script
from support.releases import small

needs_mosquitto = [
    pytest.mark.mqtt5,
    pytest.mark.skipif(find_mosquitto() is None, reason=NO_MOSQUITTO),
]
pytestmark = needs_mosquitto
FOLDER = ("--source", "usb", "--path", "boards/1.5")
AOI1, AOI2, AOI3 = (f"plant1/smt/line1/aoi{number}" for number in (1, 2, 3))
LINE = ("--line", "plant1/smt/line1")


def typed(*arguments):
    """What `defectd rollout …` returns as its exit code."""
    parser = argparse.ArgumentParser(prog="defectd")
    rollout_cli.add_to(parser.add_subparsers(required=True))
    try:
        options = parser.parse_args(["rollout", *map(str, arguments)])
        return options.command(options)
    except SystemExit as exit_:
        return exit_.code


@dataclass
class Plant:
    """A broker, and what a technician has beside it."""

    broker: MosquittoBroker
    folder: Path
    stations: list = field(default_factory=list)

    def station(self, levels=AOI1, **script):
        options = {name: script.pop(name) for name in ("groups", "step_s", "floor_command_seq") if name in script}
        root = bundles.make_root()
        station = FakeStation(self.broker.host, self.broker.port, root, levels, Script(**script), **options)
        self.stations.append(station.__enter__())
        return station

    @property
    def address(self):
        return ("--host", self.broker.host, "--port", self.broker.port)

    @property
    def address_and_key(self):
        return (*self.address, "--key", self.folder / "ops.key")

    def send(self, *arguments):
        return typed("send", "--manifest", self.folder / "manifest.json", *FOLDER, *self.address_and_key, *arguments)


@pytest.fixture
def plant(tmp_path):
    for name, number in (("ops.key", bundles.OPS_KEY), ("stranger.key", bundles.STRANGER)):
        (tmp_path / name).write_bytes(ed25519.private_to_pem(bundles.private(number), None))
        (tmp_path / name).chmod(0o600)
    fields = bundles.manifest_fields(name="boards", version="1.5", release_seq=5)
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with MosquittoBroker(tmp_path / "broker") as broker:
        plant = Plant(broker, tmp_path)
        yield plant
        for station in plant.stations:
            station.__exit__()


# -- send --------------------------------------------------------------------------------------------------------


def test_a_model_is_brought_to_a_line_and_followed_until_it_is_committed(plant, capsys):
    first, second = plant.station(AOI1), plant.station(AOI2, floor_command_seq=41)
    assert plant.send(*LINE, "--shadow-units", "50") == 0
    said = capsys.readouterr().out
    assert "boards 1.5 to 2 stations of line plant1/smt/line1" in said
    assert "boards 1.5: committed on all 2 stations" in said and "aoi1     committed  boards 1.5" in said
    assert "aoi2: on probation" in said
    (command,) = first.commands
    assert command == second.commands[0] and command.seq == 42 and command.policy.shadow_units == 50
    assert command.request_id in said and command.audience.value == LINE[1]
    assert command.target.source == "usb" and command.target.release_seq == 5


def test_a_wave_that_fails_too_often_is_the_last_one(plant, capsys):
    plant.station(AOI1, fails_at="golden")
    others = plant.station(AOI2), plant.station(AOI3)
    assert plant.send(*LINE, "--waves", "1,100%") == 5
    said = capsys.readouterr().out
    assert "!! aoi1: failed (golden): finds 3 of 40 golden boxes no more" in said
    assert "stopped after wave 1: 1 not committed, --max-failures is 0" in said
    assert "committed on 0 of 3 stations; 2 not sent, 1 failed" in said
    assert not any(station.commands for station in others)


def test_failures_that_are_allowed_do_not_stop_the_next_wave(plant, capsys):
    plant.station(AOI1, fails_at="probation")
    plant.station(AOI2), plant.station(AOI3)
    assert plant.send(*LINE, "--waves", "1,2,100%", "--max-failures", "1") == 5
    said = capsys.readouterr().out
    assert "wave 3 of 3: aoi3" in said and "committed on 2 of 3 stations; 1 failed" in said
    assert "aoi1     went back to the model before (golden)  boards 1.4" in said


def test_a_refusal_is_told_in_the_stations_words(plant, capsys):
    plant.station(refuses=("older", "this station has had release 9; release it again"))
    assert plant.send("--station", AOI1) == 6
    assert "!! aoi1: refused (older): this station has had release 9" in capsys.readouterr().out


def test_what_was_refused_does_not_wait_at_the_broker_for_a_better_day(plant, capsys):
    plant.station(refuses=("unknown_source", "no such source here"))
    assert plant.send("--station", AOI1) == 6
    assert "taken back, so that it does not begin some other day: aoi1" in capsys.readouterr().out
    with Listener(plant.broker, f"defectd/v1/{AOI1}/model/desired") as late:
        time.sleep(0.5)
        assert late.messages == []


def test_a_key_that_the_station_does_not_know_is_explained(plant, capsys):
    plant.station()
    key = plant.folder / "stranger.key"
    code = typed("send", "--manifest", plant.folder / "manifest.json", *FOLDER, *plant.address, "--station", AOI1,
                 "--key", key)  # fmt: skip
    assert code == 6 and "names for the role 'ops' (--key)" in capsys.readouterr().out


def test_a_station_that_says_nothing_is_waited_for_no_longer_than_asked(plant, capsys):
    plant.station(mute=True)
    assert plant.send("--station", AOI1, "--timeout", "1s") == 7
    said = capsys.readouterr().out
    assert "1 s are over (--timeout)" in said and "sent, no answer yet" in said and "rollout status" in said


def test_a_station_that_has_the_model_is_left_alone(plant, capsys):
    station = plant.station()
    assert plant.send("--station", AOI1) == 0
    assert plant.send("--station", AOI1) == 0
    assert "had it already" in capsys.readouterr().out and len(station.commands) == 1


def test_a_group_is_who_says_so(plant):
    pilot, other = plant.station(AOI1, groups=("pilot",)), plant.station(AOI2)
    assert plant.send("--group", "pilot") == 0
    assert len(pilot.commands) == 1 and not other.commands


def test_without_waiting_it_is_done_when_the_broker_has_it(plant, capsys):
    plant.station(mute=True)
    assert plant.send("--station", AOI1, "--no-wait") == 0
    assert "the broker has it for plant1/smt/line1/aoi1" in capsys.readouterr().out
    with Listener(plant.broker, f"defectd/v1/{AOI1}/model/desired") as listener:
        wait_until(lambda: listener.messages)
        assert listener.messages[0][2], "it is retained"
    with pytest.raises(SettingsError, match="--no-wait"):
        plant.send("--station", AOI1, "--no-wait", "--waves", "1,100%")


def test_ctrl_c_stops_watching_and_says_what_goes_on(plant, capsys):
    plant.station(AOI1, hold="shadow"), plant.station(AOI2)
    threading.Timer(2.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    assert plant.send(*LINE, "--waves", "1,100%") == 130
    said = capsys.readouterr().out
    assert "what was sent goes on at the stations" in said and "to stop it there: defectd rollout cancel" in said
    assert "not sent, and not going to be: aoi2" in said


def test_it_goes_on_watching_when_the_broker_comes_back(plant, capsys):
    station = plant.station(AOI1, step_s=0.15)

    def restart():
        plant.broker.stop()
        plant.broker.start()

    threading.Timer(2.0, restart).start()
    assert plant.send("--station", AOI1) == 0
    assert len(station.commands) == 1, "a command is not sent twice"
    assert "committed on plant1/smt/line1/aoi1" in capsys.readouterr().out


@pytest.mark.skipif(find_nats() is None, reason=NO_NATS)
def test_a_broker_that_only_speaks_3_1_1_will_do(tmp_path, plant, capsys):
    with NatsBroker(tmp_path / "nats") as broker:
        other = Plant(broker, plant.folder)
        other.station()
        assert other.send("--station", AOI1) == 0
        other.stations[0].__exit__()


# -- approve, cancel, rollback -----------------------------------------------------------------------------------


def wait_until(condition, timeout_s=10.0):
    waited = threading.Event()
    for _ in range(int(timeout_s * 50)):
        if condition():
            return
        waited.wait(0.02)
    raise AssertionError("did not happen in time")


def under_way(plant, *arguments, until, **script):
    """A station whose rollout has been sent, and is where it stays."""
    station = plant.station(**script)
    assert plant.send("--station", AOI1, "--no-wait", *arguments) == 0
    wait_until(lambda: station.is_at == until)
    return station, station.commands[0].request_id


def test_an_approval_lets_it_go_on(plant, capsys):
    station, request_id = under_way(plant, "--approval", until="staged")
    assert typed("status", *plant.address) == 0
    said = capsys.readouterr().out
    assert "boards 1.5: waits for `approve`" in said and f"defectd rollout approve {request_id} --key" in said
    assert typed("approve", request_id[:13], *plant.address_and_key) == 0
    assert station.commands[1].of == request_id and station.commands[1].audience.value == AOI1
    wait_until(lambda: station.is_at == "committed")


def test_a_cancel_ends_it(plant, capsys):
    station, request_id = under_way(plant, until="shadow", hold="shadow")
    assert typed("cancel", request_id, *plant.address_and_key) == 0
    assert station.is_at == "cancelled" and "cancel: ended on plant1/smt/line1/aoi1" in capsys.readouterr().out


def test_a_rollback_during_probation_goes_back_at_once(plant, capsys):
    station, _ = under_way(plant, until="probation", hold="probation")
    assert typed("rollback", "--station", AOI1, *plant.address_and_key) == 0
    said = capsys.readouterr().out
    assert station.is_at == "rolled_back" and "(boards 1.5 to boards 1.4)" in said
    assert "went back to the model before  boards 1.4" in said


def test_a_rollback_after_the_commit_is_a_rollout_of_its_own(plant, capsys):
    station = plant.station()
    assert plant.send("--station", AOI1) == 0
    assert typed("rollback", station.commands[0].request_id, *plant.address_and_key) == 0
    assert station.commands[1].of == station.commands[0].request_id
    assert "committed  boards 1.4" in capsys.readouterr().out


def test_a_rollback_after_a_failure_undoes_what_serves_and_says_so(plant, capsys):
    station = plant.station(fails_at="golden")
    assert plant.send("--station", AOI1) == 5
    failed = station.commands[0].request_id
    with pytest.raises(
        NoRollout, match=r"changed nothing .*To go from boards 1\.4 to boards 1\.3, leave the REQUEST_ID"
    ):
        typed("rollback", failed, *plant.address_and_key)
    assert len(station.commands) == 1
    capsys.readouterr()
    typed("rollback", "--station", AOI1, "--no-wait", *plant.address_and_key)
    assert "rollback (boards 1.4 to boards 1.3; boards 1.5 since then changed nothing)" in capsys.readouterr().out
    wait_until(lambda: len(station.commands) == 2)
    assert station.commands[1].of is None


def test_what_speaks_of_nothing_is_not_sent(plant):
    station = plant.station()
    with pytest.raises(NoRollout, match="no rollout is going on there"):
        typed("cancel", "--station", AOI1, *plant.address_and_key)
    with pytest.raises(NoRollout, match="request 0123: no station's last rollout is called so"):
        typed("approve", "0123", *plant.address_and_key)
    with pytest.raises(SettingsError, match="expected a REQUEST_ID, or --station"):
        typed("cancel", *plant.address_and_key)
    assert not station.commands


# -- what may be wrong -------------------------------------------------------------------------------------------


def test_a_station_that_is_not_there_is_told_with_those_that_are(plant, capsys):
    plant.station()
    assert plant.send("--station", "plant1/smt/line1/aoi9") == 7
    said = capsys.readouterr().err
    assert "no answer from station plant1/smt/line1/aoi9" in said and f"It knows {AOI1}" in said


def test_a_broker_that_is_not_there_is_named():
    with pytest.raises(StartupError, match=r"broker 127\.0\.0\.1:1: .*refused; check --host and --port"):
        typed("status", "--port", "1")


def test_what_is_there_and_is_no_broker_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        hang_up = threading.Thread(target=lambda: [server.accept()[0].close() for _ in range(2)], daemon=True)
        hang_up.start()
        with pytest.raises(StartupError, match=r"does not answer as an MQTT broker; check the port, and whether"):
            typed("status", "--port", server.getsockname()[1])
        hang_up.join(5)


def test_a_refused_login_names_the_user_and_the_remedy(tmp_path):
    lines = ["allow_anonymous false"]
    with MosquittoBroker(tmp_path / "closed", lines) as broker, pytest.raises(
        StartupError, match=r"refused user 'jo': Not authorized; check --username and DEFECTD_MQTT__PASSWORD"
    ):
        typed("status", "--port", broker.port, "--username", "jo")


@pytest.mark.parametrize("text", ["0s", "5", "1w", "366d", "h"])
def test_a_duration_has_a_unit_and_an_end(text, capsys):
    assert typed("send", "--expires", text) == 2
    assert "expected a duration like 90s" in capsys.readouterr().err


@pytest.fixture
def guarded(plant, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text(
        "topic readwrite defectd/v1/#\n\nuser reader\ntopic read defectd/v1/#\n\n"
        f"user half\ntopic read defectd/v1/#\ntopic write defectd/v1/{AOI1}/#\n"
    )
    with MosquittoBroker(tmp_path / "guarded", [f"acl_file {acl}"]) as broker:
        guarded = Plant(broker, plant.folder)
        yield guarded
        for station in guarded.stations:
            station.__exit__()


def test_a_login_that_may_not_command_is_told_which_acl_to_change(guarded):
    station = guarded.station()
    with pytest.raises(StartupError, match=r"refused the command: Not authorized; its ACL must let user 'reader' writ"):
        guarded.send("--station", AOI1, "--username", "reader")
    assert not station.commands


def test_who_has_a_command_already_is_told_when_the_next_cannot_be_reached(guarded):
    guarded.station(AOI1), guarded.station(AOI2)
    with pytest.raises(StartupError, match=f"aoi2: .*its ACL must.*Sent already, and going on: {AOI1}$"):
        guarded.send(*LINE, "--username", "half")


def test_what_stations_say_may_be_read_by_whoever_may_read_it(guarded, capsys):
    guarded.station()
    assert typed("status", *guarded.address, "--username", "reader") == 0
    assert "boards 1.4" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket that paho leaves open
def test_tls_with_another_ca_is_refused_and_with_the_right_one_it_works(tmp_path, plant, capsys):
    make_certificates(tmp_path)
    for name in ("server.key", "server.crt", "ca.crt"):
        (tmp_path / name).chmod(0o644)
    broker = TlsBroker(tmp_path / "tls", tmp_path)
    with broker:
        address = ("--host", "localhost", "--port", broker.tls_port)
        assert typed("status", *address, "--ca", tmp_path / "ca.crt") == 7
        with pytest.raises(StartupError, match=r"TLS failed: .*check --ca, and that its certificate names localhost"):
            typed("status", *address, "--ca", tmp_path / "other-ca.crt")


# -- status and history ------------------------------------------------------------------------------------------


def test_the_status_of_a_vanished_station_says_so(plant, capsys):
    plant.station(AOI1, vanishes_at="loading"), plant.station(AOI2, fails_at="golden")
    plant.send(*LINE, "--timeout", "3s")
    capsys.readouterr()
    assert typed("status", *plant.address) == 0
    said = capsys.readouterr().out
    assert "aoi1     offline     boards 1.4  boards 1.5: loading beside the line" in said
    assert "aoi1: offline: the connection was lost" in said
    assert "aoi2     inspecting  boards 1.4  boards 1.5: failed" in said


def test_rubbish_on_a_stations_topic_hurts_nobody(plant, capsys):
    plant.station(AOI1).say("model/progress", b"{")
    plant.stations[0].say("model/reported2", b"{}")
    assert typed("status", *plant.address) == 0


STATION_TOML = """\
[station]
site = "plant1"
area = "smt"
line = "line1"
station = "aoi1"
[mqtt]
port = {port}
[model]
path = "model"
[[camera]]
kind = "simulated"
name = "top"
[[inspection.defect]]
class_name = "short"
code = "PCB-SHORT"
[state]
directory = "state"
"""


@pytest.fixture
def config(plant):
    path = plant.folder / "station.toml"
    path.write_text(STATION_TOML.format(port=plant.broker.port))
    return path


def test_on_the_station_itself_the_status_is_its_own(plant, config, capsys):
    plant.station(AOI1), plant.station(AOI2)
    assert typed("status", "--config", config) == 0
    said = capsys.readouterr().out
    assert "aoi1" in said and "aoi2" not in said


def test_the_history_is_told_on_the_station_while_the_daemon_runs(plant, config, capsys):
    with closing(Store(plant.folder / "state" / "models")) as store:
        ledger = Ledger(store)
        bundle = store.import_bundle(small(plant.folder / "bundle", 5), None).manifest_sha256
        created = datetime(2026, 5, 1, tzinfo=timezone.utc)
        rollout = ledger.begin("request-1", 7, "deploy", b"{}", created, bundle, 5)
        ledger.move(ledger.move(rollout, State.DOWNLOADING), State.FAILED, "not_found", "nothing is there")
        chosen = Target(manifest_sha256="ab" * 32, release_seq=6, source="usb", path="boards/1.5")
        command = Command(
            request_id="request-2", seq=8, created=created, expires=created + timedelta(days=1), action="deploy",
            audience=Audience(kind="station", value=AOI1), target=chosen,
        )  # fmt: skip
        ledger.begin("request-2", 8, "deploy", command.to_json(), created, "ab" * 32, 6)
        assert typed("history", "--config", config) == 0
        said = capsys.readouterr().out
        assert typed("history", "--config", config, "--request", "request-1") == 0
    assert said.index("request-2") < said.index("deploy pcb 1.5: failed  (request request-1)")
    assert "deploy release 6 (boards/1.5 on usb): received" in said
    assert "failed        not_found: nothing is there" in said
    assert "request-2" not in capsys.readouterr().out


def test_a_history_that_is_not_there_is_said(plant, config):
    with pytest.raises(StateError, match=r"no models.db; expected the state of a station"):
        typed("history", "--config", config)


# -- the live view -----------------------------------------------------------------------------------------------


class TlsBroker(MosquittoBroker):
    """Mosquitto with a second listener, for TLS."""

    def __init__(self, directory, certificates):
        super().__init__(directory)
        self.tls_port = free_port()
        self.lines += [
            f"listener {self.tls_port} 127.0.0.1",
            f"certfile {certificates}/server.crt",
            f"keyfile {certificates}/server.key",
        ]


class Terminal(io.StringIO):
    """A stream that somebody sees."""

    def isatty(self):
        return True


def test_on_a_terminal_stations_have_bars_and_failures_stay_on_the_screen(plant, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    plant.station(AOI1, fails_at="golden", step_s=0.1), plant.station(AOI2, step_s=0.1)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert plant.send(*LINE) == 5
    said = terminal.getvalue()
    assert "━━" in said and "Ctrl-C stops watching" in said and "!! aoi1: failed (golden)" in said
    assert said.rindex("serves now") > said.rindex("Ctrl-C")


def test_what_does_not_fit_on_the_screen_is_counted(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "10")
    terminal = Terminal()
    with Screen(False, terminal) as screen:
        screen.show({f"a/b/c/aoi{number}": Standing(Kind.DONE, "committed", 1.0) for number in range(20)})
    assert "and 14 more" in terminal.getvalue()
