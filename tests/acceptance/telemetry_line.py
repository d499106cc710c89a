"""A small line on a fake machine, code that its daemon runs first, and two tails of latencies beside each other."""

from __future__ import annotations

import contextlib
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from defectd.engine.choice import percentile
from defectd.telemetry.sample import Roots
from support.coded_pictures import HEIGHT_PX, WIDTH_PX
from support.heat import Heard, on_machine
from support.proving import Setting
from support.proving_ground import PATIENCE_S, Ground, ground
from support.station import CHECKOUT, merged, wait_until

_PICTURES = 900
_DRAWS = 400
_FRESH_S, _ON_ITS_WAY = 0.5, 20
_TELEMETRY = {"telemetry": {"every_s": 1.0}, "state": {"keep_delivered_h": 1e6}}


@contextlib.contextmanager
def line(
    setting: Setting, roots: Roots, changes: Mapping[str, Any] | None = None, *, rate_hz: float = 20.0,
    first: str = "", started: bool = True,
) -> Iterator[tuple[Ground, Heard]]:  # fmt: skip
    """Coded pictures, again and again, judged on *roots*; what the daemon says each second. *first* is code that each
    of its processes runs before its own."""
    camera = {"name": "top", "kind": "replay", "path": setting.directory / "pictures", "rate_hz": rate_hz, "loop": True,
              "max_pixels": HEIGHT_PX * WIDTH_PX}  # fmt: skip
    settings = merged({**_TELEMETRY, "camera": [camera]}, changes or {})
    with ground(setting.directory, _PICTURES, rate_hz, settings, started=False) as here:
        here.daemon.extra.update(on_machine(roots))
        if first:
            here.daemon.extra.update(first_of_all(setting.directory / "first", first))
        with Heard(here.broker) as heard:
            if started:
                here.daemon.start()
                here.daemon.wait_ready()
            try:
                yield here, heard
            finally:
                heard.keep(setting.directory / "heard.jsonl")


def first_of_all(directory: Path, code: str) -> dict[str, str]:
    """The environment of a Python that runs *code* before anything else."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(directory), str(CHECKOUT / "daemon")])}


def closed(here: Ground, heard: Heard) -> str:
    """End the line, once the broker keeps up; each unit has its verdict, and each event arrived. Raises Short."""
    calm(heard)
    here.terminate()
    return here.report(once=False)


def calm(heard: Heard) -> None:
    """Until the broker has all but what is on its way: its disk may have held it up."""

    def keeps_up() -> bool:
        at_s, message = heard.of("tele/device")[-1]
        return time.time() - at_s < _FRESH_S and message["outbox_pending"] < _ON_ITS_WAY

    wait_until(keeps_up, PATIENCE_S, "the broker has the events")


@dataclass(frozen=True)
class Ratio:
    """Of two tails, and the range in which it lies with 95 % confidence."""

    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio_of(these: Sequence[Sequence[float]], those: Sequence[Sequence[float]], quantile: float = 0.99) -> Ratio:
    """A percentile of *these* over that of *those*. Both come in blocks, each of one stretch of time: what disturbs a
    machine disturbs many units in a row."""
    dice = random.Random(7)  # the same figure for the same run

    def tail(blocks: Sequence[Sequence[float]]) -> float:
        return percentile([value for block in blocks for value in block], quantile)

    def drawn(blocks: Sequence[Sequence[float]]) -> list[Sequence[float]]:
        return [dice.choice(blocks) for _ in blocks]

    ratios = sorted(tail(drawn(these)) / tail(drawn(those)) for _ in range(_DRAWS))
    return Ratio(tail(these) / tail(those), ratios[_DRAWS // 40], ratios[-_DRAWS // 40])


def blocks_of(points: Sequence[tuple[float, float]], each_s: float = 2.0) -> list[list[float]]:
    """(seconds, value) in stretches of *each_s*."""
    found: dict[int, list[float]] = {}
    for at_s, value in points:
        found.setdefault(int(at_s // each_s), []).append(value)
    return list(found.values())
