"""`defectd demo`: a broker, a simulated line, the real daemon and a live view, in one command."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Iterator

from defectd.camera.boards import BoardLine
from defectd.demo.account import problems, summary
from defectd.demo.processes import LoggedProcess, embedded_broker, running_daemon
from defectd.demo.station import DEFECT_RATE, HEIGHT_PX, MODEL, SEED, WIDTH_PX, DemoStation
from defectd.demo.truth import Score
from defectd.errors import StartupError
from defectd.messaging.topics import Topics
from defectd.watch.listener import BrokerAddress, Listener
from defectd.watch.screen import Screen
from defectd.watch.tally import StationTally, Tally
from defectd.watch.wire import Inspected

_SUBSCRIBE_S = 10.0
_FIRST_UNIT_S = 300.0
_SILENCE_S = 20.0
_DRAIN_S = 15.0
_LAST_WORDS_S = 0.5
_WARMING = "warming up: the model runs until its timing is steady; then the boards come"
EXIT_INCOMPLETE = 1


def demo(units: int | None, rate_hz: float, plain: bool, keep: Path | None) -> int:
    """Run until *units* boards are judged, or Ctrl-C; 0 if every unit arrived exactly once.

    State, evidence and logs stay in *keep*, which must be new or empty; else they are removed in the end. A broker
    named by MQTT_HOST (MQTT_PORT, MQTT_USERNAME, MQTT_PASSWORD) is used instead of the embedded one.
    Raises StartupError if the demo cannot run as asked, or if the daemon dies.
    """
    if rate_hz <= 0 or (units is not None and units < 1):
        raise StartupError(f"got {units} units at {rate_hz} a second; expected at least 1 unit and a rate above 0")
    if not MODEL.exists():
        raise StartupError(f"{MODEL} is missing; make it with: python -m defectd.demo.train --out {MODEL}")
    folder = _folder(keep)
    try:
        with _stop_flag() as stop:
            exit_code = _run(folder, units, rate_hz, plain, stop)
    finally:
        if keep is None and not any(folder.iterdir()):
            folder.rmdir()
    if exit_code:
        print(f"logs, events and pictures: {folder}")
    elif keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return exit_code


def _run(folder: Path, units: int | None, rate_hz: float, plain: bool, stop: list[int]) -> int:
    with ExitStack() as stack:
        station = _prepare(stack, folder, rate_hz, units)
        listener = stack.enter_context(Listener(station.broker, station.path))
        if not listener.wait_subscribed(_SUBSCRIBE_S):
            raise StartupError(f"broker {station.broker}: {listener.link.detail}")
        run = DemoRun(station, listener, stop)
        with Screen(str(station.broker), plain) as screen:
            try:
                run.watch(screen)
            finally:
                if os.environ.get("MQTT_HOST"):
                    listener.clear_retained(station.retained)
    return run.conclude()


class DemoRun:
    """One run of the line: what was heard, held against what is true."""

    def __init__(self, station: DemoStation, listener: Listener, stop: list[int]) -> None:
        self._station, self._listener, self._stop = station, listener, stop
        self._tally, self._score = Tally(), Score()
        self._errors: Counter[str] = Counter()
        self._line = BoardLine(SEED, WIDTH_PX, HEIGHT_PX, DEFECT_RATE)

    def watch(self, screen: Screen) -> None:
        """From the daemon's start to its end. Raises StartupError if it dies or falls silent."""
        station = self._station
        config = station.folder / "station.toml"
        config.write_text(station.toml())
        login = {
            f"DEFECTD_MQTT__{key.upper()}": value
            for key in ("username", "password")
            if (value := getattr(station.broker, key)) is not None
        }
        with running_daemon(config, station.folder / "defectd.log", login) as daemon:
            screen.say(_WARMING)
            self._until_judged(screen, daemon)
            daemon.ask_to_stop()
            screen.say("stopping: the daemon finishes and sends what it has")
            ends_s = time.monotonic() + _DRAIN_S
            while daemon.exit_code is None and time.monotonic() < ends_s:
                self._hear(screen)
            screen.say("")
            self._hear(screen, _LAST_WORDS_S)

    def conclude(self) -> int:
        """Print the summary; the exit code."""
        heard = self._heard
        troubles = problems(heard, self._station.units)
        if self._listener.malformed:
            troubles.append(f"{self._listener.malformed} messages could not be read")
        for line in summary(heard, self._score, self._errors, troubles):
            print(line)
        sys.stdout.flush()
        return EXIT_INCOMPLETE if troubles else 0

    @property
    def _heard(self) -> StationTally:
        return self._tally.stations.get(self._station.path) or StationTally(self._station.path)

    def _until_judged(self, screen: Screen, daemon: LoggedProcess) -> None:
        units, started_s = self._station.units, time.monotonic()
        silent_since_s = started_s
        while not self._stop and (units is None or self._heard.units < units):
            if self._hear(screen):
                silent_since_s = time.monotonic()
            if self._heard.units:
                screen.say("" if screen.plain else f"{self._score} so far, against the boards' real defects")
            if daemon.exit_code is not None:
                raise StartupError(f"the daemon ended with exit code {daemon.exit_code}; {_end_of(daemon)}")
            patience_s = _SILENCE_S + 3 / self._station.rate_hz if self._heard.units else _FIRST_UNIT_S
            if time.monotonic() - silent_since_s > patience_s:
                link = self._listener.link
                broker = "" if link.connected else f" (broker {self._station.broker} is away: {link.detail})"
                raise StartupError(
                    f"{self._heard.units} units came, then none for {patience_s:.0f} s{broker}; {_end_of(daemon)}"
                )

    def _hear(self, screen: Screen, duration_s: float = 0.25) -> int:
        """Fold in and score what arrives; the number of new units."""
        news = [message for _, message in screen.follow(self._listener, self._tally, duration_s)]
        inspected = [message for message in news if isinstance(message, Inspected)]
        for unit in inspected:
            if unit.error is not None:
                self._errors[unit.error] += 1
            if unit.verdict != "aborted":  # stopped by us before it was looked at
                self._score.add(unit.findings, self._line.board(unit.trigger).defects)
        return len(inspected)


def _prepare(stack: ExitStack, folder: Path, rate_hz: float, units: int | None) -> DemoStation:
    """The embedded broker, or the one that the environment names with a station of its own name there."""
    host = os.environ.get("MQTT_HOST")
    if host:
        broker = BrokerAddress(
            host, _port(), os.environ.get("MQTT_USERNAME") or None, os.environ.get("MQTT_PASSWORD") or None
        )
        name = f"demo-{secrets.token_hex(3)}"
    else:
        broker, name = stack.enter_context(embedded_broker(folder)), "aoi1"
    return DemoStation(Topics("demo", "smt", "line1", name), broker, folder, rate_hz, units)


def _port() -> int:
    text = os.environ.get("MQTT_PORT") or "1883"
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise StartupError(f"MQTT_PORT: got {text!r}, expected 1..65535")
    return int(text)


def _folder(keep: Path | None) -> Path:
    """Where the demo lives; a temporary one stays only if the demo failed, for its logs."""
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="defectd-demo-"))
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise StartupError(f"{keep} is not empty; name a new directory to keep this demo in")
    return keep.resolve()


@contextmanager
def _stop_flag() -> Iterator[list[int]]:
    """Filled by Ctrl-C or SIGTERM. A flag, so that no message is lost between being heard and being counted."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_of(daemon: LoggedProcess) -> str:
    return f"the end of {daemon.log}:\n{daemon.tail()}"
