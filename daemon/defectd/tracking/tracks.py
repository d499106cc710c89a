"""From the defects of single frames to defects that come and go. No clock, no I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from heapq import nlargest
from typing import Callable, Sequence

from defectd.clock import NS_PER_S
from defectd.inspection.events import Defect, new_id
from defectd.inspection.web_wire import Box
from defectd.tracking.motion import Speed, WebMotion, slip_px
from defectd.tracking.tracker import Tracker

MOST_DEFECTS = 50  # of a frame; the time that a tracker takes grows with the square of them
_JOINED_MOST = 300  # each is compared with each; more are findings without end, and would be joined by chance
_SAME_PLACE_IOU = 0.3
_FARTHEST_PX = 50_000.0  # the tracker counts in 32 bits: beyond this it would see steps of pixels


@dataclass(frozen=True)
class Rules:
    """A track is born with its `confirm_frames`th sighting, and has ended after `lost_frames` judged frames without."""

    confirm_frames: int = 2
    lost_frames: int = 5
    motion_px_per_s: Speed = (0.0, 0.0)


@dataclass(frozen=True)
class Seen:
    """One judged frame. `captured_ns` is CLOCK_MONOTONIC."""

    trigger: int
    captured_ns: int
    captured_at: datetime
    defects: tuple[Defect, ...]


@dataclass(frozen=True)
class Sighting:
    """A defect in one frame."""

    frame: Seen
    defect: Defect


@dataclass
class Track:
    """One defect of the web, as far as it is known."""

    first: Sighting
    last: Sighting
    best: Sighting
    id: str = field(default_factory=new_id)
    frames: int = 0
    missed: int = 0
    is_born: bool = False
    codes: Counter[str] = field(default_factory=Counter)
    best_of: dict[str, Sighting] = field(default_factory=dict)

    def sighted(self, sighting: Sighting) -> None:
        """It was there once more."""
        self.last, self.missed = sighting, 0
        self.frames += 1
        code = sighting.defect.code
        self.codes[code] += 1
        self.best = _better(self.best, sighting)
        self.best_of[code] = _better(self.best_of.get(code, sighting), sighting)

    def went_on_as(self, later: Track) -> None:
        """Now that the speed of the web is known, *later* is seen to be the same defect."""
        if later.is_born:
            self.id, self.is_born = later.id, True
        self.last, self.missed = later.last, later.missed
        self.frames += later.frames
        self.codes.update(later.codes)
        self.best = _better(self.best, later.best)
        for code, sighting in later.best_of.items():
            self.best_of[code] = _better(self.best_of.get(code, sighting), sighting)

    @property
    def named_by(self) -> Defect:
        """The finding that gives it its name: the best one of the code that it had most often."""
        return self.best_of[self.codes.most_common(1)[0][0]].defect


@dataclass(frozen=True)
class Change:
    """What a frame changed. `flickers`: what was seen in too few frames to be born. `left_out`: defects of the frame
    that were too many to be followed."""

    born: tuple[Track, ...] = ()
    ended: tuple[Track, ...] = ()
    flickers: int = 0
    left_out: int = 0


class Tracks:
    """The open tracks of one camera. Boxes go to the tracker as they lie on the web, where nothing moves."""

    def __init__(self, rules: Rules, make_tracker: Callable[[], Tracker]) -> None:
        self._rules, self._make_tracker = rules, make_tracker
        self._tracker: Tracker | None = make_tracker()
        self._motion = WebMotion(rules.motion_px_per_s)
        self._open: dict[int, Track] = {}
        self._places: dict[int, Box] = {}  # of the open ones, on the web; those that were just seen come first
        self._offset_px = (0.0, 0.0)
        self._at_ns: int | None = None

    @property
    def web_px_per_s(self) -> Speed:
        """How the web moves, as far as is known."""
        x, y = self._motion.px_per_s
        return round(x, 1), round(y, 1)

    @property
    def born(self) -> list[Track]:
        """The open ones that were told."""
        return [track for track in self._open.values() if track.is_born]

    def see(self, frame: Seen) -> Change:
        """The next judged frame: its 50 most confident defects. Raises TrackerFailed, or whatever else went wrong;
        `forget` then."""
        left_out = max(0, len(frame.defects) - MOST_DEFECTS)
        if left_out:
            confident = nlargest(MOST_DEFECTS, frame.defects, key=lambda defect: defect.confidence)
            frame = replace(frame, defects=tuple(confident))
        boxes = [defect.bbox_px for defect in frame.defects]
        step_s = 0.0 if self._at_ns is None else (frame.captured_ns - self._at_ns) / NS_PER_S
        moves_otherwise = self._motion.look(frame.captured_ns / NS_PER_S, boxes)
        (x, y), (vx, vy) = self._offset_px, self._motion.px_per_s
        self._offset_px, self._at_ns = (x + vx * step_s, y + vy * step_s), frame.captured_ns
        if moves_otherwise or max(map(abs, self._offset_px)) > _FARTHEST_PX:
            self._begin_anew(frame.captured_ns)
        slip = slip_px(list(self._places.values()), self._on_web(boxes), self._motion.px_per_s, step_s)
        self._offset_px = self._offset_px[0] + slip[0], self._offset_px[1] + slip[1]
        lying = self._on_web(boxes)
        self._tracker = self._tracker or self._make_tracker()
        numbers = self._tracker.match(lying)
        change = self._note(frame, numbers)
        self._places.update(zip(numbers, lying))
        self._places = {number: self._places[number] for number in dict.fromkeys([*numbers, *self._open])}
        return replace(change, left_out=left_out)

    def forget(self) -> Change:
        """All tracks end here; the next frame begins with nothing."""
        born, others = tuple(self.born), len(self._open) - len(self.born)
        self._open, self._places, self._tracker = {}, {}, None
        return Change(ended=born, flickers=others)

    def _note(self, frame: Seen, numbers: Sequence[int]) -> Change:
        born, ended, flickers = [], [], 0
        for number, defect in zip(numbers, frame.defects):
            sighting = Sighting(frame, defect)
            track = self._open.setdefault(number, Track(sighting, sighting, sighting))
            track.sighted(sighting)
            if not track.is_born and track.frames >= self._rules.confirm_frames:
                track.is_born = True
                born.append(track)
        for number in [number for number in self._open if number not in numbers]:
            track = self._open[number]
            track.missed += 1
            if track.missed >= self._rules.lost_frames:
                del self._open[number]
                if track.is_born:
                    ended.append(track)
                else:
                    flickers += 1
        return Change(tuple(born), tuple(ended), flickers)

    def _begin_anew(self, now_ns: int) -> None:
        """A tracker without a past, that is shown the open tracks where they must be by now."""
        self._tracker = tracker = self._make_tracker()
        self._offset_px = (0.0, 0.0)
        tracks: list[Track] = []
        boxes: list[Box] = []
        for track in self._open.values():
            box = self._by_now(track.last, now_ns)
            known = zip(tracks, boxes) if len(self._open) <= _JOINED_MOST else ()
            earlier = next((each for each, its in known if _is_one(each, track, its, box)), None)
            if earlier is None:
                tracks.append(track)
                boxes.append(box)
            else:
                earlier.went_on_as(track)
        numbers = tracker.match(boxes)
        self._open, self._places = dict(zip(numbers, tracks)), dict(zip(numbers, boxes))

    def _by_now(self, sighting: Sighting, now_ns: int) -> Box:
        """Where what was seen must be."""
        x, y, width, height = sighting.defect.bbox_px
        vx, vy = self._motion.px_per_s
        age_s = (now_ns - sighting.frame.captured_ns) / NS_PER_S
        return x + vx * age_s, y + vy * age_s, width, height

    def _on_web(self, boxes: Sequence[Box]) -> list[Box]:
        dx, dy = self._offset_px
        return [(x - dx, y - dy, width, height) for x, y, width, height in boxes]


def _is_one(earlier: Track, later: Track, box: Box, other: Box) -> bool:
    """Two tracks that lie on the same place now, of which the second began when the first was lost. Births that were
    told cannot be taken back."""
    one_after_the_other = earlier.last.frame.trigger < later.first.frame.trigger
    return one_after_the_other and not (earlier.is_born and later.is_born) and _iou(box, other) >= _SAME_PLACE_IOU


def _iou(one: Box, other: Box) -> float:
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(wide, 0.0) * max(high, 0.0)
    return common / (one[2] * one[3] + other[2] * other[3] - common or 1.0)


def _better(one: Sighting, other: Sighting) -> Sighting:
    return other if other.defect.confidence > one.defect.confidence else one
