"""From a command to what became of it: sent, followed, told. One wave after the other, as long as it goes well."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Callable, Mapping, NamedTuple, Sequence

from defectd.clock import utc_now
from defectd.errors import StartupError
from defectd.models.signing import Signer
from defectd.rollout.command import Audience
from defectd.technician import report
from defectd.technician.fleet import Fleet, NoRollout
from defectd.technician.order import Chosen, Order, signed
from defectd.technician.places import audience, some, tersely, waves
from defectd.technician.screen import Screen
from defectd.technician.session import Session
from defectd.technician.standing import Asked, Kind, Standing, stand, worst

EXIT_DONE, EXIT_FAILED, EXIT_REJECTED, EXIT_SILENT, EXIT_INTERRUPTED = 0, 5, 6, 7, 130
_EXITS = {Kind.DONE: EXIT_DONE, Kind.FAILED: EXIT_FAILED, Kind.REJECTED: EXIT_REJECTED}
_REFRESH_S = 0.25


class Waves(NamedTuple):
    """How a rollout spreads: sizes as in `places.waves`; one that ends with more failures is the last one."""

    sizes: str = "100%"
    max_failures: int = 0


@dataclass(frozen=True)
class Terms:
    """How commands are signed, how long they are good, and how long their effect is waited for."""

    signers: Sequence[Signer]
    lives_s: int
    wait: bool = True
    timeout_s: float = 8 * 3600.0


class Campaign:
    """One command to some stations, over an open session."""

    def __init__(self, session: Session, fleet: Fleet, screen: Screen, terms: Terms) -> None:
        self._session, self._fleet, self._screen, self._terms = session, fleet, screen, terms
        self._asked: dict[str, Asked] = {}
        self._settled: dict[str, Standing] = {}

    def roll_out(self, order: Order, chosen: Chosen, place: Audience, spread: Waves) -> int:
        """Send *order* to *place*, wave by wave, and follow it. Returns the exit code."""
        stations = self._fleet.find(place)
        self._settled = {name: Standing(Kind.DONE, "had it already") for name in stations if self._has(name, chosen)}
        parts = waves(spread.sizes, [name for name in stations if name not in self._settled])
        self._asked = {name: Asked(order.request_id, order.action) for name in stations}
        model = f"{chosen.manifest.name} {chosen.manifest.version}"
        many = f"{len(stations)} stations of " if len(stations) > 1 else ""
        self._screen.say(f"request {order.request_id}: {model} to {many}{place.kind} {place.value}")
        try:
            self._spread(order, place, parts, model, spread.max_failures)
        except KeyboardInterrupt:
            return self._left(order)
        return self._conclude("committed", model)

    def tell(self, orders: Mapping[str, tuple[Order, Asked]], done: str, title: str) -> int:
        """Send each station its own command, and wait for the effect. Returns the exit code."""
        self._screen.title = title
        self._asked = {name: asked for name, (_, asked) in orders.items()}
        try:
            for station, (order, _) in orders.items():
                self._send([station], order, audience("station", station))
            self._follow(list(orders))
        except KeyboardInterrupt:
            return self._left(next(iter(orders.values()))[0])
        return self._conclude(done, title)

    # -- steps -------------------------------------------------------------------------------------------------------

    def _spread(
        self, order: Order, place: Audience, parts: Sequence[Sequence[str]], model: str, max_failures: int
    ) -> None:
        for number, wave in enumerate(parts, 1):
            self._screen.title = f"{model}, wave {number} of {len(parts)}" if len(parts) > 1 else model
            if len(parts) > 1:
                self._screen.say(f"wave {number} of {len(parts)}: {self._some(wave)}")
            self._send(wave, order, place)
            self._follow(wave)
            failures = sum(one.kind is not Kind.DONE for one in self._standings(self._sent()).values())
            if number < len(parts) and failures > max_failures:
                self._screen.say(
                    f"stopped after wave {number}: {failures} not committed, --max-failures is {max_failures}",
                    "bold red",
                )
                return

    def _has(self, station: str, chosen: Chosen) -> bool:
        reported = self._fleet.view(station).reported
        if reported is None or reported.current is None or (reported.rollout and not reported.rollout.finished):
            return False
        return reported.current.manifest_sha256 == chosen.target.manifest_sha256

    def _send(self, stations: Sequence[str], order: Order, place: Audience) -> None:
        """The same command to all of *stations*, signed now. Raises StartupError, which says who has it already."""
        self._fleet.take(self._session.hear(0.0))
        terms, seq = self._terms, self._fleet.next_seq(stations)
        envelope = signed(order, place, seq, terms.lives_s, utc_now(), terms.signers)
        for station in stations:
            reported, sent = self._fleet.view(station).reported, self._sent()
            before = reported.answer if reported else None
            self._asked[station] = replace(self._asked[station], sent_s=time.monotonic(), answered=before)
            try:
                self._session.command(station, envelope, terms.lives_s)
            except StartupError as error:
                others = f". Sent already, and going on: {some(sent)}" if sent else ""
                raise StartupError(f"{error}{others}") from error

    def _follow(self, stations: Sequence[str]) -> None:
        """Until all have settled, or time is up."""
        if not self._terms.wait:
            return
        ends_s = time.monotonic() + self._terms.timeout_s
        with self._screen:
            while time.monotonic() < ends_s:
                link = self._session.link
                self._screen.note = "" if link.connected else f"broker away ({link.detail}); stations go on"
                self._screen.show(self._standings(list(self._asked)))
                if all(one.kind.settled for one in self._standings(stations).values()):
                    return
                self._fleet.take(self._session.hear(_REFRESH_S))
        self._screen.say(f"stopped watching: {self._terms.timeout_s:.0f} s are over (--timeout); the stations go on")

    def _standings(self, stations: Sequence[str]) -> dict[str, Standing]:
        now_s = time.monotonic()
        return {name: self._settled.get(name) or stand(self._fleet.view(name), self._asked[name], now_s)
                for name in stations}  # fmt: skip

    def _sent(self) -> list[str]:
        return [name for name, asked in self._asked.items() if asked.sent_s is not None]

    # -- the end -----------------------------------------------------------------------------------------------------

    def _conclude(self, done: str, title: str) -> int:
        standings = self._standings(list(self._asked))
        if not self._terms.wait:
            self._screen.say(f"the broker has it for {_count(self._sent())}; see: defectd rollout status")
            return EXIT_DONE
        kind = worst(one for one in standings.values() if one.kind is not Kind.UNSENT)
        self._screen.say(f"{title}: {report.sentence(standings, done)}", "bold green" if kind is Kind.DONE else "bold")
        self._screen.table(report.outcome(standings, self._fleet.views))
        self._tell_unsent(standings)
        self._take_back([name for name, one in standings.items() if one.kind is Kind.REJECTED])
        if kind not in _EXITS:
            self._screen.say("what was sent stays at the broker for them; later: defectd rollout status")
        return _EXITS.get(kind, EXIT_SILENT)

    def _take_back(self, refused: Sequence[str]) -> None:
        for station in refused:
            self._session.take_back(station)
        if refused:
            self._screen.say(f"taken back, so that it does not begin some other day: {self._some(refused)}")

    def _left(self, order: Order) -> int:
        standings = self._standings(list(self._asked))
        self._screen.table(report.outcome(standings, self._fleet.views))
        self._tell_unsent(standings)
        self._screen.say("no longer watching: what was sent goes on at the stations; see: defectd rollout status")
        if order.action == "deploy":
            self._screen.say(f"to stop it there: defectd rollout cancel {order.request_id} --key OPS.KEY")
        return EXIT_INTERRUPTED

    def _some(self, stations: Sequence[str]) -> str:
        names = tersely(list(self._asked))
        return some([names[station] for station in stations])

    def _tell_unsent(self, standings: Mapping[str, Standing]) -> None:
        unsent = [name for name, one in standings.items() if one.kind is Kind.UNSENT]
        if unsent:
            self._screen.say(f"not sent, and not going to be: {self._some(unsent)}", "bold yellow")


def ask(
    fleet: Fleet, stations: Sequence[str], make: Callable[[str | None], Order], *, needs_rollout: bool
) -> dict[str, tuple[Order, Asked]]:
    """An order for each station, made from the rollout that it speaks of there; stations that have none to speak of
    are left out if *needs_rollout*. Raises NoRollout if that leaves nobody."""
    orders = {}
    for name in stations:
        reported = fleet.view(name).reported
        rollout = reported.rollout if reported else None
        running = rollout is not None and not rollout.finished
        if needs_rollout and not running:
            continue
        speaks_of = rollout.request_id if rollout is not None and (running or rollout.successful) else None
        order = make(speaks_of)
        orders[name] = (order, Asked(order.request_id, order.action, order.of if running else None))
    if not orders:
        raise NoRollout("no rollout is going on there; see `defectd rollout status`")
    return orders


def _count(stations: Sequence[str]) -> str:
    return stations[0] if len(stations) == 1 else f"{len(stations)} stations"
