"""The pictures of decided units on their way to disk: evidence that events wait for, and what is collected to train
with. Used from the loop's thread only."""

from __future__ import annotations

from collections import Counter
from typing import Callable, Sequence

from defectd.clock import NS_PER_MS
from defectd.evidence.keeper import EvidenceKeeper
from defectd.inspection.events import Image, InspectionEvent
from defectd.unit import Unit, View

_PICTURES_TAKE_NS = 1000 * NS_PER_MS  # at most, for their hashes; a 12 MP frame takes a third of a second


class Keeping:
    """Of one line. Nobody may take long over a picture: the slots of the frame ring are few."""

    def __init__(self, keeper: EvidenceKeeper | None, counts: Counter[str], sheds: Callable[[], bool]) -> None:
        """*sheds*: the machine is too hot for pictures with boxes, and for training data."""
        self._keeper, self._counts, self._sheds = keeper, counts, sheds
        self._awaited: dict[str, tuple[Unit, View]] = {}

    def keep(self, unit: Unit, event: InspectionEvent, now_ns: int, *, is_evidence: bool) -> None:
        """The verdict is out: ask for what is worth keeping. The event of evidence waits for its hashes."""
        if self._keeper is None:
            return
        for view in sorted(unit.views, key=_shows_nothing):  # there is not always room for all of them
            if view.lease is not None:
                name = event.id if not event.views else f"{event.id}+{view.name.replace('#', '+')}"
                if is_evidence and self._ask(self._keeper, name, event, view):
                    unit.pictures_by_ns = now_ns + _PICTURES_TAKE_NS
                self._collect(self._keeper, name, event, view)

    def arrived(self, job_id: str, images: Sequence[Image]) -> None:
        """The pictures of one view are on disk, or will not be. Ignored if the event has gone without them."""
        unit, view = self._awaited.pop(job_id, (None, None))
        if unit is None or view is None:
            return
        assert unit.event is not None
        if unit.event.views:
            images = [image.model_copy(update={"camera": view.name}) for image in images]
        unit.event = unit.event.model_copy(update={"images": [*unit.event.images, *images]})
        if not any(other is unit for other, _ in self._awaited.values()):
            unit.pictures_by_ns = None
        self._counts["evidence" if images else "evidence_missed"] += 1

    def give_up(self, now_ns: int | None = None) -> None:
        """Events do not wait for ever; without *now_ns*, not at all."""
        for job_id, (unit, _) in list(self._awaited.items()):
            if now_ns is None or (unit.pictures_by_ns is not None and now_ns >= unit.pictures_by_ns):
                self.arrived(job_id, ())

    def _ask(self, keeper: EvidenceKeeper, name: str, event: InspectionEvent, view: View) -> bool:
        """False if its pictures are not kept, which is counted."""
        assert view.lease is not None
        shown = [] if self._sheds() or view.judgement is None else view.judgement.defects
        if not keeper.keep(name, event.started_at.date().isoformat(), view.lease, shown):
            self._counts["evidence_missed"] += 1
            return False
        self._awaited[name] = view.unit, view
        return True

    def _collect(self, keeper: EvidenceKeeper, name: str, event: InspectionEvent, view: View) -> None:
        if view.lease is None or view.judgement is None or view.answer is None or self._sheds():
            return
        if not keeper.collect(name, event, view.number, view.judgement, view.answer, view.lease):
            self._counts["collect_missed"] += 1


def _shows_nothing(view: View) -> bool:
    return view.judgement is None or not (view.judgement.defects or view.judgement.error)
