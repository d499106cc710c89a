"""Which pictures take part in an export: labelled ones for the precision, golden ones for the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from defectd.errors import ModelError
from defectd.export.checkpoint import Original
from defectd.export.dataset import labelled_pictures, spread
from defectd.export.options import ExportOptions
from defectd.export.pictures import Pixels, noise_pictures, pictures_in, read_picture
from defectd.export.precision import Truth
from defectd.export.progress import Progress, Say

_GOLDEN_PICTURES, _MOST_GOLDEN = 16, 900
_MOST_LABELLED = 500  # the comparison is paired: more pictures would take minutes per format, and tell the same


@dataclass(frozen=True)
class Labelled:
    """A picture's file and what is labelled in it."""

    path: Path
    truth: Truth


@dataclass(frozen=True)
class GoldenSource:
    """Where a golden picture comes from: a file, or noise."""

    source: Path | Pixels

    def pixels(self) -> Pixels:
        """(height, width, 3) BGR. Raises ModelError."""
        return read_picture(self.source) if isinstance(self.source, Path) else self.source


def choose_labelled(original: Original, options: ExportOptions, say: Say) -> list[Labelled]:
    """The labelled pictures of `options.data`, at most 500, every label read and checked. Raises ModelError."""
    if options.data is None:
        say("no labelled pictures (--data): mAP will not be measured")
        return []
    pictures = labelled_pictures(options.data, original.classes)
    used = spread(len(pictures), _MOST_LABELLED)
    say(f"{len(pictures)} labelled pictures" + (f", {len(used)} of them used" if len(used) < len(pictures) else ""))
    progress = Progress(say, "reading labels", len(used))
    chosen = []
    for index in used:
        picture = pictures[index]
        height, width = read_picture(picture.path).shape[:2]
        chosen.append(Labelled(picture.path, picture.boxes(len(original.classes), (height, width))))
        progress.step()
    return chosen


def choose_golden(
    original: Original, labelled: Sequence[Labelled], options: ExportOptions, say: Say
) -> list[GoldenSource]:
    """All pictures of `options.golden`; else up to 16 of the labelled ones; else noise. Raises ModelError."""
    files = [labelled[index].path for index in spread(len(labelled), _GOLDEN_PICTURES)]
    if options.golden is not None:
        if not options.golden.is_dir():
            raise ModelError(f"golden: {options.golden} is no folder; expected one with pictures")
        files = pictures_in(options.golden)
        if not 0 < len(files) <= _MOST_GOLDEN:
            raise ModelError(f"golden: {options.golden} has {len(files)} pictures; expected 1 to {_MOST_GOLDEN}")
    if files:
        say(f"{len(files)} golden pictures from {files[0].parent}")
        return [GoldenSource(file) for file in files]
    say(
        "WARNING: no golden pictures (--golden or --data), so four of noise are taken. They show that a station "
        "computes the same numbers, not that it finds your defects: give real ones before you rely on this bundle."
    )
    return [GoldenSource(picture) for picture in noise_pictures(original.input_hw)]
