"""`make bench`: defectd against the bare forward and against Ultralytics, in one run.

python -m defectd.bench --model model.torchscript [--images DIR] [--peer PYTHON] [--json FILE] [--strict]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from defectd.bench.children import Peer
from defectd.bench.findings import Findings
from defectd.bench.measure import Order, measure
from defectd.bench.report import render
from defectd.errors import DefectdError


def main() -> int:
    """The exit code: 0, or 1 if it could not be measured or, with --strict, a target was missed."""
    parser = _parser()
    options = parser.parse_args()
    if options.images is not None and not options.images.is_dir():
        parser.error(f"--images: {options.images} is no folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    began_s = time.monotonic()
    peer = Peer(options.peer, options.peer_setup or None) if options.peer else None
    order = Order(
        options.model.resolve(), options.images and options.images.resolve(), peer, options.rounds,
        options.rate_hz, options.units, options.saturated_units, options.outbox_events,
    )  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(prefix="defectd-bench-", dir=options.directory) as directory:
            findings = measure(order, Path(directory), _say)
    except DefectdError as error:
        print(f"defectd bench: {error}", file=sys.stderr)
        return 1
    print(render(findings))
    print(f"\nmeasured in {time.monotonic() - began_s:.0f} s")
    if options.json:
        options.json.write_text(as_json(findings))
    return int(options.strict and not all(target.met for target in findings.targets()))


def as_json(findings: Findings) -> str:
    """Everything, every sample too."""
    targets = [
        {**dataclasses.asdict(target), "value": target.value, "met": target.met} for target in findings.targets()
    ]
    return json.dumps({**dataclasses.asdict(findings), "targets": targets}, indent=1)


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m defectd.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--model", type=Path, required=True, metavar="FILE", help="a stock Ultralytics TorchScript export"
    )
    parser.add_argument(
        "--images", type=Path, default=None, metavar="DIR", help="a folder of pictures (default: simulated boards)"
    )
    parser.add_argument(
        "--peer", default=os.environ.get("DEFECTD_PEER_PYTHON"), metavar="PYTHON",
        help="an interpreter that has Ultralytics (default: $DEFECTD_PEER_PYTHON)",
    )  # fmt: skip
    parser.add_argument(
        "--peer-setup", default=os.environ.get("DEFECTD_PEER_SETUP"), metavar="MODULE",
        help="a module that the peer imports first (default: $DEFECTD_PEER_SETUP)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument("--rate-hz", type=float, default=4.0, help="the pace (default: 4 units/s)")
    parser.add_argument("--units", type=int, default=60, help="per paced phase (default: 60)")
    parser.add_argument("--saturated-units", type=int, default=200, help="per saturated phase (default: 200)")
    parser.add_argument("--outbox-events", type=int, default=100_000, help="0 leaves the outbox out (default: 100000)")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where state is kept meanwhile (default: a temporary directory)"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write everything there, too")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
