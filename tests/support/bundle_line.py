"""A line that is served from a bundle of two formats, again and again with the same state directory; and what each run
told. Needs torch."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import torch

from support.audit import audit
from support.coded_pictures import misjudged
from support.models import Convolving
from support.proving import Setting, Short
from support.proving_ground import Ground, ground
from support.signed import tiny_bundle, write_root
from support.station import wait_until

_UNITS, _RATE_HZ = 3000, 10.0
PATIENCE_S = 240.0
_HOW = re.compile(r"((?:compiled|from cache) in [\d.]+ s)")
PORTABLE, COMPILED = "torchscript-fp32-cpu", "compiled-fp32-cpu"


@dataclass(frozen=True)
class Told:
    """What a run left: `faults` by code, the runtimes that judged, in order, and the figure of the audit."""

    faults: Mapping[str, str]
    runtimes: list[str]
    figure: str
    log: str
    ready_s: float

    def fault(self, code: str, *words: str) -> str:
        """Its detail, with all *words*. Raises Short."""
        detail = self.faults.get(code, "")
        if not detail or not all(word in detail for word in words):
            raise Short(f"evt/fault {code}: expected {words}, got {detail!r} of {sorted(self.faults)}")
        return detail

    def served_by(self, *runtimes: str) -> None:
        """Raises Short."""
        if self.runtimes != list(runtimes):
            raise Short(f"served by {self.runtimes}, expected {list(runtimes)}; faults {dict(self.faults)}")

    @property
    def compiled(self) -> str:
        """How it came by its compiled code: "compiled in 12.3 s", "from cache in 1.2 s", or "" if not at all."""
        found = _HOW.search(self.log)
        return found.group(1) if found else ""


Act = Callable[[Ground], None]


def _nothing(_: Ground) -> None:
    """The line has no trouble."""


def inspect(setting: Setting, bundle: Path, act: Act = _nothing, **model: Any) -> Told:
    """Start a station with *bundle*, *act* when it is READY, let it judge ten more units, and end it. The state stays
    in the proof's directory for the next run. Raises Short if a unit is missing, misjudged, or an error."""
    directory = setting.directory / f"run-{len(list(setting.directory.glob('run-*'))) + 1}"
    directory.mkdir()
    state = setting.directory / "state"
    model = {"path": bundle, "trust": root_of(setting), "start_timeout_s": 60, **model}
    with ground(directory, _UNITS, _RATE_HZ, {"model": model, "state": {"directory": state}}, started=False) as here:
        here.daemon.start()
        ready_s = here.daemon.wait_ready(PATIENCE_S)
        act(here)
        here.struck_at_s = time.time()
        here.await_good_units()
        here.struck_at_s = 0.0
        here.terminate()
        (directory / "state").mkdir(exist_ok=True)
        shutil.move(str(state / "outbox.db"), str(here.outbox))  # audited by itself, and so is the next run
        figure = accounted(here, errors_allowed=False)
        faults = {
            event["code"]: event["detail"]
            for event in here.collector.events.values()
            if event.get("component") in ("engine", "model") and event.get("state") != "cleared"
        }
        runtimes = [event["model"]["runtime"] for event in here.collector.inspections]
        log = here.daemon.log()
    for path in state.glob("outbox.*"):
        path.unlink()
    return Told(faults, list(dict.fromkeys(runtimes)), figure, log, ready_s)


def accounted(here: Ground, *, errors_allowed: bool) -> str:
    """Every unit is accounted for and was judged by its own picture; a fault may stand. Raises Short."""
    result = audit(here.collector, here.outbox, here.daemon.log(), None)
    problems = [problem for problem in result.problems if not problem.endswith("was never cleared")]
    for event in here.collector.inspections:
        if event["verdict"] != "error":
            problems += filter(None, [misjudged(event)])
        elif not errors_allowed:
            problems.append(f"{event['unit_id']}: {event['error']}: {event['error_detail']}")
    if problems:
        raise Short("; ".join([*problems[:5], result.figure()]))
    return result.figure()


def root_of(setting: Setting) -> Path:
    """The root.json of the proof's bundles."""
    path = setting.directory / "root.json"
    return path if path.exists() else write_root(path)


def bundle_of(setting: Setting, exported: torch.nn.Module | None = None) -> Path:
    """A bundle in two formats, of which the second one may be of another network."""
    return tiny_bundle(setting.directory / "bundle", exported=exported or Convolving())


def until_said(*words: str) -> Act:
    """An act: wait until a line of the log has one of *words*."""

    def act(here: Ground) -> None:
        def said() -> bool:
            return any(word in here.daemon.log() for word in words)

        wait_until(said, PATIENCE_S, f"{words} in the log", every_s=0.5)

    return act


DECIDED = until_said("runtime_chosen", "runtime_not_chosen")
SETTLED = until_said("swapped", "swap_failed", "runtime_not_chosen")


def inspect_with_errors(setting: Setting, bundle: Path, act: Act, **model: Any) -> str:
    """As `inspect`, for a run in which units may be lost to the strike itself."""
    model = {"path": bundle, "trust": root_of(setting), **model}
    with ground(setting.directory, _UNITS, _RATE_HZ, {"model": model}) as here:
        act(here)
        here.await_good_units()
        here.terminate()
        return accounted(here, errors_allowed=True)


@contextlib.contextmanager
def environment_with(**values: str) -> Iterator[None]:
    """What this process passes on to those that it starts meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
