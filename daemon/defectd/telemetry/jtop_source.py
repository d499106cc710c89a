"""What jtop knows, from a process that is thrown away when it hangs; and in words why there is nothing.

All is driven by whoever asks for the latest reading, by readiness and by time: no thread, no waiting. The thread that
asks must outlive the source: when it ends, the kernel kills the child (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from typing import AbstractSet, Any, Mapping, NamedTuple, Sequence

from defectd.clock import NS_PER_S, Backoff, monotonic_ns
from defectd.telemetry.sample import DeviceSample, Frequency

_PLAUSIBLE_C = (-60.0, 150.0)
"""A sensor that is off says -256."""
_HWMON = ("Composite", "Sensor")
"""Sensors of disks: theirs is not the heat of the module."""
_LARGEST = 2**62
_INTERVALS = 3
_MAX_RECORD_BYTES = 1 << 17
_MAX_READ_BYTES = 1 << 16
_READS_PER_LOOK = 2
_REAP_S = 0.5


class Trouble(NamedTuple):
    """Why there is no reading: a word for machines, and a sentence with the remedy for people."""

    code: str
    detail: str


class _Cause(NamedTuple):
    code: str
    kinds: AbstractSet[str]
    words: tuple[str, ...]
    remedy: str


# jtop has one exception for everything. The first line counts in which what it caught, or what it says, is named.
_CAUSES = (
    _Cause("not_installed", set(), ("No module named 'jtop'",),
           "jetson-stats is not installed beside defectd: pip install 'defectd[jtop]'"),
    _Cause("not_installed", {"ImportError", "ModuleNotFoundError"}, (),
           "jetson-stats cannot be imported ({detail}): install it again, or remove it"),
    _Cause("no_permission", {"PermissionError"}, ("can't access",),
           "this user may not speak to the jtop service: put SupplementaryGroups=jtop into defectd's unit, or run "
           "sudo usermod -aG jtop USER, and start defectd again"),
    _Cause("no_service", {"FileNotFoundError", "ConnectionRefusedError"}, ("not active",),
           "the jtop service does not run: sudo systemctl start jtop (if there is none: sudo jtop --install-service)"),
    _Cause("version_mismatch", set(), ("Mismatch version",),
           "{detail}: the first two numbers must agree; install the service's version of jetson-stats beside defectd"),
    _Cause("refused", {"AuthenticationError"}, ("Authentication", "Mismatch of Python"),
           "the jtop service refuses us ({detail}): install the same jetson-stats on both sides"),
    _Cause("lost", {"EOFError", "ConnectionResetError", "BrokenPipeError"}, ("Lost connection", "Error connection"),
           "the jtop service went away: systemctl status jtop says why"),
)  # fmt: skip


@dataclass(frozen=True)
class JtopReading:
    """One reading. What jtop does not tell is missing in the sample; zones are named as jtop does ("gpu")."""

    sample: DeviceSample
    interval_s: float
    """Whoever connects to the service first decides it."""
    jetson_clocks: bool | None = None
    """True: the clocks are pinned to their limits."""


class JtopSource:
    """jtop's latest reading. Nothing here raises or blocks; from one thread only. `stop` it at the end."""

    def __init__(
        self, interval_s: float = 1.0, *, start_s: float = 20.0, backoff: Backoff | None = None,
        command: Sequence[str] = (sys.executable, "-m", "defectd.telemetry.jtop_child"),
    ) -> None:  # fmt: skip
        self._interval_s, self._start_s, self._command = interval_s, start_s, tuple(command)
        # jtop starts a handful of programs each time; with the jitter it is half a minute at the least.
        self._backoff = backoff or Backoff(40.0, 300.0)
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._unread = b""
        self._served_s = interval_s
        self._due_ns = 0  # when patience with the process ends, or when the next one starts
        self._dying = self._stopped = False
        self._reading: JtopReading | None = None
        self._trouble: Trouble | None = None

    @property
    def trouble(self) -> str | None:
        """Why there is no reading and what to do, in words; None while nothing is wrong."""
        return None if self._trouble is None else self._trouble.detail

    @property
    def trouble_code(self) -> str | None:
        """The same in one word: not_installed, no_service, no_permission, version_mismatch, frozen, lost, failed …"""
        return None if self._trouble is None else self._trouble.code

    @property
    def pid(self) -> int | None:
        """Of the current process."""
        return None if self._process is None else self._process.pid

    def latest(self) -> JtopReading | None:
        """The newest reading; None if there is none that is younger than three intervals. Call it about once for each
        interval: it also starts the process, buries it, and starts the next one."""
        self._look()
        if self._reading is None:
            return None
        fresh = monotonic_ns() - self._reading.sample.at_ns <= self._patience_ns()
        return self._reading if fresh else None

    def stop(self) -> None:
        """No process is left behind, unless the kernel cannot end it."""
        self._stopped = True
        if self._process is not None:
            self._kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_REAP_S)
            self._process = None

    def _look(self) -> None:
        now_ns = monotonic_ns()
        if self._process is None:
            if not self._stopped and now_ns >= self._due_ns:
                self._start(now_ns)
            return
        if not self._dying:
            self._hear(now_ns)
        if not self._dying and now_ns >= self._due_ns:
            self._give_up(_silence(self._patience_ns() / NS_PER_S))
        if self._dying and self._process.poll() is not None:
            self._process = None
            self._due_ns = now_ns + int(self._backoff.next_s() * NS_PER_S)

    def _start(self, now_ns: int) -> None:
        try:
            self._process = subprocess.Popen(
                [*self._command, str(os.getpid()), str(self._interval_s)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # the programs that jtop starts go with it
                env={key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
            )
        except OSError as error:
            self._trouble = Trouble("no_process", f"no process for jtop can be started: {error}")
            self._due_ns = now_ns + int(self._backoff.next_s() * NS_PER_S)
            return
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._unread, self._dying, self._served_s = b"", False, self._interval_s
        self._due_ns = now_ns + int(self._start_s * NS_PER_S)

    def _hear(self, now_ns: int) -> None:
        """What the process has said; at its end of file it is given up."""
        for _ in range(_READS_PER_LOOK):
            try:
                said = os.read(self._pipe, _MAX_READ_BYTES)
            except BlockingIOError:
                return
            *lines, self._unread = (self._unread + said).split(b"\n")
            for line in lines:
                self._understand(line, now_ns)
            if self._dying:
                return
            if not said:
                self._give_up(Trouble("failed", "the process that reads jtop has ended without a word; see the log"))
                return
            if len(self._unread) > _MAX_RECORD_BYTES:
                self._give_up(_nonsense("a line without an end"))
                return

    def _understand(self, line: bytes, now_ns: int) -> None:
        if self._dying:
            return
        try:
            record = _table(json.loads(line))
        except (ValueError, RecursionError):
            self._give_up(_nonsense(repr(line[:80])))
            return
        if "failed" in record:
            self._give_up(trouble_of(_table(record["failed"]), self._patience_ns() / NS_PER_S))
            return
        served_s = _number(record.get("interval_s"))
        if served_s is not None:
            self._served_s = max(self._interval_s, served_s)
        elif "reading" in record:
            at_ns = min(int(_number(record.get("at_ns")) or 0), now_ns)
            self._reading = reading_of(_table(record["reading"]), at_ns, self._served_s)
            self._trouble = None
            self._backoff.reset()
        self._due_ns = now_ns + self._patience_ns()

    def _give_up(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self._kill()

    def _kill(self) -> None:
        """It, and what it has started. It is buried later: nobody waits here."""
        assert self._process is not None and self._process.stdout is not None
        self._reading, self._dying = None, True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its session is its own: pid and group are the same
        self._process.stdout.close()

    def _patience_ns(self) -> int:
        return int(_INTERVALS * self._served_s * NS_PER_S)


def trouble_of(failure: Mapping[str, Any], patience_s: float) -> Trouble:
    """What the child's last words mean; *patience_s* is for how long the service was silent, if it was."""
    kinds = {str(failure.get("error", "")), str(failure.get("context", ""))} - {""}
    detail = " ".join(str(failure.get("detail", "")).split())
    if not kinds:
        return _silence(patience_s)
    for cause in _CAUSES:
        if cause.kinds & kinds or any(words in detail for words in cause.words):
            return Trouble(cause.code, cause.remedy.format(detail=detail.split(". Please")[0]))
    return Trouble("failed", f"jtop failed ({failure.get('error')}: {detail}): sudo systemctl restart jtop")


def reading_of(record: Mapping[str, Any], at_ns: int, interval_s: float) -> JtopReading:
    """A reading of the child in our units. What has another shape than expected is left out; nothing is raised."""
    temps_c = _temperatures_c(_table(record.get("temperature")))
    power_w, total_power_w = _power_w(_table(record.get("power")))
    gpu = _first(record.get("gpu"))
    load = _number(_table(gpu.get("status")).get("load"))
    memory, fan = _table(record.get("memory")), _first(record.get("fan"))
    mode, pinned = record.get("power_mode"), record.get("jetson_clocks")
    sample = DeviceSample(
        at_ns=at_ns,
        source="jtop",
        temps_c=temps_c,
        hottest_c=max((c for name, c in temps_c.items() if not any(word in name for word in _HWMON)), default=None),
        gpu_load=None if load is None else min(max(load / 100, 0.0), 1.0),
        gpu=_frequency(gpu.get("freq")),
        cpu=_slowest_cpu(record.get("cpu")),
        emc_mhz=_scaled(_table(memory.get("EMC")).get("cur"), 1000),
        power_w=power_w,
        total_power_w=total_power_w,
        fan_rpm=_scaled(_item(fan.get("rpm")), 1),
        fan_share=_scaled(_item(fan.get("speed")), 100),
        mem_total_mb=_scaled(_table(memory.get("RAM")).get("tot"), 1024),
        swap_used_mb=_scaled(_table(memory.get("SWAP")).get("used"), 1024),
        power_mode=mode if isinstance(mode, str) else None,
        uptime_s=_number(record.get("uptime_s")) or 0.0,
    )
    return JtopReading(sample, interval_s, pinned if isinstance(pinned, bool) else None)


def filled_in(sample: DeviceSample, reading: JtopReading) -> DeviceSample:
    """*sample* with jtop's values where it has none, such as the memory's clock, which only root can read. Its source
    becomes "jtop" only if it knew no temperature itself."""
    lacking = {
        each.name: getattr(reading.sample, each.name)
        for each in fields(DeviceSample)
        if getattr(sample, each.name) is None or getattr(sample, each.name) == {}
    }
    return replace(sample, source=sample.source if sample.temps_c else reading.sample.source, **lacking)


def _silence(patience_s: float) -> Trouble:
    return Trouble("frozen", f"the jtop service has said nothing new for {patience_s:g} s: sudo systemctl restart jtop")


def _nonsense(what: str) -> Trouble:
    return Trouble("failed", f"the process that reads jtop says nonsense ({what}): this is a bug, please report it")


def _temperatures_c(sensors: Mapping[str, Any]) -> dict[str, float]:
    low, high = _PLAUSIBLE_C
    found = {name: _number(_table(sensor).get("temp")) for name, sensor in sensors.items() if "PMIC" not in name}
    return {name: celsius for name, celsius in found.items() if celsius is not None and low < celsius < high}


def _power_w(power: Mapping[str, Any]) -> tuple[dict[str, float], float | None]:
    """By rail, and the total; the rail that measures the total is given as the total only, with its name there."""
    rails, total = dict(_table(power.get("rail"))), _table(power.get("tot"))
    if isinstance(total.get("name"), str):
        rails[total["name"]] = total
    watts = {
        name: _scaled(_table(rail).get("power"), 1000)
        for name, rail in rails.items()
        if _table(rail).get("online") is not False
    }
    known = {name: value for name, value in watts.items() if value is not None}
    return known, _scaled(total.get("power"), 1000) if known else None


def _slowest_cpu(cores: Any) -> Frequency | None:
    found = []
    for core in cores if isinstance(cores, list) else []:
        of_core = _table(core)
        frequency = _frequency(of_core.get("freq"), of_core.get("governor"), of_core.get("info_freq"))
        if of_core.get("online") is True and frequency is not None and frequency.current_mhz:
            found.append(frequency)
    return min(found, key=lambda frequency: frequency.current_mhz or 0.0, default=None)


def _frequency(khz: Any, governor: Any = None, hardware_khz: Any = None) -> Frequency | None:
    clock = _table(khz)
    if not clock:
        return None
    name = governor or clock.get("governor")
    return Frequency(
        current_mhz=_scaled(clock.get("cur"), 1000),
        min_mhz=_scaled(clock.get("min"), 1000),
        max_mhz=_scaled(clock.get("max"), 1000),
        hardware_max_mhz=_scaled(_table(hardware_khz).get("max"), 1000),
        governor=name if isinstance(name, str) else None,
    )


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: Any) -> Mapping[str, Any]:
    return _table(next(iter(_table(value).values()), None))


def _item(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < _LARGEST else None  # nor for NaN


def _scaled(value: Any, divisor: float) -> float | None:
    number = _number(value)
    return None if number is None or number < 0 else number / divisor
