"""python -m wheelhouse lock|fetch|payload|program: see deploy/README.md."""

from __future__ import annotations

import argparse
import json
import sys

from wheelhouse.fetch import fetch
from wheelhouse.locks import lock_path, read_lock, requirements, resolve
from wheelhouse.payload import build, make, station_program
from wheelhouse.rehearse import main as rehearse
from wheelhouse.targets import TARGETS, WheelError, named


def main() -> int:
    """Exit status 1 and one message where it cannot go on."""
    options = _parser().parse_args()
    try:
        return int(options.run(options))
    except WheelError as error:
        sys.stderr.write(f"wheelhouse: {error}\n")
        return 1


def _lock(options: argparse.Namespace) -> int:
    for target in [named(name) for name in options.targets] or TARGETS:
        text = resolve(target, requirements())
        path = lock_path(target)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"{path.name}: {len(read_lock(path))} packages\n")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    for target in [named(name) for name in options.targets] or TARGETS:
        wheels = fetch(target, read_lock(lock_path(target)))
        size_mb = sum(one.path.stat().st_size for one in wheels) / 1e6
        sys.stdout.write(f"{target.name}: {len(wheels)} wheels, {size_mb:.0f} MB, hashes as in the lock\n")
    return 0


def _payload(options: argparse.Namespace) -> int:
    own = build(options.version or None)
    sys.stdout.write(json.dumps(make(json.loads(options.facts), own)) + "\n")
    return 0


def _program(options: argparse.Namespace) -> int:
    del options
    sys.stdout.write(f"{station_program()}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wheelhouse", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, about in (("lock", _lock, "resolve anew and write deploy/lock/TARGET.txt; needs an index"),
                             ("fetch", _fetch, "fill the cache, so that a deployment needs no internet")):  # fmt: skip
        command = commands.add_parser(name, help=about)
        command.add_argument("targets", nargs="*", metavar="TARGET", help="for example cp310-aarch64; default: all")
        command.set_defaults(run=run)
    payload = commands.add_parser("payload", help="the tar file for a station with these facts")
    payload.add_argument("--facts", required=True, help="JSON, as station.pyz facts prints it")
    payload.add_argument("--version", default="", help="default: this checkout")
    payload.set_defaults(run=_payload)
    tried = commands.add_parser("rehearse", help="hold a station.toml against the model before anything is sent")
    tried.add_argument("toml")
    tried.add_argument("files", help="JSON: path on the station -> file here")
    tried.set_defaults(run=lambda options: rehearse(options.toml, options.files))
    commands.add_parser("program", help="write station.pyz").set_defaults(run=_program)
    return parser


if __name__ == "__main__":
    sys.exit(main())
