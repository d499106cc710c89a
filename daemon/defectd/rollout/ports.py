"""What a rollout needs of the rest of the house, and how it may end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Protocol, Sequence

from defectd.download.download import Limits
from defectd.download.fetching import Source
from defectd.engine.choice import Choice
from defectd.engine.selection import Say
from defectd.engine.server import EnginePlan
from defectd.faults import Faults
from defectd.inspection.rollout_wire import ModelProgress, RolloutEvent
from defectd.models.bundle import Bundle
from defectd.models.store import Store
from defectd.models.trust import Root
from defectd.rollout.admission import Place
from defectd.rollout.vitals import Vitals


class Failed(Exception):
    """The rollout cannot go on; *final* words for the technician. With *blame* the bundle is not tried again."""

    def __init__(self, code: str, detail: str, *, blame: bool = False) -> None:
        super().__init__(detail)
        self.code, self.detail, self.blame = code, detail, blame


class EndAsked(Exception):
    """A command ends this rollout."""


class Stopping(Exception):
    """The daemon stops: leave everything as it is on disk."""


class Planner(Protocol):
    """Knows one bundle on this device; see ModelPlanner."""

    @property
    def undecided(self) -> bool: ...
    def choose(self, say: Say, stop: Callable[[], bool]) -> Choice: ...
    def first_plans(self) -> list[EnginePlan]: ...
    def memory_mb(self, plan: EnginePlan) -> int: ...


class Staging(Protocol):
    """The engines, as far as a rollout may ask; see Engines."""

    def stage(self, plans: Sequence[EnginePlan], *, beside: bool = True) -> None: ...
    def promote(self) -> None: ...
    def settle(self) -> None: ...
    def revert(self, why: str) -> None: ...


@dataclass(frozen=True)
class Ports:
    """What a rollout needs of the rest of the house."""

    place: Place
    boot_id: str
    deadline_ms: float
    incoming: Path
    lost_marker: Path
    limits: Limits
    sources: Mapping[str, Callable[[], Source]]
    open_store: Callable[[], Store]
    root: Callable[[], Root]
    check_usable: Callable[[Bundle], None]
    planner: Callable[[Bundle, Store], Planner]
    engines: Staging
    faults: Faults
    busy: Callable[[], str]
    vitals: Callable[[], Vitals]
    record: Callable[[RolloutEvent], None]
    progress: Callable[[ModelProgress], None]
    changed: Callable[[], None]
