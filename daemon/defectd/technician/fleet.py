"""What has been heard of the stations, and who of them is meant."""

from __future__ import annotations

import time
from typing import Iterable

from defectd.errors import DefectdError, StartupError
from defectd.rollout.command import Audience
from defectd.technician.places import holds, members, some
from defectd.technician.standing import View
from defectd.technician.wire import Message, Rollout

MOST_SEQ = 10**9
"""Nobody has sent so many commands. A station (or somebody in its name) that says so must not make us sign the next
number: whoever signs the highest one there is ends all commands."""


class NoStation(DefectdError):
    """Nobody answers from there."""


class NoRollout(DefectdError):
    """Stations are there, but not what a command was to speak of."""


class Fleet:
    """Station (`site/area/line/station`) -> what it said."""

    def __init__(self, heard: Iterable[tuple[str, Message]] = ()) -> None:
        self.views: dict[str, View] = {}
        self.take(heard)

    def take(self, heard: Iterable[tuple[str, Message]]) -> None:
        """Note what was said."""
        for station, message in heard:
            self.views[station] = self.view(station).after(message, time.monotonic())

    def view(self, station: str) -> View:
        """What is known of it; nothing, perhaps."""
        return self.views.get(station, View())

    def find(self, place: Audience | None) -> list[str]:
        """The stations of *place* that take commands, by name; None means all. Raises NoStation."""
        found = members(place, {name: view.reported for name, view in self.views.items() if view.reported})
        if found:
            return found
        others = [name for name in self.views if place is None or holds(place, name, ())]
        if others:
            raise NoStation(
                f"{some(sorted(others))}: on this broker, but taking no model commands; "
                "expected a [[rollout.source]] in the configuration there"
            )
        raise NoStation(
            f"no answer from {place.kind} {place.value} on this broker; check the name"
            if place
            else "no station answers on this broker; check --host, and that the stations are connected to it"
        )

    def with_request(self, request_id: str) -> dict[str, Rollout]:
        """Station -> its rollout of that id, or of the one id that begins so. Raises NoRollout."""
        rollouts = {name: view.reported.rollout for name, view in self.views.items()
                    if view.reported and view.reported.rollout}  # fmt: skip
        matching = sorted({one.request_id for one in rollouts.values() if one.request_id.startswith(request_id)})
        if len(matching) != 1 and request_id not in matching:
            raise NoRollout(
                f"request {request_id}: expected one of {', '.join(matching)}"
                if matching
                else f"request {request_id}: no station's last rollout is called so; see `defectd rollout status`"
            )
        chosen = request_id if request_id in matching else matching[0]
        return {name: one for name, one in sorted(rollouts.items()) if one.request_id == chosen}

    def check_undoable(self, stations: Iterable[str]) -> None:
        """A rollout that failed has changed nothing, so that a rollback of it would undo another one. Raises
        NoRollout."""
        for name in stations:
            reported = self.view(name).reported
            rollout = reported.rollout if reported else None
            if reported and rollout and rollout.finished and not rollout.successful:
                raise NoRollout(
                    f"{name}: request {rollout.request_id} changed nothing ({rollout.state.replace('_', ' ')}): there "
                    f"is nothing to undo. To go from {reported.current or 'what serves'} to "
                    f"{reported.previous or 'the model before'}, leave the REQUEST_ID out"
                )

    def next_seq(self, stations: Iterable[str]) -> int:
        """What all of *stations* take as newer than anything before. Raises StartupError."""
        floors = {name: view.reported.floor_command_seq for name in stations if (view := self.view(name)).reported}
        name = max(floors, key=lambda one: floors[one])
        if floors[name] >= MOST_SEQ:
            raise StartupError(
                f"{name}: says that it has had command number {floors[name]}; that cannot be. "
                "Somebody else may write its topics: check the broker's ACL"
            )
        return floors[name] + 1
