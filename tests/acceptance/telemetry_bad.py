"""Sensors that lie, hang or go away, and a full disk: the line inspects, and tele/device has what is left."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Callable, Iterator

from acceptance.telemetry_line import calm, closed, line
from defectd.telemetry.sample import Roots
from support import trees
from support.heat import Heard, Message
from support.proving import Proof, Setting, Short
from support.proving_ground import Ground
from support.refused import file_system
from support.station import wait_until
from support.trees import tree, zone_file

_UNITS = 40
_WITHIN_S = 20.0
_SILENCE_S = 4.0
_GPU = "gpu-thermal"

_AGAIN = """import os
real_open, real_read, again = os.open, os.read, set()
def opened(path, *rest, **named):
    descriptor = real_open(path, *rest, **named)
    (again.add if str(path) == {path!r} else again.discard)(descriptor)
    return descriptor
def read(descriptor, size):
    if descriptor in again:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return real_read(descriptor, size)
os.open, os.read = opened, read
"""
"""A driver that says EAGAIN: no file on a disk does."""


@contextlib.contextmanager
def _running(setting: Setting, roots: Roots, first: str = "") -> Iterator[tuple[Ground, Heard]]:
    """A line that has told of its machine once."""
    with line(setting, roots, first=first) as (here, heard):
        wait_until(lambda: heard.device, _WITHIN_S, "the first tele/device")
        yield here, heard


def _end(here: Ground, heard: Heard) -> str:
    """More units, the end, and no error among them; telemetry was never silent. Raises Short."""
    here.await_units(len(here.collector.inspections) + _UNITS)
    figure = closed(here, heard)
    errors = [event["unit_id"] for event in here.collector.inspections if event["verdict"] == "error"]
    silence_s = heard.silence_s
    troubles = [fault["detail"] for _, fault in heard.faults("telemetry")]
    if errors or silence_s > _SILENCE_S or troubles:
        raise Short(f"errors {errors[:3]}, tele/device silent for {silence_s:.1f} s, faults {troubles}; {figure}")
    return f"tele/device at least each {silence_s:.1f} s; {figure}"


def _await(heard: Heard, what: str, holds: Callable[[Message], bool]) -> Message:
    """The first message from now on for which it holds. Raises Short."""
    seen = len(heard.device)

    def found() -> bool:
        return any(holds(message) for message in heard.device[seen:])

    try:
        wait_until(found, _WITHIN_S, what)
    except TimeoutError as error:
        raise Short(f"{error}; the last: {heard.device[-1]}") from None
    return next(message for message in heard.device[seen:] if holds(message))


def _again(setting: Setting) -> str:
    """The GPU's zone says EAGAIN from the first look to the last."""
    roots = tree(setting.directory / "machine", "agx-orin-jp6")
    with _running(setting, roots, _AGAIN.format(path=str(zone_file(roots, _GPU)))) as (here, heard):
        figure = _end(here, heard)
        told = {zone for message in heard.device for zone in message["temps_c"]}
        if _GPU in told or len(told) != 5:
            raise Short(f"zones {sorted(told)}; expected five, without {_GPU}")
        return f"{len(heard.device)} messages with the other 5 zones; {figure}"


def _sentinels(setting: Setting) -> str:
    """-256, far too hot, and words: left out; then a true value: back."""
    roots = tree(setting.directory / "machine", "agx-orin-jp6")
    with _running(setting, roots) as (here, heard):
        for celsius in (-256.0, 2147483.647, 150.0, None):
            trees.set_temp(roots, _GPU, celsius)
            _await(heard, f"no {_GPU} at {celsius}", lambda message: _GPU not in message["temps_c"])
        trees.set_temp(roots, _GPU, 51.5)
        _await(heard, f"{_GPU} is back", lambda message: message["temps_c"].get(_GPU) == 51.5)
        figure = _end(here, heard)
        strange = [message["hottest_c"] for message in heard.device if not 40 < message["hottest_c"] < 60]
        if strange or heard.faults("thermal"):
            raise Short(f"hottest {strange}, faults {heard.faults('thermal')}")
        return f"-256, 2147483, 150 °C and nothing: each left out, then back; never a thermal fault; {figure}"


def _constant(setting: Setting) -> str:
    """A Xavier's PMIC-Die says 100 000 m°C for ever: it is no alarm."""
    with _running(setting, tree(setting.directory / "machine", "agx-xavier")) as (here, heard):
        figure = _end(here, heard)
        levels = {message["thermal_level"] for message in heard.device}
        hottest = {message["hottest_c"] for message in heard.device}
        if levels != {"normal"} or hottest != {41.5}:
            raise Short(f"levels {levels}, hottest {hottest}")
        return f"PMIC-Die at 100 °C: level normal, hottest 41.5 °C; {figure}"


def _blocks(setting: Setting) -> str:
    """A file that answers nobody: its reader is left behind, and so is the file."""
    roots = tree(setting.directory / "machine", "agx-orin-jp6")
    with _running(setting, roots) as (here, heard):
        stuck = zone_file(roots, _GPU)
        stuck.unlink()
        os.mkfifo(stuck)
        _await(heard, "the other zones without it", lambda told: len(told["temps_c"]) == 5 and bool(told["rails_w"]))
        threads = len(list(Path(f"/proc/{here.daemon.pid}/task").iterdir()))
        figure = _end(here, heard)
        complaints = here.daemon.log().count("does not answer")
        if complaints != 1:
            raise Short(f"the log complains {complaints} times, expected once; {figure}")
        return f"one complaint in the log, {threads} threads, the other 5 zones go on; {figure}"


def _nothing(setting: Setting) -> str:
    """Empty /sys, /proc, /etc and /var."""
    roots = Roots(*(setting.directory / "machine" / name for name in ("sys", "proc", "etc", "var")))
    for root in (roots.sys, roots.proc, roots.etc, roots.var):
        root.mkdir(parents=True)
    with _running(setting, roots) as (here, heard):
        figure = _end(here, heard)
        last = heard.device[-1]
        invented = [
            name for name in ("hottest_c", "gpu_clock_mhz", "cpu_clock_mhz", "power_w", "fan_rpm", "mem_total_mb",
                              "power_mode", "gpu_load") if last[name] is not None
        ]  # fmt: skip
        if invented or last["temps_c"] or last["rails_w"] or last["throttled"] or not last["latency"]:
            raise Short(f"{last}")
        return f"all of it null, latencies and disk are there; board {last['board']!r}; {figure}"


def _no_rail(setting: Setting) -> str:
    """Channels that are not connected, and the chip's own sums, are no rails."""
    roots = tree(setting.directory / "machine", "agx-orin-jp6")
    labels = [file.read_text().strip() for file in roots.sys.glob("class/hwmon/*/in*_label")]
    with _running(setting, roots) as (here, heard):
        figure = _end(here, heard)
        rails = sorted(heard.device[-1]["rails_w"])
        expected = ["VDDQ_VDD2_1V8AO", "VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"]
        if labels.count("NC") != 2 or rails != expected:
            raise Short(f"rails {rails} of the labels {labels}")
        return f"{len(rails)} rails of {len(labels)} labels ({labels.count('NC')} NC); {figure}"


def _renumbered(setting: Setting) -> str:
    """The same chips under other numbers, in the middle of the run."""
    roots = tree(setting.directory / "machine", "agx-orin-jp6")
    with _running(setting, roots) as (here, heard):
        power_w, before = heard.device[-1]["power_w"], heard.device[-1]["rails_w"]
        chips = sorted((roots.sys / "class/hwmon").iterdir())
        for chip in chips:
            chip.rename(chip.with_name(f"moved{chip.name}"))
        for number, chip in enumerate(reversed(chips)):
            chip.with_name(f"moved{chip.name}").rename(chip.with_name(f"hwmon{number + 20}"))
        begun_s = time.monotonic()
        _await(heard, "the rails are gone or back", lambda message: not message["rails_w"])
        _await(heard, "the rails are back", lambda told: told["rails_w"] == before and told["power_w"] == power_w)
        took_s = time.monotonic() - begun_s
        return f"{len(chips)} chips renumbered: the same {len(before)} rails {took_s:.1f} s later; {_end(here, heard)}"


def _full_disk(setting: Setting) -> str:
    """No byte is left where the state is: it is told, and telemetry needs none."""
    roots = tree(setting.directory / "machine", "agx-orin-jp6")
    with file_system(setting.directory / "state", "size=24m") as state, _running(setting, roots) as (here, heard):
        ballast = state / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        told = _await(heard, "a disk without space", lambda message: message["disk_free_mb"] == 0)
        seen = len(heard.device)
        time.sleep(5.0)
        went_on = len(heard.device) - seen
        ballast.unlink()
        wait_until(lambda: heard.device[-1]["disk_free_mb"] > 5, _WITHIN_S, "there is space again")
        here.await_units(len(here.collector.inspections) + _UNITS)
        calm(heard)
        here.terminate()
        figure = _each_once(here)
        if went_on < 3:
            raise Short(f"{went_on} tele/device in 5 s without space; {figure}")
        return f"disk_free_mb 0 of {told['disk_total_mb']:.0f} told, {went_on} tele/device in 5 s of it; {figure}"


def _each_once(here: Ground) -> str:
    """The MES has each unit once. Not on disk: of those delivered, the oldest give way. Raises Short."""
    triggers = sorted(event["frame"]["trigger"] for event in here.collector.inspections)
    if triggers != list(range(1, len(triggers) + 1)):
        raise Short(f"{len(triggers)} units, the last is {triggers[-1]}")
    errors = sum(event["verdict"] == "error" for event in here.collector.inspections)
    if errors:
        raise Short(f"{errors} of {len(triggers)} units are errors")
    return f"{len(triggers)} units, each with its verdict"


BAD = (
    Proof("bad.again", "a zone that says EAGAIN for ever", _again),
    Proof("bad.sentinels", "-256 °C and other values that cannot be", _sentinels),
    Proof("bad.constant", "a zone that always says 100 000 m°C", _constant),
    Proof("bad.blocks", "a file that never answers", _blocks),
    Proof("bad.nothing", "a machine that tells nothing", _nothing),
    Proof("bad.no-rail", "channels that are not connected", _no_rail),
    Proof("bad.renumbered", "hwmon numbers change while it runs", _renumbered),
    Proof("bad.full-disk", "no space where the state is", _full_disk),
)
