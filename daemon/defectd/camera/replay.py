"""A folder of pictures, a video or a recording, as if a camera saw them. A unit's id is the file's stem, or recorded.

The next picture is decoded shortly before it is due, because a real camera's picture is complete when it arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from defectd.camera.base import Allocate, Arrival, Pixels, SourceEnded, Undecodable
from defectd.camera.pacing import Pace, RecordedPace, sleep_until
from defectd.camera.recorded import INDEX, is_recording, read_recording
from defectd.clock import NS_PER_MS, monotonic_ns, utc_now
from defectd.errors import CameraError
from defectd.inspection.events import ErrorReason

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_DECODE_AHEAD_NS = 60 * NS_PER_MS
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL = 4096  # some cameras append a few bytes of their own


@dataclass(frozen=True)
class Label:
    """What is known of a unit beside its picture; `lost` says why there is none."""

    unit_id: str
    frame_id: int | None = None
    lost: ErrorReason | None = None


class Reel(Protocol):
    """Numbered pictures."""

    length: int | None
    """How many there are, if that is known."""

    def label(self, index: int) -> Label:
        """Whose picture it is. Raises SourceEnded behind the last one."""

    def read(self, index: int) -> Pixels:
        """(H, W, 3) uint8 BGR. Raises Undecodable, SourceEnded."""


class Folder:
    """The pictures of a folder, in the order of their names."""

    def __init__(self, path: Path) -> None:
        self._files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
        if not self._files:
            raise CameraError(f"{path}: no pictures; expected files ending in {', '.join(PICTURES)}")
        self.length: int | None = len(self._files)

    def label(self, index: int) -> Label:
        """The file's stem."""
        if index >= len(self._files):
            raise SourceEnded
        return Label(self._files[index].stem)

    def read(self, index: int) -> Pixels:
        """Decode one file."""
        return _read(self._files[index])


class Recording:
    """What `defectd record` saved: units without a picture are in it, too."""

    def __init__(self, path: Path) -> None:
        self._path, self._units = path, read_recording(path)
        self.length: int | None = len(self._units)

    @property
    def offsets_ms(self) -> list[float]:
        """When each unit came, since the first one."""
        return [unit.offset_ms for unit in self._units]

    def label(self, index: int) -> Label:
        """As it was recorded."""
        if index >= len(self._units):
            raise SourceEnded
        unit = self._units[index]
        lost = unit.lost or ("frame_missing" if unit.file is None else None)
        return Label(unit.unit_id, unit.frame_id, lost)

    def read(self, index: int) -> Pixels:
        """Decode its file."""
        file = self._units[index].file
        if file is None:
            raise Undecodable("it was recorded without a picture")
        return _read(self._path / file)


class Video:
    """The frames of a video file."""

    def __init__(self, path: Path) -> None:
        self._path, self._next = path, 0
        self._capture = cv2.VideoCapture(str(path))
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length: int | None = count if count > 0 else None
        if not self._capture.isOpened():
            raise CameraError(f"{path}: neither a folder of pictures nor a video that OpenCV can open")

    def label(self, index: int) -> Label:
        """The file's stem and the frame's index."""
        return Label(f"{self._path.stem}-{index:06d}")

    def read(self, index: int) -> Pixels:
        """Decode the next frame; seek first if *index* is not the next one."""
        if index != self._next:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        self._next = index + 1
        ok, image = self._capture.read()
        if not ok:
            raise SourceEnded
        return np.asarray(image, np.uint8)


def _read(file: Path) -> Pixels:
    try:
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise Undecodable(f"{file.name}: {error.strerror}") from error
    image = _decode(data)
    if image is None:
        raise Undecodable(f"{file.name}: {data.size} bytes that are no whole picture")
    return image


def _decode(data: Pixels) -> Pixels | None:
    """(H, W, 3) BGR, or None. OpenCV 4 fills up half a JPEG with black, and raises for absurd sizes."""
    is_cut_jpeg = data[:2].tobytes() == _JPEG_START and _JPEG_END not in data[-_JPEG_TAIL:].tobytes()
    if data.size == 0 or is_cut_jpeg:
        return None
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError):
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _reel(path: Path) -> Reel:
    if not path.is_dir():
        return Video(path)
    return Recording(path) if is_recording(path) else Folder(path)


class ReplaySource:
    """A reel at *rate_hz*, or in its recorded rhythm. Files can wait: when the daemon is busy the schedule moves,
    nothing is skipped."""

    patient = True

    def __init__(self, path: Path, rate_hz: float, loop: bool, first: int, number: int, pace: str = "rate") -> None:
        """Trigger *first* is the first picture; begin at trigger *number*. *pace* is `rate` or `recorded`."""
        if not path.exists():
            raise CameraError(f"{path}: does not exist; expected a folder of pictures or a video")
        self._reel = _reel(path)
        self._first, self._loop = first, loop
        self._length = self._reel.length if loop else None
        self._pace = Pace(monotonic_ns(), number, rate_hz)
        if pace == "recorded":
            if not isinstance(self._reel, Recording):
                raise CameraError(f'{path}: no {INDEX}; pace = "recorded" expects what `defectd record` wrote')
            self._pace = RecordedPace(monotonic_ns(), first, number, self._reel.offsets_ms)
        self._ahead: tuple[int, Pixels | Undecodable] | None = None
        self._shot = False
        self._next = number

    def wait(self, number: int, timeout_s: float) -> Arrival | None:
        """See Source."""
        due_ns = monotonic_ns() if self._shot else self._pace.due_ns(number)
        if self._ahead is None or self._ahead[0] != number:
            if not sleep_until(due_ns - _DECODE_AHEAD_NS, timeout_s):
                return None
            self._ahead = number, self._decode(number)
        if not sleep_until(due_ns, timeout_s):
            return None
        now_ns = monotonic_ns()
        if self._pace.passed(number, now_ns):
            self._pace.shift(number, now_ns)
        self._shot, self._next = False, number + 1
        label = self._reel.label(self._index(number))
        return Arrival(label.unit_id, now_ns, utc_now(), label.frame_id, label.lost)

    def shoot(self) -> None:
        """The next picture is due now."""
        self._shot = True

    def idle(self) -> None:
        """Decode the next picture. Raises SourceEnded behind the last one."""
        if self._ahead is None or self._ahead[0] != self._next:
            self._ahead = self._next, self._decode(self._next)

    def fetch(self, allocate: Allocate) -> None:
        """See Source."""
        assert self._ahead is not None
        picture = self._ahead[1]
        if isinstance(picture, Undecodable):
            raise picture
        np.copyto(allocate(*picture.shape[:2]), picture)

    def close(self) -> None:
        """Nothing to release."""

    def _decode(self, number: int) -> Pixels | Undecodable:
        """The picture of *number*. Raises SourceEnded behind the last one, unless it loops."""
        try:
            return self._read(number)
        except SourceEnded:
            reached = self._index(number)
            if not self._loop or reached == 0:
                raise
            self._length = reached  # a video that is shorter than it says, or does not say
            return self._read(number)

    def _read(self, number: int) -> Pixels | Undecodable:
        index = self._index(number)
        self._reel.label(index)
        try:
            return self._reel.read(index)
        except Undecodable as error:
            return error

    def _index(self, number: int) -> int:
        index = number - self._first
        return index if self._length is None else index % self._length
