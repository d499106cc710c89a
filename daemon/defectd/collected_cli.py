"""`defectd collected export`: what a station has collected, as a dataset to train with."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectd.errors import SettingsError, StateError

if TYPE_CHECKING:
    from defectd.evidence.dataset import Exported

Commands = Any  # argparse's type for it is private


def add_to(commands: Commands) -> None:
    """Register the command."""
    collected = commands.add_parser("collected", help="pictures that a station keeps as training data")
    actions = collected.add_subparsers(title="actions", required=True, metavar="ACTION")
    about = (
        "Write an Ultralytics dataset: images/, labels/, data.yaml, and units.csv. The labels are what the model saw: "
        "correct them before you train, those with needs_review first. The station may go on running."
    )
    export = actions.add_parser("export", help="as an Ultralytics dataset", description=about)
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder that does not exist yet")
    place = export.add_mutually_exclusive_group(required=True)
    place.add_argument("--config", type=Path, metavar="FILE", help="the station's TOML")
    place.add_argument("--state", type=Path, metavar="DIR", help="or its state directory, or a copy of it")
    about_confidence = "boxes from here on become labels (default: 0.25)"
    export.add_argument("--min-confidence", type=float, default=0.25, metavar="C", help=about_confidence)
    about_share = "so much of it is for validation, by unit (default: 0.2)"
    export.add_argument("--val-share", type=float, default=0.2, metavar="S", help=about_share)
    export.add_argument("--since", type=_day, default=None, metavar="YYYY-MM-DD", help="first day, UTC")
    export.add_argument("--until", type=_day, default=None, metavar="YYYY-MM-DD", help="last day, UTC")
    export.set_defaults(command=_export)


def _day(text: str) -> date:
    return date.fromisoformat(text)


def _export(options: argparse.Namespace) -> int:
    from defectd.evidence.collected import read_collected
    from defectd.evidence.dataset import export

    shares = {"--min-confidence": options.min_confidence, "--val-share": options.val_share}
    if wrong := [f"{key}: got {value}, expected 0 to 1" for key, value in shares.items() if not 0 <= value <= 1]:
        raise SettingsError(wrong)
    directory = _state(options) / "collected"
    pictures = read_collected(directory, options.since, options.until)
    if not pictures:
        raise StateError(f'{directory}: no pictures; expected some: set [evidence] collect = "needs_review" and wait')
    print(in_words(options.out, export(pictures, options.out, options.min_confidence, options.val_share)))
    return 0


def in_words(out: Path, exported: Exported) -> str:
    """One line: how many pictures, how many of which class."""
    labels = ", ".join(f"{name} {count}" for name, count in sorted(exported.labels.items())) or "none"
    return (
        f"{out}: {sum(exported.pictures.values())} picture(s), {exported.pictures['train']} train, "
        f"{exported.pictures['val']} val; {exported.needs_review} need review; labels: {labels}"
    )


def _state(options: argparse.Namespace) -> Path:
    if options.state is not None:
        return Path(options.state)
    from defectd.configuration import load_settings

    return load_settings(options.config).state.directory
