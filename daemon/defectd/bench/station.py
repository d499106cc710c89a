"""defectd itself under the benchmark: a real daemon, a real broker, and a subscriber that collects its events."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from defectd.bench.broker import RunningBroker
from defectd.bench.figures import Timing, rate_hz
from defectd.bench.procfs import CoreTime, peak_mb, workers_of
from defectd.errors import StartupError

SKIPPED_UNITS = 10
"""At the beginning of a phase: files that nobody has read yet, a connection that is being made."""
SATURATED_HZ = 1000.0
CONFIDENCE = 0.25
_TOPIC = "defectd/v1/bench/bench/bench/bench/evt/inspection"
_SILENCE_S = 120.0
_STOP_S = 15.0


@dataclass(frozen=True)
class Plan:
    """What is to be inspected, how fast, and whether pictures of failed units are kept."""

    model: Path
    class_names: Sequence[str]
    images: Path
    units: int
    rate_hz: float = SATURATED_HZ
    evidence: bool = True
    threads: int | None = None


@dataclass(frozen=True)
class Phase:
    """What one run of the daemon gave. `core_ms` is processor time per unit by process; "others" is everything
    outside defectd, whatever else this machine does included; `replaced` are workers that did not live through it."""

    timings: tuple[Timing, ...]
    throughput_hz: float
    verdicts: Mapping[str, int]
    pictures: int
    peak_mb: Mapping[str, float]
    core_ms: Mapping[str, float]
    replaced: tuple[str, ...]
    layout: str

    def column_ms(self, name: str) -> list[float]:
        """One figure of all units."""
        return [float(getattr(timing, name)) for timing in self.timings]


def inspect(plan: Plan, broker: RunningBroker, directory: Path, after_each: Callable[[], None] = lambda: None) -> Phase:
    """Run a daemon in *directory* until it has judged so many units; *after_each* runs when an event has come, before
    the next unit if the pace leaves time. Raises StartupError if it does not."""
    directory.mkdir(parents=True)
    config, log = directory / "station.toml", directory / "log"
    config.write_text(station_toml(plan, broker.port, directory / "state"))
    with _subscriber(broker.port) as inbox, _daemon(config, log) as process:
        inbox.wait_for(SKIPPED_UNITS, process, log)
        pids = {**workers_of(process.pid), "broker": broker.pid}
        before, first = CoreTime.now(pids), len(inbox.payloads)
        for count in range(first, SKIPPED_UNITS + plan.units):
            inbox.wait_for(count + 1, process, log)
            after_each()
        used, units = CoreTime.now(pids).since(before), len(inbox.payloads) - first
        lasted = {name: pid for name, pid in workers_of(process.pid).items() if pids.get(name) == pid}
        memory = {name: peak_mb(pid) for name, pid in {**lasted, "broker": broker.pid}.items()}
    events = [json.loads(payload) for payload in inbox.payloads[SKIPPED_UNITS : SKIPPED_UNITS + plan.units]]
    core_ms = {name: used_s / units * 1e3 for name, used_s in {**used.process_s, "others": used.others_s}.items()}
    return Phase(
        timings=tuple(timing for timing in map(_timing, events) if timing is not None),
        throughput_hz=rate_hz([datetime.fromisoformat(_iso(event["ended_at"])).timestamp() for event in events]),
        verdicts=dict(Counter(event["verdict"] for event in events)),
        pictures=sum(len(event["images"]) for event in events),
        peak_mb=memory,
        core_ms=core_ms,
        replaced=tuple(name for name in pids if name not in memory),
        layout=chosen_layout(log.read_text(errors="replace")),
    )


def station_toml(plan: Plan, port: int, state: Path) -> str:
    """The configuration of the measured station: every class is a defect, as strict as Ultralytics' default."""
    text = json.dumps  # a JSON string is a TOML string
    defects = "".join(
        f"[[inspection.defect]]\nclass_name = {text(name)}\ncode = {text(name)}\nmin_confidence = {CONFIDENCE}\n"
        for name in plan.class_names
    )
    threads = "" if plan.threads is None else f"threads = {plan.threads}\n"
    return (
        '[station]\nsite = "bench"\narea = "bench"\nline = "bench"\nstation = "bench"\n'
        f"[mqtt]\nport = {port}\n"
        f'[model]\npath = {text(str(plan.model))}\ndevice = "cpu"\n{threads}'
        f'[[camera]]\nname = "top"\nkind = "replay"\npath = {text(str(plan.images))}\n'
        f"rate_hz = {plan.rate_hz}\nloop = true\n"
        f"[inspection]\ndeadline_ms = 2000\n{defects}"
        f"[evidence]\nenabled = {text(plan.evidence)}\n"
        f"[state]\ndirectory = {text(str(state))}\n"
    )


def chosen_layout(log: str) -> str:
    """Which memory layout the engine found faster, in its own words."""
    found = re.search(r"layout (\w+ \([^)]*\))", log)
    return found.group(1) if found else "unknown"


class Inbox:
    """Payloads as they arrive; parsed only when the measurement is over, because parsing takes a core, too."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.subscribed = threading.Event()
        self._arrived = threading.Condition()

    def add(self, payload: bytes) -> None:
        """From the network thread."""
        with self._arrived:
            self.payloads.append(payload)
            self._arrived.notify_all()

    def wait_for(self, count: int, process: subprocess.Popen[bytes], log: Path) -> None:
        """Until there are *count*. Raises StartupError if the daemon ends or falls silent."""
        heard, heard_s = len(self.payloads), time.monotonic()
        with self._arrived:
            while len(self.payloads) < count:
                self._arrived.wait(0.5)
                if len(self.payloads) != heard:
                    heard, heard_s = len(self.payloads), time.monotonic()
                if process.poll() is not None or time.monotonic() - heard_s > _SILENCE_S:
                    raise StartupError(f"defectd gave {heard} of {count} units:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def _subscriber(port: int) -> Iterator[Inbox]:
    inbox = Inbox()

    def on_connect(client: Client, *_: Any) -> None:
        client.subscribe(_TOPIC, qos=0)

    def on_message(_client: Client, _userdata: Any, message: MQTTMessage) -> None:
        inbox.add(bytes(message.payload))

    client = Client(CallbackAPIVersion.VERSION2, client_id="defectd-bench-inbox")
    client.on_connect = on_connect
    client.on_subscribe = lambda *_: inbox.subscribed.set()
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        if not inbox.subscribed.wait(10.0):
            raise StartupError("the broker does not answer SUBSCRIBE")
        yield inbox
    finally:
        client.disconnect()
        client.loop_stop()


@contextlib.contextmanager
def _daemon(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        command = [sys.executable, "-m", "defectd", "run", "--config", str(config)]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _timing(event: dict[str, Any]) -> Timing | None:
    """None for a unit that reached no verdict by the engine."""
    ms = event["timing_ms"]
    if event["verdict"] not in ("passed", "failed"):
        return None
    return Timing(ms["queue"], ms["preprocess"], ms["inference"], ms["postprocess"], ms["capture_to_verdict"])


def _iso(moment: str) -> str:
    """Python before 3.11 does not read the Z of UTC."""
    return moment.replace("Z", "+00:00")
