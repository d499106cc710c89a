"""Whether pictures are fit to be judged: their focus, their light, and whether they look as they used to.

Pure: `measuring` looks at the pixels. A fault begins after some unfit pictures in a row, and ends after as many fit
ones.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Callable

log = logging.getLogger(__name__)

FAULTS = ("image_black", "image_blurred", "image_overexposed", "image_dark", "image_drifted")
CLIPPED, DARK = 250, 16  # of 255: a pixel is clipped from the one on, and dark below the other
_BLACK_SHARE = 0.999
_LEARNED_FROM = 16

Say = Callable[[str, str, str], None]
"""(code, "begin" or "end", detail)"""


@dataclass(frozen=True)
class Measures:
    """Of one picture. `focus` is the variance of the Laplacian of the grey picture (Pech-Pacheco et al., 2000),
    shares are of all pixels, `mean` is 0..255."""

    focus: float
    clipped_share: float
    dark_share: float
    mean: float


@dataclass(frozen=True)
class Limits:
    """What a picture must keep to; None is not looked at. `reference_mean` is learned where it is None. With `reject`
    an unfit picture is not judged."""

    min_focus: float | None = None
    max_clipped_share: float | None = None
    max_dark_share: float | None = None
    max_mean_drift: float | None = None
    reference_mean: float | None = None
    black: bool = True
    after: int = 3
    reject: bool = False


def unfit(picture: Measures, limits: Limits, reference_mean: float | None) -> dict[str, str]:
    """What is wrong with *picture*, code to detail. A black one is only black: the rest follows from that."""
    if limits.black and picture.dark_share >= _BLACK_SHARE:
        return {"image_black": f"{picture.dark_share:.1%} of the pixels are darker than {DARK} of 255"}
    wrong: dict[str, str] = {}
    if limits.min_focus is not None and picture.focus < limits.min_focus:
        wrong["image_blurred"] = f"focus {picture.focus:.1f}, expected min_focus = {limits.min_focus:g} or more"
    if limits.max_clipped_share is not None and picture.clipped_share > limits.max_clipped_share:
        share = f"{picture.clipped_share:.1%} of the pixels are {CLIPPED} or brighter"
        wrong["image_overexposed"] = f"{share}, expected max_clipped_share = {limits.max_clipped_share:g} at most"
    if limits.max_dark_share is not None and picture.dark_share > limits.max_dark_share:
        share = f"{picture.dark_share:.1%} of the pixels are darker than {DARK}"
        wrong["image_dark"] = f"{share}, expected max_dark_share = {limits.max_dark_share:g} at most"
    if limits.max_mean_drift is not None and reference_mean is not None:
        drift = picture.mean - reference_mean
        if abs(drift) > limits.max_mean_drift:
            means = f"mean {picture.mean:.1f}, {drift:+.1f} from the reference {reference_mean:.1f}"
            wrong["image_drifted"] = f"{means}; expected max_mean_drift = {limits.max_mean_drift:g} at most"
    return wrong


class ImageHealth:
    """Follows one camera's pictures and says faults."""

    def __init__(self, limits: Limits, say: Say) -> None:
        self._limits, self._say = limits, say
        self._reference_mean = limits.reference_mean
        self._first: list[Measures] = []
        self._wrong_in_a_row = dict.fromkeys(FAULTS, 0)
        self._right_in_a_row = dict.fromkeys(FAULTS, 0)
        self._active: set[str] = set()

    def see(self, picture: Measures) -> str | None:
        """Take note of a picture; why it must not be judged, if that is so."""
        wrong = unfit(picture, self._limits, self._reference_mean)
        for code in FAULTS:
            self._count(code, wrong.get(code))
        if not wrong:
            self._learn(picture)
        return "; ".join(wrong.values()) if wrong and self._limits.reject else None

    def _count(self, code: str, detail: str | None) -> None:
        after = self._limits.after
        self._wrong_in_a_row[code] = 0 if detail is None else self._wrong_in_a_row[code] + 1
        self._right_in_a_row[code] = self._right_in_a_row[code] + 1 if detail is None else 0
        if detail is not None and code not in self._active and self._wrong_in_a_row[code] >= after:
            self._active.add(code)
            self._say(code, "begin", f"{after} pictures in a row: {detail}")
        elif code in self._active and self._right_in_a_row[code] >= after:
            self._active.remove(code)
            self._say(code, "end", f"{after} pictures in a row are within the limit")

    def _learn(self, picture: Measures) -> None:
        """The log tells a person what limits would suit."""
        if len(self._first) == _LEARNED_FROM:
            return
        self._first.append(picture)
        if len(self._first) < _LEARNED_FROM:
            return
        mean = sum(each.mean for each in self._first) / _LEARNED_FROM
        if self._reference_mean is None:
            self._reference_mean = mean
        log.info(
            "the first %d fit pictures: focus %.1f or more, clipped share up to %.4f, dark share up to %.4f, mean %.1f",
            _LEARNED_FROM,
            min(each.focus for each in self._first),
            max(each.clipped_share for each in self._first),
            max(each.dark_share for each in self._first),
            mean,
        )
