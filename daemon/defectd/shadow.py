"""The shadow: a staged candidate judges what the serving engine has judged, when that one has nothing to do.

One unit at a time; a newer unit takes the place of one that still waits, so the line never waits for the shadow. Used
from the loop's thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from defectd.camera.feed import CameraFeed, SlotLease
from defectd.engine.server import EngineServer
from defectd.engine.serving import Engines
from defectd.inspection.recipe import Recipe
from defectd.inspection.shadow import ShadowUnit
from defectd.inspection.verdict import Judgement, judge, refuse
from defectd.workers.process import Died, cause_of_death
from defectd.workers.protocol import Inferred, Refused


@dataclass(frozen=True)
class _Seen:
    """A unit that the serving engine has judged; its slot is held."""

    feed: CameraFeed
    lease: SlotLease
    served: Judgement
    served_inference_ms: float


class Shadow:
    """Holds at most two slots: of the unit that the candidate looks at, and of the next one."""

    def __init__(
        self,
        engines: Engines,
        recipe: Recipe,
        on_unit: Callable[[ShadowUnit], None],
        sheds: Callable[[], bool] = lambda: False,
    ) -> None:
        """*sheds*: the machine is too hot for what is not needed."""
        self._engines, self._recipe, self._on_unit, self._sheds = engines, recipe, on_unit, sheds
        self._next: _Seen | None = None
        self._looking: tuple[EngineServer, _Seen] | None = None

    def judged(self, feed: CameraFeed, lease: SlotLease, served: Judgement, served_inference_ms: float) -> None:
        """The serving engine has judged this unit."""
        if self._engines.shadow is not None and not self._sheds():
            lease.hold()
            self._replace_next(_Seen(feed, lease, served, served_inference_ms))

    def feed(self) -> None:
        """The serving engine is idle: the candidate may look at the newest unit."""
        shadow = self._engines.shadow
        if shadow is None:
            self._replace_next(None)
        if self._looking is not None:
            server, seen = self._looking
            if server is not shadow and server.worker.gone:  # until then it may write to the slot
                self._looking = None
                seen.lease.release()
        elif shadow is not None and shadow.free and self._next is not None:
            seen, self._next = self._next, None
            self._looking = shadow, seen
            shadow.infer(seen.feed.index, seen.lease.frame)  # if it has just died, that is heard next

    def hear(self) -> None:
        """Its answers. A unit on which it died counts as its error."""
        for sender, record in self._engines.shadow_news():
            if self._looking is None or self._looking[0] is not sender:
                continue
            server, seen = self._looking
            if isinstance(record, Inferred):
                detections = seen.feed.ring.read_detections(seen.lease.frame.slot, record.count)
                judgement = judge(detections, self._recipe, server.names, seen.feed.name)
                self._done(seen, judgement, record.timings.inference_ms)
            elif isinstance(record, Refused):
                self._done(seen, refuse(record.reason, record.detail))
            elif isinstance(record, Died):
                self._done(seen, refuse("engine_failed", cause_of_death(record)))

    def _done(self, seen: _Seen, shadow: Judgement, inference_ms: float | None = None) -> None:
        self._looking = None
        seen.lease.release()
        both_failed = seen.served.verdict == shadow.verdict == "failed"
        self._on_unit(
            ShadowUnit(
                seen.served.verdict, shadow.verdict, seen.served_inference_ms, inference_ms,
                detail=f"{shadow.error}: {shadow.error_detail}" if shadow.error else "",
                same_codes=not both_failed or _codes(seen.served) == _codes(shadow),
            )
        )  # fmt: skip

    def _replace_next(self, seen: _Seen | None) -> None:
        if self._next is not None:
            self._next.lease.release()
        self._next = seen


def _codes(judgement: Judgement) -> set[str]:
    return {defect.code for defect in judgement.defects}
