"""Which stations are meant, and in which order they come. PURE."""

from __future__ import annotations

import itertools
import re
from typing import Mapping, Sequence

from pydantic import ValidationError

from defectd.errors import SettingsError
from defectd.rollout.command import Audience, AudienceKind
from defectd.technician.wire import Reported


def audience(kind: AudienceKind, value: str) -> Audience:
    """Whom a command is for, as a technician typed it. Raises SettingsError."""
    try:
        return Audience(kind=kind, value=value.strip("/"))
    except ValidationError as error:
        expected = error.errors()[0]["msg"].split("value: ")[-1]
        raise SettingsError([f"--{kind}: got {value!r}, {expected}"]) from None


def topic_levels(place: Audience | None) -> str:
    """The four levels of a topic filter that hears all of them; of a group, every station there is."""
    levels = [] if place is None or place.kind == "group" else place.value.split("/")
    return "/".join([*levels, *["+"] * (4 - len(levels))])


def holds(place: Audience, station: str, groups: Sequence[str]) -> bool:
    """Whether *station* (`site/area/line/station`) is meant."""
    return place.value in groups if place.kind == "group" else f"{station}/".startswith(f"{place.value}/")


def members(place: Audience | None, reported: Mapping[str, Reported]) -> list[str]:
    """The stations of *place*, by name, aoi2 before aoi10; None means all."""
    found = [name for name, one in reported.items() if place is None or holds(place, name, one.groups)]
    return sorted(found, key=_counted)


def waves(text: str, stations: Sequence[str]) -> list[list[str]]:
    """Split *stations* as *text* says: "1,10%,100%" is one, then a tenth of all of them, then all of them.

    Each number is how many have it when the wave is over; a wave in which no more would have it is left out. Raises
    SettingsError.
    """
    sizes = [_size(word.strip(), len(stations), text) for word in text.split(",")]
    if sizes[-1] < len(stations):
        raise SettingsError([
            f"--waves: got {text!r}, which ends at {sizes[-1]} of {len(stations)} stations; expected 100% as the last"
        ])  # fmt: skip
    parts, done = [], 0
    for size in sizes:
        if size > done:
            parts.append(list(stations[done:size]))
            done = size
    return parts


def _size(word: str, count: int, text: str) -> int:
    """So many stations by then; a share is of at least one."""
    found = re.fullmatch(r"(\d{1,6})(%?)", word)
    number = int(found.group(1)) if found else 0
    if not found or number < 1 or (found.group(2) and number > 100):
        raise SettingsError([f"--waves: got {text!r}, expected numbers and percentages like 1,10%,100%"])
    return min(count, -(-count * number // 100) if found.group(2) else number)


def tersely(stations: Sequence[str]) -> dict[str, str]:
    """Each name without the levels that all have in common, so that a table is not wider than it must be."""
    common = len(_in_common(stations))
    return {name: "/".join(name.split("/")[common:]) for name in stations}


def shared(stations: Sequence[str]) -> str:
    """What `tersely` leaves out, and how many there are: `plant1/smt: 9 stations`."""
    if len(stations) == 1:
        return stations[0]
    return f"{'/'.join(_in_common(stations)) or 'all sites'}: {len(stations)} stations"


def some(stations: Sequence[str], most: int = 5) -> str:
    """A few of them, for a sentence."""
    more = f" and {len(stations) - most} more" if len(stations) > most else ""
    return ", ".join(stations[:most]) + more


def _counted(name: str) -> list[tuple[str, int]]:
    """Sorts as people count."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d{0,18})", name)]


def _in_common(stations: Sequence[str]) -> list[str]:
    """The levels above the station that begin all names."""
    levels = [name.split("/")[:-1] for name in stations]
    return [column[0] for column in itertools.takewhile(lambda one: len(set(one)) == 1, zip(*levels))]
