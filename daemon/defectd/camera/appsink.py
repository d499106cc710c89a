"""The newest picture of a GStreamer appsink, and when those before it came. No pixel is copied on the way.

PyGObject hands out a buffer's memory as `bytes`, which is a copy, or needs an add-on to do better; the library's own
functions do the same on every release.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from defectd.camera.base import Pixels, Undecodable
from defectd.clock import monotonic_ns

MAX_STAMPS = 1000
_READ = 1
_NO_TIME = 2**64 - 1
_CORRUPTED = 1 << 8
_CHANNELS = {"BGR": 3, "BGRx": 4, "GRAY8": 1}
_ROWS_ALIGNED_TO = 4


class _MiniObject(ctypes.Structure):
    """The public head of GstBuffer (gstminiobject.h, gstbuffer.h: fixed for all of 1.x)."""

    _fields_ = (
        ("type", ctypes.c_size_t), ("refcount", ctypes.c_int), ("lockstate", ctypes.c_int), ("flags", ctypes.c_uint),
        ("functions", ctypes.c_void_p * 3), ("priv_uint", ctypes.c_uint), ("priv_pointer", ctypes.c_void_p),
    )  # fmt: skip


class _Buffer(ctypes.Structure):
    _fields_ = (("mini_object", _MiniObject), ("pool", ctypes.c_void_p), ("pts", ctypes.c_uint64))


class _MapInfo(ctypes.Structure):
    _fields_ = (
        ("memory", ctypes.c_void_p), ("flags", ctypes.c_uint), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t),
        ("maxsize", ctypes.c_size_t), ("user_data", ctypes.c_void_p * 4), ("reserved", ctypes.c_void_p * 4),
    )  # fmt: skip


@dataclass(frozen=True)
class Stamp:
    """A picture came at *arrival_ns* (CLOCK_MONOTONIC); *pts_ns* is its own time in the pipeline, if it has one."""

    arrival_ns: int
    pts_ns: int | None
    corrupted: bool


class Library:
    """The functions that are needed. Raises OSError if GStreamer is not installed."""

    def __init__(self) -> None:
        core, app = ctypes.CDLL("libgstreamer-1.0.so.0"), ctypes.CDLL("libgstapp-1.0.so.0")
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        self.pull = _function(app.gst_app_sink_try_pull_sample, pointer, pointer, ctypes.c_uint64)
        self.buffer = _function(core.gst_sample_get_buffer, pointer, pointer)
        self.caps = _function(core.gst_sample_get_caps, pointer, pointer)
        self.structure = _function(core.gst_caps_get_structure, pointer, pointer, ctypes.c_uint)
        self.integer = _function(core.gst_structure_get_int, ctypes.c_int, pointer, text, ctypes.POINTER(ctypes.c_int))
        self.string = _function(core.gst_structure_get_string, text, pointer, text)
        self.map = _function(core.gst_buffer_map, ctypes.c_int, pointer, ctypes.POINTER(_MapInfo), ctypes.c_uint)
        self.unmap = _function(core.gst_buffer_unmap, None, pointer, ctypes.POINTER(_MapInfo))
        self.release = _function(core.gst_mini_object_unref, None, pointer)


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, arguments
    return function


class Picture:
    """One picture in GStreamer's memory, until `release`."""

    def __init__(self, library: Library, sample: int, arrival_ns: int) -> None:
        self._library, self._sample = library, sample
        self._buffer = library.buffer(sample)
        head = ctypes.cast(self._buffer, ctypes.POINTER(_Buffer)).contents
        pts_ns = None if head.pts == _NO_TIME else int(head.pts)
        self.stamp = Stamp(arrival_ns, pts_ns, bool(head.mini_object.flags & _CORRUPTED))

    def pixels(self) -> PictureMemory:
        """Its memory, as a context. Raises Undecodable."""
        structure = self._library.structure(self._library.caps(self._sample), 0)
        return PictureMemory(
            self._library,
            self._buffer,
            self._integer(structure, b"height"),
            self._integer(structure, b"width"),
            (self._library.string(structure, b"format") or b"").decode(),
        )

    def release(self) -> None:
        """Give it back. May be called twice."""
        sample, self._sample = self._sample, 0
        if sample:
            self._library.release(sample)

    def _integer(self, structure: int, key: bytes) -> int:
        value = ctypes.c_int()
        if not self._library.integer(structure, key, ctypes.byref(value)):
            raise Undecodable(f"GStreamer does not tell the {key.decode()} of a picture")
        return value.value


@dataclass
class PictureMemory:
    """A picture's rows while the context is open: (H, W, 3) BGR, (H, W, 4) BGRx or (H, W) grey, not to be written."""

    library: Library
    buffer: int
    height_px: int
    width_px: int
    format: str

    def __enter__(self) -> Pixels:
        channels = _CHANNELS.get(self.format)
        if channels is None:
            raise Undecodable(f"pictures in {self.format}, expected one of {', '.join(_CHANNELS)}")
        self._map = _MapInfo()
        if not self.library.map(self.buffer, ctypes.byref(self._map), _READ):
            raise Undecodable("GStreamer does not give a picture's memory")
        row_bytes = self.width_px * channels
        stride = -(-row_bytes // _ROWS_ALIGNED_TO) * _ROWS_ALIGNED_TO
        if self._map.size < stride * (self.height_px - 1) + row_bytes:
            self.__exit__()
            size = f"{self.width_px}x{self.height_px} {self.format}"
            raise Undecodable(f"a picture of {self._map.size} bytes, too few for {size}")
        memory = (ctypes.c_uint8 * self._map.size).from_address(self._map.data)
        shape, strides = (self.height_px, self.width_px, channels), (stride, channels, 1)
        rows: Pixels = np.ndarray(shape, np.uint8, memory, strides=strides)
        return rows[:, :, 0] if channels == 1 else rows

    def __exit__(self, *_: object) -> None:
        self.library.unmap(self.buffer, ctypes.byref(self._map))


class NewestPicture:
    """Takes each picture when it comes, in GStreamer's thread, and keeps the newest one."""

    def __init__(self, sink: Any) -> None:
        """*sink*: the appsink, as PyGObject has it. Raises OSError."""
        self._library, self._sink = Library(), sink
        self._fresh = threading.Condition()
        self._passed: deque[Stamp] = deque(maxlen=MAX_STAMPS)
        self._newest: Picture | None = None
        sink.set_property("emit-signals", True)
        self._connection = sink.connect("new-sample", self._arrived)

    def take(self, timeout_s: float) -> tuple[list[Stamp], Picture | None]:
        """The newest picture, and the stamps of those that it replaced; None if there is none within *timeout_s*."""
        with self._fresh:
            self._fresh.wait_for(lambda: self._newest is not None, timeout_s)
            passed, newest = list(self._passed), self._newest
            self._passed.clear()
            self._newest = None
        return passed, newest

    @property
    def waiting(self) -> bool:
        """True if there is one to take."""
        return self._newest is not None

    def close(self) -> None:
        """No picture is taken any more. May be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._sink.disconnect(connection)
        _, newest = self.take(0)
        if newest is not None:
            newest.release()

    def _arrived(self, sink: Any) -> int:
        sample = self._library.pull(hash(sink), 0)  # PyGObject's hash of an object is its address
        if sample:
            picture = Picture(self._library, sample, monotonic_ns())
            with self._fresh:
                if self._newest is not None:
                    self._passed.append(self._newest.stamp)
                    self._newest.release()
                self._newest = picture
                self._fresh.notify()
        return 0  # GST_FLOW_OK
