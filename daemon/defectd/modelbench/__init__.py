"""`defectd bench MODEL`: which runtime is fastest on this machine, and does it still see what the model saw?

target       what a person named, verified
measure      one trial after the other (engine.selection), with an eye on the machine (conditions)
findings     what came out, as values
terminal, report, page    the same for a person at a terminal, for a program, and on one HTML page
"""

from __future__ import annotations

import os
import platform
import signal
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Sequence

from defectd import __version__
from defectd.clock import utc_now
from defectd.engine.base import RUNTIMES
from defectd.engine.choice import Candidate, Trial, candidates
from defectd.engine.selection import Terms, prove
from defectd.errors import SettingsError, StateError
from defectd.modelbench.conditions import Machine, Watch
from defectd.modelbench.findings import Findings
from defectd.modelbench.measure import Attempt, OnStage, judge, measure
from defectd.modelbench.page import render
from defectd.modelbench.report import as_json
from defectd.modelbench.target import Target, open_target
from defectd.modelbench.terminal import audience, show
from defectd.models.fingerprint import installed_versions
from defectd.models.store import Store
from defectd.models.trust import Root
from defectd.storage import write_durably

REFERENCE = "torchscript"
"""What the others are compared with: it runs wherever torch does."""
INTERRUPTED = 128 + signal.SIGINT
LEAST_CALLS = 20
"""Below that, a p99 would be a guess."""


@dataclass(frozen=True)
class Options:
    """What to measure and where to put it. `runtimes` empty: all. `state` keeps engines and compilers' caches, so
    that a second bench starts from them; None: everything is made anew, which is what a cold start means."""

    json: Path | None = None
    html: Path | None = None
    device: str = "auto"
    precision: str = "fp16"
    runtimes: tuple[str, ...] = ()
    threads: int | None = None
    calls: int = 200
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    seconds: float = 900.0
    state: Path | None = None
    root: Root | None = None
    allow_unsigned: bool = False
    plain: bool = False


def run(target: Path, out: Path | None, options: Options, say: Callable[[str], None]) -> int:
    """Measure *target*, show the table, write bench.json and bench.html into the directory *out* and what *options*
    names. *say* gets lines of progress where nobody could see a live one.

    The exit code: 0, or 1 if no runtime may serve (the reasons are told), or 130 after Ctrl-C or SIGTERM. Raises
    ModelError for a bad *target*, SettingsError for bad *options*, and StateError if something cannot be written:
    before anything is measured, if that can be known. For the main thread.
    """
    _check(options)
    files = _files(out, options)
    opened = open_target(target, options.root, allow_unsigned=options.allow_unsigned)
    offered = _offered(opened, options)
    with ExitStack() as stack:
        terminated = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
        stack.callback(signal.signal, signal.SIGTERM, terminated)
        directory = options.state or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="defectd-bench-")))
        store = stack.enter_context(closing(Store(directory)))
        try:
            findings = _bench(opened, offered, store, options, say)
        except KeyboardInterrupt:
            say("stopped; nothing was written")
            return INTERRUPTED
    show(findings, plain=options.plain)
    for path, content in files.items():
        _write(path, content(findings))
        say(f"written: {path}")
    return 0 if findings.chosen is not None else 1


def _bench(
    target: Target, offered: Sequence[Candidate], store: Store, options: Options, say: Callable[[str], None]
) -> Findings:
    terms = Terms(
        device=options.device, precision=options.precision, threads=options.threads, calls=options.calls,
        batches=options.batches, trial_s=options.seconds, nice=0,
    )  # fmt: skip
    names = _names(offered)
    promising = [name for name, candidate in zip(names, offered) if candidate.obstacle is None]
    began = utc_now()

    def attempt(candidate: Candidate, hear: OnStage) -> Trial:
        return prove(candidate, target.bundle, store, terms, hear)

    attempts = [Attempt(name, partial(attempt, one), one.obstacle) for name, one in zip(names, offered)]
    with Watch(Machine()) as watch, audience(promising, say, plain=options.plain) as listener:
        tried = measure(attempts, watch, listener)
        took_s = watch.now_s()
    entries = judge(tried)
    devices = [entry.measured.device_name for entry in entries if entry.measured is not None]
    return Findings(
        target.subject, devices[0] if devices else platform.machine(), _platform(), f"{began:%Y-%m-%d %H:%M} UTC",
        __version__, took_s, REFERENCE, entries, watch.conditions(),
    )  # fmt: skip


def _check(options: Options) -> None:
    """Raises SettingsError, with every mistake."""
    unknown = sorted(set(options.runtimes) - set(RUNTIMES))
    wrong = (
        (unknown, f"runtime: expected some of {', '.join(RUNTIMES)}; got {', '.join(unknown)}"),
        (options.calls < LEAST_CALLS, f"calls: expected at least {LEAST_CALLS}, got {options.calls}"),
        (any(batch < 1 for batch in options.batches), f"batches: expected numbers from 1, got {options.batches}"),
        (not options.seconds > 0, f"seconds: expected more than 0, got {options.seconds:g}"),
    )
    problems = [problem for is_wrong, problem in wrong if is_wrong]
    if problems:
        raise SettingsError(problems)


def _offered(target: Target, options: Options) -> list[Candidate]:
    """Every runtime that was asked for; those without a format or a device say so when they are tried."""
    offered = candidates(
        target.bundle, device=options.device, precision=options.precision, versions=installed_versions()
    )
    return [target.locate(one) for one in offered if not options.runtimes or one.runtime in options.runtimes]


def _names(offered: Sequence[Candidate]) -> list[str]:
    """A runtime's own name where that tells them apart."""
    runtimes = [one.runtime for one in offered]
    return [one.runtime if runtimes.count(one.runtime) == 1 else f"{one.runtime}-{one.precision}" for one in offered]


def _platform() -> str:
    """What the figures depend on besides the machine."""
    versions = installed_versions()
    software = [
        f"{name} {versions[name]}" for name in ("l4t", "torch", "tensorrt", "torch-tensorrt") if name in versions
    ]
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return ", ".join([system, f"Python {platform.python_version()}", *software])


def _files(out: Path | None, options: Options) -> dict[Path, Callable[[Findings], str]]:
    """Where what goes. Raises StateError if it cannot be written: not after an hour of measuring."""
    files: dict[Path, Callable[[Findings], str]] = {}
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{out}: {error.strerror}; name a directory that can be written") from error
        files = {out / "bench.json": as_json, out / "bench.html": render}
    for path, content in ((options.json, as_json), (options.html, render)):
        if path is not None:
            files[path] = content
    for path in files:
        if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise StateError(f"{path}: cannot be written; name a file in a directory that exists and can be written")
    return files


def _write(path: Path, text: str) -> None:
    try:
        write_durably(path, text.encode())
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}; free space there, or name another file") from error
