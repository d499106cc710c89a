"""The switch and the way back, with a systemd that is told what to answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from station import judge, service
from station.places import DeployError, link_durably, read_json, write_json

ACTIVE = service.Unit("active", "running", "success", 0, "3 units; broker connected, 0 events", "i1")
OLD, NEW = "0.1.0+11111111", "0.2.0+22222222"


class Systemd:
    """Which releases become READY; what was asked of it."""

    def __init__(self, places, never_ready=(), dies_later=()):
        self.places, self.never_ready, self.dies_later = places, never_ready, dies_later
        self.told = []

    def install(self, monkeypatch):
        monkeypatch.setattr(service, "look", lambda unit="": ACTIVE)
        monkeypatch.setattr(service, "tell", lambda *words, **_: self.told.append(" ".join(words)))
        monkeypatch.setattr(judge, "run", lambda command: None)
        monkeypatch.setattr(service, "journal_tail", lambda since_s: ["last words"])
        monkeypatch.setattr(service, "wait_ready", lambda *_, **__: self._verdict(self.never_ready, "not READY"))
        monkeypatch.setattr(service, "wait_steady", self._steady)
        return self

    def _steady(self, for_s, confirm_s, word):
        said = word()
        return said[1] if said and not said[0] else self._verdict(self.dies_later, "died")

    def _verdict(self, names, why):
        return why if self.places.current_release() in names else None


@pytest.fixture
def station(places):
    for name in (OLD, NEW):
        (places.releases / name / "systemd").mkdir(parents=True)
        (places.releases / name / "systemd/defectd.service").write_text(f"# of {name}")
        write_json(places.releases / name / "release.json", {})
    link_durably(places.current, f"releases/{OLD}")
    places.config.write_text("old")
    (places.etc / "next").write_text("new")
    return places


def _order(places, to=NEW):
    return judge.give_order(places, to, places.etc / "next", ready_s=1, watch_s=0, reason="test")


def test_a_good_release_stays(station, monkeypatch):
    systemd = Systemd(station).install(monkeypatch)
    _order(station)
    told = judge.judge(station)
    assert told["ok"] and station.current_release() == NEW and station.config.read_text() == "new"
    assert (station.units / "defectd.service").read_text() == f"# of {NEW}"
    assert (station.release(NEW) / "station.toml").read_text() == "new"
    assert read_json(station.deploy / "previous.json") == {"release": OLD}
    assert systemd.told[0] == "start --no-block defectd-switch.service" and not station.order.exists()
    assert systemd.told.index("stop defectd.service") < systemd.told.index("start --no-block defectd.service")


def test_systemd_reads_its_units_anew_only_if_it_must(station, monkeypatch):
    systemd = Systemd(station).install(monkeypatch)
    _order(station)
    judge.judge(station)
    assert {"daemon-reload", "enable defectd.service"} <= set(systemd.told)
    monkeypatch.setattr(service, "look", lambda unit="": replace(ACTIVE, reload_needed=False, enabled=True))
    systemd.told.clear()
    _order(station, OLD)
    judge.judge(station)
    assert not {"daemon-reload", "enable defectd.service"} & set(systemd.told)


@pytest.mark.parametrize("how", ["never_ready", "dies_later"])
def test_a_bad_one_is_undone_with_configuration_and_unit(station, monkeypatch, how):
    Systemd(station, **{how: [NEW]}).install(monkeypatch)
    _order(station)
    told = judge.judge(station)
    assert not told["ok"] and told["restored"] and told["journal"] == ["last words"]
    assert station.current_release() == OLD and station.config.read_text() == "old"
    assert (station.units / "defectd.service").read_text() == f"# of {OLD}"
    assert station.refused(NEW).exists() and read_json(station.outcome)["why"]


def test_a_new_configuration_of_the_same_release_is_undone_too(station, monkeypatch):
    Systemd(station).install(monkeypatch)
    identity = _order(station, OLD)
    judge.say(station, identity, accepted=False, why="nothing is heard of it")
    told = judge.judge(station)
    assert told["why"] == "nothing is heard of it" and station.config.read_text() == "old"
    assert not station.refused(OLD).exists()


def test_the_word_on_another_switch_does_not_count(station, monkeypatch):
    Systemd(station).install(monkeypatch)
    _order(station)
    judge.say(station, "another", accepted=False, why="no")
    assert judge.judge(station)["ok"]


def test_the_first_release_that_fails_leaves_none_running(station, monkeypatch):
    station.current.unlink()
    systemd = Systemd(station, never_ready=[NEW]).install(monkeypatch)
    _order(station)
    told = judge.judge(station)
    assert not told["restored"] and "no release before it" in told["not_restored"]
    assert station.current_release() is None and "disable defectd.service" in systemd.told


def test_the_new_release_is_in_memory_before_the_old_one_stops(station, monkeypatch):
    packages = station.release(NEW) / "lib/python3.10/site-packages/numpy"
    packages.mkdir(parents=True)
    (packages / "core.cpython-310-aarch64-linux-gnu.so").write_bytes(b"code")
    (packages / "gone.so").symlink_to("nowhere")
    (packages / "readme.txt").write_text("not read")
    opened = []
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *words, **more: opened.append(self.name) or real(self, *words, **more)
    )
    systemd = Systemd(station).install(monkeypatch)
    monkeypatch.setattr(service, "tell", lambda *words, **_: systemd.told.append(" ".join([*words, *opened])))
    _order(station)
    judge.judge(station)
    (stop,) = [told for told in systemd.told if told.startswith("stop")]
    assert "core.cpython-310-aarch64-linux-gnu.so" in stop and "readme.txt" not in stop


def test_whoever_finds_an_order_carries_it_out(station, monkeypatch):
    Systemd(station).install(monkeypatch)
    _order(station)
    link_durably(station.current, f"releases/{NEW}")  # the power went right after the link was made
    assert judge.judge(station)["ok"] and station.current_release() == NEW


def test_a_switch_that_takes_the_machine_down_is_undone_at_the_third_start(station, monkeypatch):
    Systemd(station).install(monkeypatch)
    _order(station)
    write_json(station.order, {**read_json(station.order), "attempts": judge.MAX_ATTEMPTS})
    told = judge.judge(station)
    assert "interrupted 2 times" in told["why"] and station.current_release() == OLD


def test_the_way_back_is_gone_to_the_end(station, monkeypatch):
    Systemd(station).install(monkeypatch)
    _order(station)
    link_durably(station.current, f"releases/{NEW}")
    write_json(station.order, {**read_json(station.order), "attempts": 1, "back": "it died"})
    assert judge.judge(station)["why"] == "it died" and station.current_release() == OLD


def test_two_switches_at_once_are_refused(station, monkeypatch):
    Systemd(station).install(monkeypatch)
    _order(station)
    with pytest.raises(DeployError, match="a switch is under way"):
        _order(station)


def test_the_same_run_that_asks_again_gets_the_switch_that_it_has_ordered(station, monkeypatch):
    Systemd(station).install(monkeypatch)
    wish = {"ready_s": 1, "watch_s": 0, "reason": "test", "run_id": "r1"}
    first = judge.give_order(station, NEW, station.etc / "next", **wish)
    assert judge.give_order(station, NEW, station.etc / "next", **wish) == first
    judge.judge(station)
    assert judge.give_order(station, NEW, station.etc / "next", **wish) == first and not station.order.exists()


def test_a_release_that_is_not_installed_cannot_be_switched_to(station):
    with pytest.raises(DeployError, match="is not installed here"):
        _order(station, "9.9")


def test_without_an_order_nothing_happens(station):
    assert judge.judge(station) == {"changed": False}


class Running:
    """A service that is looked at, and a clock that goes on by half a second each time."""

    def __init__(self, monkeypatch, *units):
        self.units, self.now_s = list(units), 0.0
        monkeypatch.setattr(
            service, "look", lambda unit="": self.units.pop(0) if len(self.units) > 1 else self.units[0]
        )
        monkeypatch.setattr(service.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(service.time, "sleep", self._pass)

    def _pass(self, seconds):
        self.now_s += seconds


def _unit(active, restarts=0, invocation="i1", sub="start"):
    return service.Unit(active, sub, "exit-code", restarts, "warming up", invocation)


def test_ready_is_waited_for(monkeypatch):
    Running(monkeypatch, _unit("activating"), _unit("activating"), ACTIVE)
    assert service.wait_ready(10) is None


def test_what_never_becomes_ready_says_what_it_was_doing(monkeypatch):
    Running(monkeypatch, _unit("activating"))
    assert service.wait_ready(10) == "it was not READY within 10 s: warming up"


def test_what_ends_again_and_again_is_not_waited_for(monkeypatch):
    clock = Running(monkeypatch, _unit("activating", restarts=2))
    assert service.wait_ready(600).startswith("it ended 2 times before it was READY")
    assert clock.now_s == 0


def test_a_restart_while_it_is_watched_is_an_end(monkeypatch):
    Running(monkeypatch, ACTIVE, ACTIVE, _unit("active", invocation="i2"))
    assert service.wait_steady(60, 0, lambda: None).startswith("it was READY and then ended")


def test_the_controllers_word_is_waited_for_but_not_for_ever(monkeypatch):
    clock = Running(monkeypatch, ACTIVE)
    assert service.wait_steady(5, 30, lambda: None) is None
    assert clock.now_s > 30
    clock = Running(monkeypatch, ACTIVE)
    assert service.wait_steady(5, 30, lambda: (True, "")) is None
    assert 5 < clock.now_s < 7
    assert service.wait_steady(5, 30, lambda: (False, "unheard")) == "unheard"
