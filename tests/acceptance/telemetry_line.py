"""A small line on a fake machine, code that its daemon runs first, and two tails of latencies beside each other."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from defectd.engine.choice import percentile
from defectd.telemetry.sample import Roots
from support.coded_pictures import HEIGHT_PX, WIDTH_PX
from support.heat import Heard, on_machine
from support.proving import Setting
from support.proving_ground import Ground, ground
from support.station import CHECKOUT, merged

_PICTURES = 900
_DRAWS = 400
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
            yield here, heard


def first_of_all(directory: Path, code: str) -> dict[str, str]:
    """The environment of a Python that runs *code* before anything else."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(directory), str(CHECKOUT / "daemon")])}


def closed(here: Ground) -> str:
    """End the line; each unit has its verdict, and each event arrived. Raises Short."""
    here.terminate()
    return here.report(once=False)


def ratio_of_p99(these: Sequence[Sequence[float]], those: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The p99 of *these* over that of *those*, and the range in which it lies with 95 % confidence. Both come in
    blocks, each of one stretch of time: what disturbs a machine disturbs many units in a row."""
    dice = random.Random(7)  # the same figure for the same run

    def p99(blocks: Sequence[Sequence[float]]) -> float:
        return percentile([value for block in blocks for value in block], 0.99)

    def drawn(blocks: Sequence[Sequence[float]]) -> list[Sequence[float]]:
        return [dice.choice(blocks) for _ in blocks]

    ratios = sorted(p99(drawn(these)) / p99(drawn(those)) for _ in range(_DRAWS))
    return p99(these) / p99(those), ratios[_DRAWS // 40], ratios[-_DRAWS // 40]


def blocks_of(points: Sequence[tuple[float, float]], each_s: float = 2.0) -> list[list[float]]:
    """(seconds, value) in stretches of *each_s*."""
    found: dict[int, list[float]] = {}
    for at_s, value in points:
        found.setdefault(int(at_s // each_s), []).append(value)
    return list(found.values())
