"""One real inference before READY, by the way that units take: a grey frame in a slot of the first camera's ring."""

from __future__ import annotations

from defectd.camera.feed import CameraFeed
from defectd.engine.server import EngineServer
from defectd.inspection.frame import Frame

_SIDE_PX = 64
_GREY = 114


class Probe:
    """At most one at a time."""

    def __init__(self, feed: CameraFeed) -> None:
        self._feed = feed
        self._slot: int | None = None

    def send(self, engine: EngineServer) -> None:
        """Ask *engine*; its answer comes as that to any unit."""
        self._slot = slot = self._feed.lend()
        assert slot is not None, "no camera runs yet, so every slot is free"
        ring = self._feed.ring
        ring.begin_write(slot)
        ring.pixels(slot, _SIDE_PX, _SIDE_PX).fill(_GREY)
        engine.infer(self._feed.index, Frame(slot, ring.end_write(slot), _SIDE_PX, _SIDE_PX, None))

    def give_back(self) -> None:
        """It was answered, or nobody will."""
        if self._slot is not None:
            self._feed.give_back(self._slot)
            self._slot = None
