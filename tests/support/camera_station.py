"""A camera worker over a real ring, driven as the loop does it."""

from __future__ import annotations

import time

from defectd.camera.feed import CameraFeed, CameraPlan
from defectd.clock import monotonic_ns
from defectd.workers.process import Died
from defectd.workers.protocol import Framed, Kind, Missed, Named, Note, Triggered


class Station:
    """Drives one feed as the loop does and keeps what it hears; frames are copied and their slots returned."""

    def __init__(self, feed):
        self.feed, self.units, self.pictures, self.missed, self.faults, self.deaths = feed, {}, {}, {}, [], []
        self.names, self.details = {}, {}
        self.ended = False
        feed.start()

    def run(self, until, timeout_s=20.0):
        due = time.monotonic() + timeout_s
        while not until(self):
            assert time.monotonic() < due, f"units {sorted(self.units)}, missed {self.missed}, deaths {self.deaths}"
            for news in [*self.feed.receive(), *self.feed.tick(monotonic_ns())]:
                self.take(news)
            self.feed.grant(units_in_flight=0)
            time.sleep(0.002)
        return self

    def take(self, news):
        if isinstance(news, Triggered):
            assert news.number not in self.units, "a trigger number came twice"
            self.units[news.number] = news
        elif isinstance(news, Named):
            assert news.number not in self.pictures, "the name must come before the picture"
            self.names[news.number] = news.unit_id
        elif isinstance(news, Framed):
            frame = news.frame
            assert self.feed.ring.generation(frame.slot) == frame.generation
            self.pictures[news.number] = self.feed.ring.pixels(frame.slot, frame.height_px, frame.width_px).copy()
            self.feed.give_back(frame.slot)
        elif isinstance(news, Missed):
            self.missed[news.number], self.details[news.number] = news.reason, news.detail
        elif isinstance(news, Died):
            self.deaths.append(news)
        elif isinstance(news, Note) and news.kind is Kind.ENDED:
            self.ended = True
        elif isinstance(news, Note) and news.kind is Kind.FAULT:
            self.faults.append((news.body["code"], news.body["state"]))


def station(kind, first=1, next_trigger=None, stall_s=5.0, max_pixels=640 * 480, commanded=False, shot_s=1.0, **source):
    """A started station with one camera, configured by *source*."""
    plan = CameraPlan(
        name="top",
        kind=kind,
        mode="triggered",
        unit_id_source="file",
        simulated=True,
        patient=kind == "replay",
        frame_bytes=max_pixels * 3,
        stall_s=stall_s,
        first_trigger=first,
        next_trigger=first if next_trigger is None else next_trigger,
        source={"name": "top", "frozen_after": None, **source},
        commanded=commanded,
        shot_s=shot_s,
    )
    return Station(CameraFeed(plan, 0, "CRITICAL"))
