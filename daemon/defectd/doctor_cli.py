"""`defectd doctor`: what is wrong here, and what to do about it."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

Commands = Any  # argparse's type for it is private
EXIT_UNFIT = 1


def add_to(commands: Commands) -> None:
    """Register the command."""
    about = "look at everything that this station needs, and say what to do; it changes nothing"
    doctor = commands.add_parser(
        "doctor", help="what is wrong here, and what to do about it", description=about,
        epilog="Exit codes: 0 no error, perhaps warnings; 1 an error; 130 Ctrl-C.",
    )  # fmt: skip
    doctor.add_argument("--config", type=Path, required=True, metavar="FILE", help="the station's TOML")
    doctor.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    doctor.add_argument("--quick", action="store_true", help="do not measure the model (saves about half a minute)")
    doctor.add_argument("--dev", action="store_true", help="as run --dev would: models that nobody signed will do")
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from defectd import __version__
    from defectd.clock import utc_now
    from defectd.doctor.run import Nobody, Options, examine
    from defectd.doctor.screen import Screen

    logging.basicConfig(level=logging.ERROR)  # what is worth a warning is a line of the report
    chosen = Options(quick=options.quick, dev=options.dev)
    if options.json:
        report = examine(options.config, chosen, Nobody())
        sys.stdout.write(json.dumps(report.to_json(__version__, utc_now().isoformat(timespec="seconds")), indent=2))
        sys.stdout.write("\n")
    else:
        screen = Screen(sys.stdout)
        report = examine(options.config, chosen, screen)
        screen.sum_up(report)
    return 0 if report.is_fit else EXIT_UNFIT
