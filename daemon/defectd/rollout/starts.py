"""How often this station has started in vain, and which model it starts with then: a bad one must not stop the line
for ever.

A start is counted before anything is loaded, and forgotten when the station has inspected for a while or is stopped.
The wall clock only says whether a start belongs to the one before it: it may step, and without a battery begins in 1970
at every boot. A start that is more than ten minutes away from the one before, in the past or the future, begins the
count anew: a step of the clock costs the starts counted so far, once. So does another current model.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Mapping

from defectd.models.catalog import Catalog, Change, Pointer
from defectd.rollout.ledger import put_in_quarantine

TOLERATED_STARTS = 3
WITHIN_S = 600
GOOD_AFTER_S = 30
"""Of inspecting: then `start_is_good` is called."""
BOOT_LOOP = "boot_loop"


@dataclass(frozen=True)
class Starts:
    """`bad` starts in a row with `manifest` as the current model, the last of them at `last_at` (epoch, seconds, of
    the wall clock); `clean` if the last process was stopped, in which case there are none."""

    manifest: str | None = None
    bad: int = 0
    last_at: int = 0
    clean: bool = False

    def known_at(self, now_s: int, served: str | None) -> Starts:
        """What of it still counts when *served* is the current model."""
        counts = self.manifest == served and abs(now_s - self.last_at) <= WITHIN_S
        return self if self.clean or counts else Starts()


@dataclass(frozen=True)
class StartDecision:
    """`pointer` is what `current` was set to, or `current` itself if it stays. `detail` tells a person of a change,
    and `quarantined` is the manifest of what served before it."""

    pointer: Pointer
    bad_starts: int
    after_clean_stop: bool
    quarantined: str | None = None
    detail: str = ""


def decide(starts: Starts, pointers: Mapping[Pointer, str]) -> Pointer:
    """Which of *pointers* to start with after these *starts*: `current`, unless it failed thrice and `previous`, or
    else `factory`, names another release."""
    served = pointers.get("current")
    if served is None or starts.bad < TOLERATED_STARTS:
        return "current"
    others: tuple[Pointer, ...] = ("previous", "factory")
    return next((name for name in others if pointers.get(name, served) != served), "current")


def begin_start(store: Catalog, now: datetime) -> StartDecision:
    """Count this start, and set `current` to what shall serve; what it falls back from is put into quarantine. Durable
    on return. Call `Ledger.resume` right afterwards: `after_clean_stop` is told only once. Raises StateError."""
    now_s = int(now.timestamp())
    with store.transaction() as change:
        pointers = store.pointers()
        served = pointers.get("current")
        starts = _read(change).known_at(now_s, served)
        pointer = decide(starts, pointers)
        if pointer == "current" or served is None:
            _keep(change, Starts(served, starts.bad + 1, now_s))
            return StartDecision(pointer, starts.bad, starts.clean)
        detail = (
            f"the station started {starts.bad} times in a row without inspecting for {GOOD_AFTER_S} s, so it serves "
            f"the {pointer} model and refuses the one before; its log of that time says why; fix the model and "
            "release it anew"
        )
        put_in_quarantine(change, served, BOOT_LOOP, detail)
        change.point("current", pointers[pointer])
        change.point("previous", None)  # it serves now, or is the bad one
        _keep(change, Starts(pointers[pointer], 1, now_s))
    return StartDecision(pointer, starts.bad, starts.clean, served, detail)


def start_is_good(store: Catalog) -> None:
    """The station has inspected for a while: earlier starts do not count any more."""
    with store.transaction() as change:
        _keep(change, Starts())


def clean_stop(store: Catalog) -> None:
    """The station is stopped on purpose, or cannot start for a reason that no model is to blame for."""
    with store.transaction() as change:
        _keep(change, Starts(clean=True))


def _read(change: Change) -> Starts:
    row = change.execute("SELECT manifest_sha256, bad, last_at, clean FROM starts").fetchone()
    return Starts() if row is None else Starts(row[0], row[1], row[2], bool(row[3]))


def _keep(change: Change, starts: Starts) -> None:
    change.execute(
        "INSERT OR REPLACE INTO starts VALUES (1, ?, ?, ?, ?)",
        (starts.manifest, starts.bad, starts.last_at, int(starts.clean)),
    )
