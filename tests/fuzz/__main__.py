"""`make fuzz`: coverage-guided fuzzing of what reads commands, manifests, envelopes and roots. Needs atheris.

    PYTHONPATH=daemon:tests python -m fuzz [--seconds N] [--only TARGET] [--keep DIR]

The time is shared by the targets. Prints a line for each, and exits with 1 if something was found; the input that
found it is then left where the line says, and `python -m fuzz.one TARGET FILE` shows its traceback again.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from fuzz.mutations import MAX_BYTES
from fuzz.targets import TARGETS, FuzzTarget

_SLOWEST_S = 10  # an input that takes longer is a finding
_MEMORY_MB = 2048


class Outcome(NamedTuple):
    """Of one target. Features are libFuzzer's: edges, and how often each was taken."""

    executions: int
    edges: int
    features: int
    inputs: int
    findings: tuple[Path, ...]
    log: str
    ended_well: bool


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="of all targets together (default: 600)")
    parser.add_argument("--only", choices=[target.name for target in TARGETS], action="append")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="the corpus, to go on from next time")
    options = parser.parse_args()
    directory = options.keep or Path(tempfile.mkdtemp(prefix="defectd-fuzz-"))
    targets = [target for target in TARGETS if not options.only or target.name in options.only]
    outcomes = [_fuzz(target, directory, max(1, options.seconds // len(targets))) for target in targets]
    runs, features = sum(one.executions for one in outcomes), sum(one.features for one in outcomes)
    crashes = sum(len(one.findings) for one in outcomes)
    print(f"{'together':<16} {runs:>10} executions {features:>7} features  {crashes:>3} crashes")
    return 0 if all(one.ended_well for one in outcomes) else 1


def _fuzz(target: FuzzTarget, directory: Path, seconds: int) -> Outcome:
    corpus, findings = directory / target.name / "corpus", directory / target.name / "findings"
    for one in (corpus, findings):
        one.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    options = {
        "max_total_time": seconds, "timeout": _SLOWEST_S, "rss_limit_mb": _MEMORY_MB, "max_len": MAX_BYTES,
        "print_final_stats": 1, "artifact_prefix": f"{findings}/",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.one", target.name, *(f"-{key}={value}" for key, value in options.items()), corpus],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    outcome = Outcome(
        executions=_last(r"stat::number_of_executed_units: (\d+)", done.stdout),
        edges=_last(r"cov: (\d+)", done.stdout),
        features=_last(r"ft: (\d+)", done.stdout),
        inputs=_last(r"corp: (\d+)", done.stdout),
        findings=tuple(sorted(findings.iterdir())),
        log=done.stdout,
        ended_well=done.returncode == 0 and not any(findings.iterdir()),
    )
    print(
        f"{target.name:<16} {outcome.executions:>10} executions {outcome.features:>7} features  "
        f"{len(outcome.findings):>3} crashes  ({outcome.edges} edges, {outcome.inputs} inputs kept, {seconds} s)",
        flush=True,
    )
    if not outcome.ended_well:
        print("\n".join(outcome.log.splitlines()[-40:]))
        print("".join(f"  found by {path}\n" for path in outcome.findings), flush=True)
    return outcome


def _last(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
