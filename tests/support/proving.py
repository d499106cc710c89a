"""A suite of proofs: each runs for real, prints one line with its figure, and says ok or SHORT.

A proof is a function that returns its figure, or raises `Short` with what fell short, or `Skipped` with the way to
have it run. Anything else that it raises is a fall-short, too.
"""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Sequence


class Short(Exception):
    """The claim does not hold; the message says by how much."""


class Skipped(Exception):
    """The claim could not be tried here; the message says what to do."""


@dataclass(frozen=True)
class Setting:
    """What a proof is given: a directory of its own, which stays if it falls short, and how thorough to be."""

    directory: Path
    quick: bool


@dataclass(frozen=True)
class Proof:
    """One line of the report."""

    name: str
    claim: str
    prove: Callable[[Setting], str]


@dataclass
class Report:
    """What came out, line by line."""

    counts: dict[str, int] = field(default_factory=lambda: {"ok": 0, "SHORT": 0, "skipped": 0})

    def line(self, proof: Proof, outcome: str, figure: str, took_s: float) -> None:
        """Print one line."""
        self.counts[outcome] += 1
        print(f"{outcome:<7} {proof.name:<28} {took_s:5.0f} s  {figure}", flush=True)


def main(suite: str, proofs: Sequence[Proof], arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit code is 0 if nothing falls short."""
    options = _parser(suite).parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    chosen = [proof for proof in proofs if _wanted(proof.name, options.only, options.skip)]
    if options.list:
        for proof in proofs:
            print(f"{proof.name:<28} {proof.claim}")
        return 0
    if not chosen:
        print(f"{suite}: no item matches; see --list", file=sys.stderr)
        return 2
    base = Path(tempfile.mkdtemp(prefix=f"{suite}-"))
    report, started_s = Report(), time.monotonic()
    for proof in chosen:
        _run(proof, Setting(base / proof.name, options.quick), report, options.keep)
    if not report.counts["SHORT"] and not options.keep:
        shutil.rmtree(base, ignore_errors=True)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.counts.items() if count)
    print(f"{suite}: {counts} in {time.monotonic() - started_s:.0f} s", flush=True)
    return 1 if report.counts["SHORT"] else 0


def _run(proof: Proof, setting: Setting, report: Report, keep: bool) -> None:
    setting.directory.mkdir()
    started_s = time.monotonic()
    try:
        outcome, figure = "ok", proof.prove(setting)
    except Skipped as reason:
        outcome, figure = "skipped", str(reason)
    except Short as shortfall:
        outcome, figure = "SHORT", f"{shortfall} (kept: {setting.directory})"
    except Exception as error:  # noqa: BLE001 - one proof must not end the others
        (setting.directory / "traceback").write_text(traceback.format_exc())
        outcome, figure = "SHORT", f"{error!r} (kept: {setting.directory})"
    report.line(proof, outcome, figure, time.monotonic() - started_s)
    if outcome != "SHORT" and not keep:
        shutil.rmtree(setting.directory, ignore_errors=True)


def _wanted(name: str, only: Sequence[str], skip: Sequence[str]) -> bool:
    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}.") for pattern in patterns)

    return (not only or matches(only)) and not matches(skip)


def _parser(suite: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=suite, description="Prove it, for real.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this item, a prefix or a pattern")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME", help="not this one")
    parser.add_argument("--list", action="store_true", help="print the items and what they claim")
    parser.add_argument("--quick", action="store_true", help="shorter outages and fewer units")
    parser.add_argument("--keep", action="store_true", help="keep the directories of items that are ok, too")
    return parser
