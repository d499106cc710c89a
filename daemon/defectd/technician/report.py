"""What is said in the end, and in between to a log: tables and sentences. PURE; screen.py puts them on a terminal."""

from __future__ import annotations

import re
from collections import Counter
from typing import Iterator, Mapping, NamedTuple, Sequence

from defectd.technician.places import tersely
from defectd.technician.standing import Kind, Standing, View, doing, explained, waiting, words

STYLES = {
    Kind.UNSENT: "dim",
    Kind.SENT: "yellow",
    Kind.WORKING: "cyan",
    Kind.WAITING: "yellow",
    Kind.DONE: "green",
    Kind.REJECTED: "bold red",
    Kind.FAILED: "bold red",
    Kind.SILENT: "bold magenta",
}
_BAD = (Kind.REJECTED, Kind.FAILED, Kind.SILENT)
_ENDED_BADLY = ("failed", "rolled_back", "rejected")


class Row(NamedTuple):
    """One station on a table: cells, and a style for the first two."""

    style: str
    cells: tuple[str, ...]


class Table(NamedTuple):
    """Short cells in columns, and below them what is too long for a cell: (station, text)."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        """Aligned, for a log."""
        every = [self.header, *(row.cells for row in self.rows)]
        widths = [max(len(row[column]) for row in every) for column in range(len(self.header))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in every]
        return [*table, *(f"{station}: {text}" for station, text in self.notes)]


def outcome(standings: Mapping[str, Standing], views: Mapping[str, View]) -> Table:
    """How it ended at each station that was asked, which model serves there now, and why."""
    names = tersely(list(standings))
    asked = {station: one for station, one in standings.items() if one.kind is not Kind.UNSENT}
    rows = [
        Row(STYLES[one.kind], (names[station], ended(one), str(views.get(station, View()).serves or "?")))
        for station, one in asked.items()
    ]
    notes = [(names[station], one.detail) for station, one in asked.items() if one.detail]
    return Table(("station", "outcome", "serves now"), tuple(rows), tuple(notes))


def ended(one: Standing) -> str:
    """What it is doing or did; with the code of a failure."""
    return f"{one.doing} ({one.code})" if one.code and one.kind in _BAD else one.doing


def sentence(standings: Mapping[str, Standing], done: str) -> str:
    """`committed on 3 of 5 stations; 1 failed, 1 not sent`; *done* is what success is called."""
    counts = Counter(one.kind for one in standings.values())
    others = [f"{counts[kind]} {kind.value}" for kind in Kind if counts[kind] and kind is not Kind.DONE]
    if len(standings) == 1:
        (station,) = standings
        return f"{f'not {done}' if others else done} on {station}"
    if not others:
        return f"{done} on all {len(standings)} stations"
    return f"{done} on {counts[Kind.DONE]} of {len(standings)} stations; {', '.join(others)}"


def alarm(name: str, now: Standing, before: Standing | None) -> str:
    """A line for the moment when a station is lost for this command; else empty."""
    if now.kind not in _BAD or (before is not None and before.kind is now.kind):
        return ""
    return f"!! {name}: {ended(now)}{f': {now.detail}' if now.detail else ''}"


def change(name: str, now: Standing, before: Standing | None) -> str:
    """A line for a log when a station does something else than before, or is a quarter further; else empty."""
    if before is not None and _gist(now) == _gist(before):
        return ""
    shown = f": {now.detail}" if now.detail and now.kind is not Kind.WORKING else ""
    return alarm(name, now, before) or f"   {name}: {now.doing}{shown}"


def _gist(one: Standing) -> tuple[object, ...]:
    """What must change to be news: a few percent are none."""
    number = re.search(r" (\d+) %$", one.doing)
    quarter = int(number.group(1)) // 25 if number else 0
    return one.kind, one.doing[: number.start()] if number else one.doing, quarter


def overview(views: Mapping[str, View], stations: Sequence[str]) -> Table:
    """All that `status` says: what serves, what is going on, what it waits for, what went wrong last."""
    names, rows, notes = tersely(stations), [], []
    for station in stations:
        view = views[station]
        rows.append(Row(_style_of(view), (names[station], _there(view), str(view.serves or "none"), _work(view))))
        notes += [(names[station], trouble) for trouble in _troubles(view)]
    return Table(("station", "state", "serves", "rollout"), tuple(rows), tuple(notes))


def hints(views: Mapping[str, View], stations: Sequence[str]) -> list[str]:
    """What a person can do about what they see."""
    rollouts = [view.reported.rollout for name in stations if (view := views[name]).reported]
    under_way = [one for one in rollouts if one and not one.finished]
    waiting_for_us = {one.request_id for one in under_way if one.waits_for == "approve"}
    others = {one.request_id for one in under_way} - waiting_for_us
    return [
        *(f"to let it go on: defectd rollout approve {one} --key OPS.KEY" for one in sorted(waiting_for_us)),
        *(f"to end it: defectd rollout cancel {one} --key OPS.KEY" for one in sorted(others)),
    ]


def _there(view: View) -> str:
    if view.away:
        return "offline"
    return view.status.condition if view.status else "unknown"


def _style_of(view: View) -> str:
    rollout = view.reported.rollout if view.reported else None
    if view.away or view.status is None:
        return "bold magenta"
    if rollout is None or (rollout.finished and rollout.state not in _ENDED_BADLY):
        return "green"
    return "bold red" if rollout.finished else "yellow" if waiting(rollout) else "cyan"


def _work(view: View) -> str:
    rollout = view.reported.rollout if view.reported else None
    if rollout is None:
        return "none yet"
    said, percent = doing(rollout, view.progress)
    number = "" if percent is None or rollout.finished else f" {percent:.0f} %"
    return f"{f'{rollout.target}: ' if rollout.target else ''}{waiting(rollout) or said + number}"


def _troubles(view: View) -> Iterator[str]:
    if view.away:
        yield f"offline: {view.away}"
    if view.reported is None:
        return
    rollout, answer = view.reported.rollout, view.reported.answer
    if rollout is not None and rollout.state in _ENDED_BADLY:
        yield f"{words(rollout.state)} ({rollout.code}): {rollout.detail}"
    if answer is not None and not answer.accepted:
        yield f"refused its last command ({answer.code}): {explained(answer)}"
