"""The order of the measurement: what is compared is measured in turns."""

from __future__ import annotations

import contextlib
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Callable

from defectd.bench import children
from defectd.bench.broker import RunningBroker, broker
from defectd.bench.children import Child, Peer
from defectd.bench.figures import median
from defectd.bench.findings import Findings, OutboxFigures, PeerRound, Round, loop_hz
from defectd.bench.pictures import draw_boards
from defectd.bench.station import CONFIDENCE, SATURATED_HZ, Plan, inspect
from defectd.errors import StartupError
from defectd.models.metadata import read_metadata

Say = Callable[[str], None]
_DRAWN = 60
_SETTLE_S = 0.08
NO_PEER = (
    "absent: name an interpreter that has it with --peer or DEFECTD_PEER_PYTHON "
    "(python3 -m venv /tmp/peer && /tmp/peer/bin/pip install ultralytics)"
)


@dataclass(frozen=True)
class Order:
    """What to measure, how often and how long. Without *images* they are drawn."""

    model: Path
    images: Path | None
    peer: Peer | None
    rounds: int
    paced_hz: float
    paced_units: int
    saturated_units: int
    outbox_events: int


def measure(order: Order, directory: Path, say: Say) -> Findings:
    """Everything, in one run; *directory* is for what it leaves on disk."""
    images = order.images or draw_boards(directory / "boards", _DRAWN)
    plan = Plan(order.model, read_metadata(order.model).names, images, order.paced_units, order.paced_hz)
    with contextlib.ExitStack() as stack:
        mqtt = stack.enter_context(broker(directory))
        say("warming up the bare forward")
        floor = stack.enter_context(children.floor(order.model))
        peer = None
        if order.peer is not None:
            say("warming up Ultralytics")
            peer = stack.enter_context(children.peer(order.peer, order.model, images, CONFIDENCE))
        rounds = [
            _round(order, plan, floor, peer, mqtt, directory / f"round{number}", partial(_say_round, say, number))
            for number in range(1, order.rounds + 1)
        ]
        memory = floor.peak_mb, None if peer is None else peer.peak_mb
        greetings = {"floor": floor.greeting, "peer": None if peer is None else peer.greeting}
    outbox = None
    if order.outbox_events:
        say(f"outbox: {order.outbox_events:,} events")
        with broker(directory) as mqtt:
            outbox = _outbox(mqtt, order.outbox_events, directory)
    about = {**_about(order), **greetings, "broker": mqtt.name}
    return Findings(about, rounds, *memory, NO_PEER if peer is None else "", outbox)


def _say_round(say: Say, number: int, what: str) -> None:
    say(f"round {number}: {what}")


def _round(
    order: Order, plan: Plan, floor: Child, peer: Child | None, mqtt: RunningBroker, directory: Path, say: Say
) -> Round:
    """Machines have fast and slow minutes: what a ratio compares is measured as near to each other as it can be.

    At the pace, the bare forward runs between two units; saturated, before, between and after the phases.
    """
    pace = f"at {order.paced_hz:g} units/s"
    beside = BetweenUnits(floor)
    paced = inspect(plan, mqtt, directory / "paced", beside.call)
    floor_ms = min(map(median, beside.samples_ms.values()))
    say(f"{pace}: bare forward p50 {floor_ms:.1f} ms, defectd {median(paced.column_ms('capture_to_verdict_ms')):.1f}")
    predicted: dict[str, Any] = {}
    if peer is not None:
        predicted = peer.ask(mode="paced", rate_hz=order.paced_hz, units=order.paced_units)
        say(f"{pace}: Ultralytics p50 {median(predicted['predict_ms']):.1f} ms")
    full = replace(plan, units=order.saturated_units, rate_hz=SATURATED_HZ)
    loops = [floor.ask(units=order.saturated_units // 3)]
    saturated = inspect(replace(full, evidence=False), mqtt, directory / "saturated")
    loops.append(floor.ask(units=order.saturated_units // 3))
    keeping = inspect(full, mqtt, directory / "keeping")
    loops.append(floor.ask(units=order.saturated_units // 3))
    floor_saturated = {way: [sample for loop in loops for sample in loop[way]] for way in loops[0]}
    say(
        f"saturated: bare forward {max(map(loop_hz, floor_saturated.values())):.1f}/s, "
        f"defectd {saturated.throughput_hz:.1f}/s, keeping pictures {keeping.throughput_hz:.1f}/s"
    )
    peer_round = None
    if peer is not None:
        stream = peer.ask(mode="stream", units=order.saturated_units)
        peer_round = PeerRound(predicted["read_ms"], predicted["predict_ms"], stream["rate_hz"])
        say(f"saturated: Ultralytics {peer_round.stream_hz:.1f}/s")
    return Round(beside.samples_ms, floor_saturated, paced, saturated, keeping, peer_round)


class BetweenUnits:
    """One bare forward after each unit, each way in its turn: the same pace, the same minute, nobody in its way."""

    def __init__(self, floor: Child) -> None:
        self._floor, self._ways = floor, cycle(floor.greeting["ways"])
        self.samples_ms: dict[str, list[float]] = {way: [] for way in floor.greeting["ways"]}

    def call(self) -> None:
        """Let the unit's events and files settle, then measure."""
        time.sleep(_SETTLE_S)
        way = next(self._ways)
        self.samples_ms[way] += self._floor.ask(units=1, way=way)[way]


def _outbox(mqtt: RunningBroker, events: int, directory: Path) -> OutboxFigures:
    """bench/outbox.py, in a process whose memory is its own. Raises StartupError."""
    command = [
        sys.executable, "-m", "defectd.bench.outbox",
        "--port", str(mqtt.port), "--events", str(events), "--directory", str(directory),
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise StartupError(f"{' '.join(command)} failed; its reason stands above")
    return outbox_figures(done.stdout)


def outbox_figures(printed: str) -> OutboxFigures:
    """From what bench/outbox.py printed. Raises StartupError if it prints otherwise now."""
    drained = re.search(r"drained: ([\d,]+) events/s", printed)
    memory = re.search(r"queued: ([\d.]+) MB before, ([\d.]+) MB after", printed)
    if drained is None or memory is None:
        raise StartupError(f"bench/outbox.py printed what bench/measure.py does not understand:\n{printed}")
    before_mb, queued_mb = map(float, memory.groups())
    return OutboxFigures(float(drained.group(1).replace(",", "")), before_mb, queued_mb, tuple(printed.splitlines()))


def _about(order: Order) -> dict[str, Any]:
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.machine()}, {len(cpus)} x {cpus[0].partition(':')[2].strip() if cpus else 'CPU'}",
        "python": platform.python_version(),
        "model": order.model.name,
        "images": f"{len(list(order.images.iterdir()))} pictures" if order.images else f"{_DRAWN} simulated boards",
        "rounds": order.rounds,
        "paced_hz": order.paced_hz,
        "paced_units": order.paced_units,
        "saturated_units": order.saturated_units,
    }
