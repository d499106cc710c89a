"""A fake machine that gets hot by a script, and all that a daemon says about it, with the time of its arrival."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Sequence

from defectd.telemetry.sample import ROOT_VARIABLE, Roots
from support import trees
from support.brokers import BrokerProcess, Listener, free_port
from support.collector import wall_time_s
from support.proving import Skipped
from support.station import wait_until

Message = Dict[str, Any]

_STEP_S = 0.2
_NEAR_C = 0.6  # of two neighbouring steps
_STALLED_S = 1.0  # units come many times a second
_FULL_MHZ, _CAPPED_MHZ, _SLOWED_MHZ = 1300.5, 612.0, 306.0
_RUNS_S, _STANDS_S = 0.012, 0.028
"""An engine on slowed clocks: of each 40 ms it runs so long."""
_PROMETHEUS_STARTS_S = 60.0


def on_machine(roots: Roots) -> dict[str, str]:
    """The environment of a daemon that is to believe it runs on *roots*."""
    return {ROOT_VARIABLE: str(roots.sys.parent)}


@contextlib.contextmanager
def machine(platform: str) -> Iterator[Roots]:
    """A tree that is written often, in memory as the kernel's is: a disk may take seconds."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=str(memory) if memory.is_dir() else None) as directory:
        yield trees.tree(Path(directory) / "machine", platform)


class Heard(Listener):
    """Everything below defectd/v1, as (wall time of arrival, last two levels of the topic, message)."""

    def __init__(self, broker: BrokerProcess) -> None:
        self.heard: list[tuple[float, str, Message]] = []
        super().__init__(broker, "defectd/v1/#", client_id=f"heard-{time.monotonic_ns()}")
        self._client.on_message = self._on_message

    def _on_message(self, _client: object, _userdata: object, message: Any) -> None:
        if message.payload and not message.topic.endswith("/model/desired"):
            name = "/".join(message.topic.split("/")[-2:])
            self.heard.append((time.time(), name, json.loads(message.payload)))

    def of(self, name: str) -> list[tuple[float, Message]]:
        """All on the topic that ends in *name* ("tele/device", "evt/fault"), in order."""
        return [(at_s, message) for at_s, topic, message in list(self.heard) if topic == name]

    def dated(self, name: str) -> list[tuple[float, Message]]:
        """The same with the time at which the daemon says that it was: it does not matter how long it travelled."""
        return [(wall_time_s(message.get("ts") or message["created_at"]), message) for _, message in self.of(name)]

    @property
    def device(self) -> list[Message]:
        """All tele/device."""
        return [message for _, message in self.of("tele/device")]

    @property
    def silence_s(self) -> float:
        """The longest time without tele/device; but for the time in which nothing came at all, which is the broker's
        or this machine's doing."""
        times_s = [at_s for at_s, _ in self.of("tele/device")]
        return max((self._silence_s(*pair) for pair in zip(times_s, times_s[1:])), default=float("inf"))

    def _silence_s(self, from_s: float, to_s: float) -> float:
        within_s = [at_s for at_s, _, _ in list(self.heard) if from_s <= at_s <= to_s]
        nothing_s = max(later - earlier for earlier, later in zip(within_s, within_s[1:]))
        return to_s - from_s - (nothing_s if nothing_s > _STALLED_S else 0.0)

    def faults(self, component: str) -> list[tuple[float, Message]]:
        """The evt/fault of *component*, dated."""
        return [(at_s, message) for at_s, message in self.dated("evt/fault") if message["component"] == component]

    def keep(self, path: Path) -> None:
        """Write all of it, one message a line: for whoever asks why."""
        path.write_text("".join(json.dumps(each) + "\n" for each in list(self.heard)))


@dataclass(frozen=True)
class Course:
    """The heat of the GPU's zone over time: straight lines through (seconds, °C). Between *from_s* and *to_s* of
    *wobble* it goes up and down by so many °C, each three seconds. The heat slows the GPU down from *alert_c* on,
    until it is below *calm_c*."""

    points: tuple[tuple[float, float], ...]
    wobble: tuple[float, float, float] = (0.0, 0.0, 0.0)
    alert_c: float = 96.0
    calm_c: float = 91.0
    over_current: tuple[float, float] = (0.0, 0.0)
    """From when to when a counter of over-current grows, each half second."""
    capped: tuple[float, float] = (0.0, 0.0)
    """From when to when the GPU's limit is below the power mode's."""

    @property
    def lasts_s(self) -> float:
        return self.points[-1][0]

    def celsius(self, at_s: float) -> float:
        """Of that moment."""
        for (from_s, from_c), (to_s, to_c) in zip(self.points, self.points[1:]):
            if from_s <= at_s <= to_s:
                return from_c + (to_c - from_c) * (at_s - from_s) / (to_s - from_s) + self._wobble_c(at_s)
        return self.points[-1][1]

    def _wobble_c(self, at_s: float) -> float:
        by_c, from_s, to_s = self.wobble
        return by_c * (1 - 4 * abs((at_s - from_s) / 3 % 1 - 0.5)) if from_s <= at_s < to_s else 0.0


@dataclass
class Furnace:
    """Drives a machine along a course, in real time. What it did: `heat` by wall time, and from when to when the
    machine was held back, by cause."""

    roots: Roots
    course: Course
    engines: Callable[[], Sequence[int]]
    """The processes that a slowed GPU slows: they stand still for most of the time."""
    heat: list[tuple[float, float]] = field(default_factory=list)
    held_back: dict[str, tuple[float, float]] = field(default_factory=dict)
    begun_s: float = field(default_factory=time.time)
    _slowed: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)

    def prepare(self) -> None:
        """As it is at the begin of the course."""
        self._step(0.0)

    def told(self, celsius: float, at_s: float, lag_s: float) -> bool:
        """It had about *celsius* at some time in the last *lag_s* before *at_s* (wall time)."""
        before = [value for then_s, value in self.heat if then_s < at_s - lag_s][-1:]
        near = before + [value for then_s, value in self.heat if at_s - lag_s <= then_s <= at_s]
        return bool(near) and min(near) - _NEAR_C <= celsius <= max(near) + _NEAR_C

    def run(self) -> None:
        """The whole course; what it takes is `course.lasts_s`."""
        slower = threading.Thread(target=self._slow_engines, daemon=True)
        slower.start()
        self.begun_s = time.time()
        try:
            while (at_s := time.time() - self.begun_s) < self.course.lasts_s:
                self._step(at_s)
                time.sleep(_STEP_S)
        finally:
            self._over.set()
            slower.join()

    def _step(self, at_s: float) -> None:
        course, celsius = self.course, self.course.celsius(at_s)
        trees.set_temp(self.roots, "gpu-thermal", celsius)
        trees.set_temp(self.roots, "tj-thermal", celsius)
        self.heat.append((time.time(), celsius))
        hot = celsius >= (course.calm_c if self._slowed.is_set() else course.alert_c)
        if hot != self._slowed.is_set():
            trees.set_throttle(self.roots, "gpu", hot)
            (self._slowed.set if hot else self._slowed.clear)()
        limit_mhz = _CAPPED_MHZ if _within(at_s, course.capped) else _FULL_MHZ
        trees.set_gpu_clock(self.roots, current_mhz=_SLOWED_MHZ if hot else limit_mhz, max_mhz=limit_mhz)
        if _within(at_s, course.over_current):
            trees.set_over_current(self.roots, "oc3", int((at_s - course.over_current[0]) / 0.5) + 1)
        for cause, now in (
            ("thermal_alert", hot),
            ("over_current", _within(at_s, course.over_current)),
            ("capped", _within(at_s, course.capped)),
        ):
            if now:
                from_s, _ = self.held_back.get(cause, (time.time(), 0.0))
                self.held_back[cause] = from_s, time.time() + _STEP_S

    def _slow_engines(self) -> None:
        while not self._over.wait(0.05):
            while self._slowed.is_set() and not self._over.is_set():
                _signal(self.engines(), signal.SIGSTOP)
                time.sleep(_STANDS_S)
                _signal(self.engines(), signal.SIGCONT)
                time.sleep(_RUNS_S)


def _within(at_s: float, span: tuple[float, float]) -> bool:
    return span[0] <= at_s < span[1]


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Prometheus:
    """Debian's, which scrapes one target each second."""

    def __init__(self, directory: Path, target_port: int) -> None:
        self.port = free_port()
        self._directory, self._target = directory, f"127.0.0.1:{target_port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises Skipped where there is none."""
        executable = shutil.which("prometheus")
        if executable is None:
            raise Skipped("no prometheus on PATH; run: sudo apt-get install prometheus")
        self._directory.mkdir()
        configuration = self._directory / "prometheus.yml"
        job = {"job_name": "defectd", "static_configs": [{"targets": [self._target]}]}
        told = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
        configuration.write_text(json.dumps(told))  # which is YAML, too
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    executable, f"--config.file={configuration}", f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._ready, _PROMETHEUS_STARTS_S, "Prometheus is ready", every_s=0.2)

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self._get("/-/ready") is not None
        return False

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """Now: (labels, value) of each series."""
        answer = json.loads(self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def scraped(self, selector: str, over_s: float) -> list[tuple[float, float]]:
        """The samples of one series of the last *over_s*: (wall time of the scrape, value)."""
        query = urllib.parse.urlencode({"query": f"{selector}[{over_s:.0f}s]"})
        found = json.loads(self._get(f"/api/v1/query?{query}"))["data"]["result"]
        return [(at_s, float(value)) for at_s, value in found[0]["values"]] if found else []

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def stop(self) -> None:
        """Leave nothing behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def prometheus(directory: Path, target_port: int) -> Iterator[Prometheus]:
    """It runs. Raises Skipped where there is none."""
    server = Prometheus(directory, target_port)
    try:
        server.start()
        yield server
    finally:
        server.stop()
