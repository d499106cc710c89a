"""A Jetson gets hot and cools down while its line runs: what is told, what is done about it, and when."""

from __future__ import annotations

import tempfile
import time
from itertools import groupby
from pathlib import Path
from typing import Any, Sequence

from acceptance.telemetry_chart import Run, Span, write_chart
from defectd.demo.station import CAMERA, CODES, DEFECT_RATE, HEIGHT_PX, MIN_CONFIDENCE, SEED, WIDTH_PX
from defectd.telemetry_settings import ThermalSettings
from support.brokers import free_port
from support.candidates import AsItIs, boards_bundle, network
from support.collector import wall_time_s
from support.heat import Course, Furnace, Heard, Message, Prometheus, machine, on_machine, prometheus
from support.proving import Proof, Setting, Short
from support.rolling import QUICK, Rolling, rolling
from support.station import wait_until

_RATE_HZ = 4.0
_COURSE = Course(
    points=(
        (0.0, 60.0), (12.0, 60.0), (30.0, 90.0), (48.0, 90.0), (58.0, 99.5), (66.0, 99.5), (90.0, 70.0), (115.0, 60.0),
        (150.0, 60.0),
    ),
    wobble=(2.4, 30.0, 48.0),  # around a limit, and within its hysteresis
    over_current=(104.0, 112.0),
    capped=(124.0, 138.0),
)  # fmt: skip
"""Seconds for what takes hours: 1 to 2 °C per second. A look comes each second."""
_LEVELS = ["normal", "warn", "shed", "slow", "alarm", "slow", "shed", "warn", "normal"]
_NOTED = "level_"  # and the level: the code of a step
_DURATION_S = 2.0  # two looks: one may come late
_LAG_S = 2.0  # from a temperature to the message that has it, on a busy machine
_SCRAPE_LAG_S = 3.5  # to the page that Prometheus reads: a look each second
_MARGIN_S = 2.0  # around a change of level: what was begun before is not held against it


def _station(port: int) -> dict[str, Any]:
    camera = {
        "name": CAMERA, "kind": "simulated", "seed": SEED, "rate_hz": _RATE_HZ, "width_px": WIDTH_PX,
        "height_px": HEIGHT_PX, "defect_rate": DEFECT_RATE, "stall_s": 20.0,
    }  # fmt: skip
    defects = [
        {"class_name": name, "code": code, "description": text, "min_confidence": MIN_CONFIDENCE}
        for name, (code, text) in CODES.items()
    ]
    return {
        "camera": [camera],
        "inspection": {"deadline_ms": 4000, "defect": defects},
        "telemetry": {"every_s": 1.0},
        "web": {"port": port},
    }


def _heat(setting: Setting) -> str:
    """The whole course with a candidate in the shadow, then every claim about it."""
    port = free_port()
    factory = boards_bundle(setting.directory / "factory", 1)
    candidate = boards_bundle(setting.directory / "usb" / "candidate", 2, AsItIs(network()))
    with machine("agx-orin-jp6") as roots, rolling(
        setting.directory, 1, _RATE_HZ, _station(port), factory=factory, **on_machine(roots)
    ) as station, Heard(station.here.broker) as heard:  # fmt: skip
        furnace = Furnace(roots, _COURSE, lambda: station.here.daemon.workers("engine"))
        furnace.prepare()
        station.here.await_units(20)
        request = station.send(candidate, policy={**QUICK, "shadow_units": 100_000})
        station.reaches(request, "shadow", 180)
        with prometheus(setting.directory / "prometheus", port) as server:
            furnace.run()
            wait_until(lambda: _told_end(heard), 30, "the last throttling has been cleared", every_s=0.5)
            scraped = _Scraped.of(server, time.time() - furnace.begun_s)
        station.here.terminate()
        heard.keep(setting.directory / "heard.jsonl")
        audited = station.here.report(once=False, coded=False)
        chart = _draw(setting, furnace, heard, scraped)
        figures = [
            *_temperatures(furnace, heard, scraped), _levels(heard, scraped), _durations(furnace, heard),
            _slow_down(heard), _shed(station, heard), _units(heard), _explained(heard),
        ]  # fmt: skip
    return "; ".join([*figures, audited, f"drawn in {chart}"])


class _Scraped:
    """What Prometheus has of the run."""

    def __init__(self, hottest: list[tuple[float, float]], throttled: list[tuple[float, float]], units: float) -> None:
        self.hottest, self.throttled, self.units = hottest, throttled, units

    @classmethod
    def of(cls, server: Prometheus, over_s: float) -> _Scraped:
        p99 = "histogram_quantile(0.99, sum by (le) (rate(defectd_capture_to_verdict_seconds_bucket[60s])))"
        found = server.query(p99)
        if not found or not 0 < found[0][1] < 2.0:
            raise Short(f"Prometheus: {p99} is {found}")
        return cls(
            server.scraped("defectd_device_hottest_celsius", over_s),
            server.scraped("defectd_device_throttled", over_s),
            sum(value for _, value in server.query("sum(defectd_units_total)")),
        )


def _told_end(heard: Heard) -> bool:
    cleared = {fault["code"] for _, fault in heard.faults("device") if fault["state"] == "cleared"}
    return cleared >= {"throttled_thermal_alert", "throttled_over_current", "throttled_capped"}


def _temperatures(furnace: Furnace, heard: Heard, scraped: _Scraped) -> list[str]:
    """Each told and each scraped value was the script's a moment ago. Raises Short."""
    told = [(at_s, message["hottest_c"]) for at_s, message in heard.dated("tele/device")]
    figures = []
    for name, points, lag_s in (("tele/device", told, _LAG_S), ("/metrics", scraped.hottest, _SCRAPE_LAG_S)):
        within = [(at_s, value) for at_s, value in points if furnace.begun_s + lag_s < at_s < furnace.heat[-1][0]]
        strange = [(at_s, value) for at_s, value in within if not furnace.told(value, at_s, lag_s)]
        least = 0.7 * _COURSE.lasts_s
        if strange or len(within) < least:
            raise Short(f"{name}: {len(within)} values (at least {least:.0f} expected), not of the script: {strange}")
        figures.append(f"{len(within)} temperatures in {name}, all the script's of the last {lag_s:.1f} s")
    if not {value for _, value in scraped.throttled} >= {0.0, 1.0}:
        raise Short(f"defectd_device_throttled was never 0 and 1: {scraped.throttled}")
    return figures


def _levels(heard: Heard, scraped: _Scraped) -> str:
    """In order, none twice. Raises Short."""
    levels = [level for level, _ in groupby(message["thermal_level"] for message in heard.device)]
    steps = [fault["code"][len(_NOTED) :] for _, fault in heard.faults("thermal") if fault["state"] == "noted"]
    if levels != _LEVELS or steps != _LEVELS[1:]:
        raise Short(f"levels {levels}, steps told as evt/fault {steps}; expected {_LEVELS}")
    for code in ("hot", "alarm"):
        mine = [fault for _, fault in heard.faults("thermal") if fault["code"] == code]
        states = [fault["state"] for fault in mine]
        if states != ["raised", "cleared"]:
            raise Short(f"thermal {code}: {states}")
    return f"levels {' > '.join(levels)}, {scraped.units:.0f} units scraped"


def _durations(furnace: Furnace, heard: Heard) -> str:
    """Each cause once, as long as it was. Raises Short."""
    figures = []
    for cause, (from_s, to_s) in furnace.held_back.items():
        mine = [(at_s, fault) for at_s, fault in heard.faults("device") if fault["code"] == f"throttled_{cause}"]
        if [fault["state"] for _, fault in mine] != ["raised", "cleared"]:
            raise Short(f"{cause}: {[fault['state'] for _, fault in mine]}, expected it raised and cleared once")
        (raised_s, _), (_, cleared) = mine
        lasted_s, was_s = cleared["data"]["lasted_s"], to_s - from_s
        if abs(lasted_s - was_s) > _DURATION_S or not -0.5 < raised_s - from_s < _LAG_S + 1:
            raise Short(f"{cause}: {lasted_s:.1f} s told, it was {was_s:.1f} s; raised after {raised_s - from_s:.1f} s")
        figures.append(f"{cause} {lasted_s:.1f} s (was {was_s:.1f} s)")
    return f"throttled: {', '.join(figures)}"


def _slow_down(heard: Heard) -> str:
    """Asked for at slow and alarm, taken back at shed. Raises Short."""
    events = [event for _, event in heard.of("evt/slow_down")]
    states = [(event["state"], event["level"]) for event in events]
    expected = [("raised", "slow"), ("raised", "alarm"), ("raised", "slow"), ("cleared", None)]
    rates = [(event["current_rate_hz"], event["sustainable_rate_hz"]) for event in events[:3]]
    if states != expected or not all(can and now and 0 < can < now for now, can in rates):
        raise Short(f"evt/slow_down: {states} with rates {rates}; expected {expected}, and rates below the line's")
    steps = ", ".join(f"{state} {level}" if level else state for state, level in states)
    return f"slow_down {steps}: {rates[0][0]:.1f} units/s, {rates[0][1]:.1f} asked for"


def _shed(station: Rolling, heard: Heard) -> str:
    """While it sheds, no unit goes to the candidate and no picture gets boxes; before and after, they do. Raises
    Short."""
    begin_s, end_s = _shedding(heard)
    told = [(at_s, step["detail"]) for at_s, step in heard.dated("model/progress") if step["state"] == "shadow"]
    compared = [(at_s, int(detail.split(" of ")[0])) for at_s, detail in told if " of " in detail]
    before = max((count for at_s, count in compared if at_s < begin_s + _MARGIN_S), default=0)
    during = max((count for at_s, count in compared if at_s < end_s), default=0)
    after = max((count for _, count in compared), default=0)
    boxes = [_boxes(station.here.directory, event) for _, event in heard.of("evt/inspection")]
    hot = [has for at_s, has in boxes if begin_s + _MARGIN_S < at_s < end_s - _MARGIN_S and has is not None]
    cool = [has for at_s, has in boxes if not begin_s - _MARGIN_S < at_s < end_s + _MARGIN_S and has is not None]
    if not 0 < before == during < after or not hot or any(hot) or not all(cool):
        raise Short(
            f"compared in the shadow: {before} before, {during} at the end of shedding, {after} at last; "
            f"pictures with boxes: {sum(hot)} of {len(hot)} while it shed, {sum(cool)} of {len(cool)} else"
        )
    return (
        f"shed for {end_s - begin_s:.0f} s: {during - before} units for the candidate and {sum(hot)} of {len(hot)} "
        f"pictures with boxes (else {after} units, {sum(cool)} of {len(cool)} pictures)"
    )


def _shedding(heard: Heard) -> tuple[float, float]:
    """From when to when it shed, by what it noted."""
    noted = [(at_s, fault["code"]) for at_s, fault in heard.faults("thermal") if fault["state"] == "noted"]
    begin_s = next(at_s for at_s, code in noted if code == f"{_NOTED}shed")
    return begin_s, next(at_s for at_s, code in noted if at_s > begin_s and code == f"{_NOTED}warn")


def _boxes(directory: Path, event: Message) -> tuple[float, bool | None]:
    """When it was judged, and whether there is a picture with boxes; None: there are no pictures of it."""
    at_s = wall_time_s(event["ended_at"])
    pictures = list((directory / "state" / "evidence").rglob(f"{event['id']}*.jpg"))
    return at_s, any(path.name.endswith("-boxes.jpg") for path in pictures) if pictures else None


def _units(heard: Heard) -> str:
    """Each unit carries how the machine was when it was judged. Raises Short."""
    units = [event for _, event in heard.of("evt/inspection")]
    held = [event for event in units if (event["conditions"] or {}).get("throttled")]
    slow = [event for event in held if event["conditions"]["gpu_clock_mhz"] == 306.0]
    if len(held) < 10 or len(slow) < 10:
        raise Short(f"{len(held)} units say throttled, {len(slow)} of them at 306 MHz; expected at least 10")
    return f"{len(held)} units say throttled, {len(slow)} of them at 306 MHz"


def _explained(heard: Heard) -> str:
    """The engine ran on slowed clocks: the units that this made slow say so. Raises Short."""
    slow = [unit for message in heard.device for unit in message["slow_units"]]
    by_heat = [unit["because"] for unit in slow if unit["because"] and "slowed" in unit["because"]]
    if not by_heat:
        raise Short(f"no slow unit is explained by the heat: {slow[:5]}")
    return f"{len(by_heat)} of {len(slow)} slow units explained by the heat: {by_heat[0]!r}"


def _draw(setting: Setting, furnace: Furnace, heard: Heard, scraped: _Scraped) -> Path:
    def since(points: Sequence[tuple[float, Any]]) -> list[tuple[float, Any]]:
        return [(at_s - furnace.begun_s, value) for at_s, value in points if at_s >= furnace.begun_s]

    limits, device = ThermalSettings(), heard.dated("tele/device")
    inspections = [event for _, event in heard.of("evt/inspection")]
    units = [(wall_time_s(event["ended_at"]), event["timing_ms"]["capture_to_verdict"]) for event in inspections]
    p99 = [(at_s, max(p99s)) for at_s, message in device if (p99s := _p99s(message))]
    (shed_s, shed_end_s) = _shedding(heard)
    spans = [Span(shed_s - furnace.begun_s, shed_end_s - furnace.begun_s, "shed", "shed: no shadow, no boxes")]
    for cause, (from_s, to_s) in furnace.held_back.items():
        spans.append(Span(from_s - furnace.begun_s, to_s - furnace.begun_s, "held", f"held back: {cause}"))
    path = Path(tempfile.gettempdir()) / "prove-telemetry-heat.svg"  # it stays: to be looked at
    title = "An AGX Orin gets hot and cools down: shaded blue: it sheds; shaded red: held back (heat, current, cap)"
    write_chart(path, Run(
        title=title,
        scripted_c=since(furnace.heat),
        told_c=since([(at_s, message["hottest_c"]) for at_s, message in device]),
        scraped_c=since(scraped.hottest),
        limits_c=[("warn", limits.warn_c), ("shed", limits.shed_c), ("slow", limits.slow_c), ("alarm", limits.alarm_c)],
        levels=since([(at_s, message["thermal_level"]) for at_s, message in device]),
        clock_mhz=since([(at_s, message["gpu_clock_mhz"]) for at_s, message in device]),
        clock_limit_mhz=since([(at_s, message["gpu_clock_max_mhz"]) for at_s, message in device]),
        units_ms=since(units),
        p99_ms=since(p99),
        spans=spans,
    ))  # fmt: skip
    return path


def _p99s(message: Message) -> list[float]:
    return [figures["p99_ms"] for figures in message["latency"] if figures["stage"] == "capture_to_verdict"]


HEAT = (Proof("heat", "a heat-up and a cool-down: told, scraped, explained, acted upon, without oscillation", _heat),)
