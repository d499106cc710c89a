"""GigE Vision and USB3 Vision cameras through Aravis, by GObject introspection.

Facts about Aravis 0.8 that shaped this: opening by anything but an address asks on all networks, so the address is
found by `discovery`; a handle whose camera went away never delivers again, so the source is made anew; a slow reader
gets the oldest buffer; "no buffer" is no fault while a trigger is awaited, so a register that is read every second
tells whether the camera is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from defectd.camera.aravis_opening import AravisPlan, configure, open_camera, start
from defectd.camera.base import Allocate, Arrival, Pixels, Undecodable
from defectd.camera.frame_count import CaptureClock, FrameCount, spread
from defectd.camera.genicam import load_aravis
from defectd.camera.heartbeat import Heartbeat, gige_question, usb_question
from defectd.camera.pixel_formats import FORMATS, ImageLayout, supported, write_bgr
from defectd.clock import NS_PER_MS, monotonic_ns, utc_now
from defectd.errors import CameraLost
from defectd.inspection.events import ErrorReason

_RELEASE_S = 1.0
_EARLY_NS = 5 * NS_PER_MS  # clocks are not mapped better than this


@dataclass(frozen=True)
class _Waiting:
    """A frame that came, or that is known to be missing."""

    captured_ns: int
    frame_id: int | None
    lost: ErrorReason | None
    buffer: Any = None


class AravisSource:
    """One camera. Each frame that it counts is a unit: those that never came or came with holes are lost ones."""

    patient = False

    def __init__(self, plan: AravisPlan) -> None:
        """Open, configure and start it. Raises CameraLost, CameraError."""
        self._plan = plan
        self._bindings = load_aravis()
        self._library = ctypes.CDLL("libaravis-0.8.so.0")
        self._library.arv_buffer_get_data.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]
        self._library.arv_buffer_get_data.restype = ctypes.c_void_p
        self._count, self._clock = FrameCount(), CaptureClock()
        self._came: deque[_Waiting] = deque()
        self._current: Any = None
        self._last_ns: int | None = None
        self._overruns = 0
        self._shot_ns: int | None = None
        self._parts: list[Any] = []  # camera, stream: the only references, so that `close` lets go of all
        self._heartbeat: Heartbeat | None = None
        try:
            camera, address = open_camera(self._bindings, plan)
            self._parts.append(camera)
            self._exposure_ns = configure(self._bindings, camera, plan)
            self._parts.append(start(self._bindings, camera, plan))
        except BaseException:
            self.close()
            raise
        question = usb_question(camera.get_device()) if address is None else gige_question(address)
        self._heartbeat = Heartbeat(question)
        self._heartbeat.start()

    def wait(self, number: int, timeout_s: float) -> Arrival | None:
        """See Source. Raises CameraLost within three seconds of the camera's end."""
        self._recycle()
        due_s = time.monotonic() + timeout_s
        while not self._came:
            self._look_after()
            remaining_us = int(max(0.0, due_s - time.monotonic()) * 1e6)
            buffer = self._stream.timeout_pop_buffer(remaining_us)
            if buffer is None:
                return None
            self._take(buffer)
        next_one = self._came.popleft()
        self._current = next_one.buffer
        captured_at = _wall(next_one.captured_ns)
        unit_id = f"{self._plan.name}-{number:08d}"
        return Arrival(unit_id, next_one.captured_ns, captured_at, next_one.frame_id, next_one.lost)

    def shoot(self) -> None:
        """See Source. Fires the software trigger where that is the trigger's source."""
        self.idle()
        self._shot_ns = monotonic_ns()
        if self._plan.trigger_source == "Software":
            try:
                self._camera.software_trigger()
            except self._bindings.error as error:
                raise CameraLost(f"{self._plan.label}: software trigger: {error.message}") from error

    def idle(self) -> None:
        """See Source."""
        self._look_after()
        self._recycle()
        self._came.clear()
        while (buffer := self._stream.try_pop_buffer()) is not None:
            self._note_times(buffer)
            self._stream.push_buffer(buffer)
        self._count.forget()

    def fetch(self, allocate: Allocate) -> None:
        """See Source. Converts out of Aravis' buffer into the ring: one pass over the picture."""
        buffer = self._current
        number = buffer.get_image_pixel_format() & 0xFFFFFFFF
        pixel_format = FORMATS.get(number)
        if pixel_format is None:
            raise Undecodable(f"{self._plan.label}: pixel format 0x{number:08x}, expected one of {supported()}")
        layout = ImageLayout(buffer.get_image_width(), buffer.get_image_height(), _row_padding(buffer))
        target = allocate(layout.height_px, layout.width_px)
        write_bgr(self._data(buffer), pixel_format, layout, target)
        self._recycle()

    def close(self) -> None:
        """See Source. A camera that is gone takes seconds to let go of; that is left to a thread."""
        is_there = True
        if self._heartbeat is not None:
            is_there = self._heartbeat.trouble is None
            self._heartbeat.stop()
            self._heartbeat = None
        self._current = None
        self._came.clear()
        parts, self._parts = self._parts, []
        letting_go = threading.Thread(target=_let_go, args=(parts, is_there, self._bindings.error), daemon=True)
        letting_go.start()
        if is_there:
            letting_go.join(_RELEASE_S)

    @property
    def _camera(self) -> Any:
        return self._parts[0]

    @property
    def _stream(self) -> Any:
        return self._parts[1]

    # -- frames ----------------------------------------------------------------------------------------------

    def _take(self, buffer: Any) -> None:
        """Put what it is, and what is missing before it, in line. What is older than the last shot is dropped."""
        captured_ns, frame_id = self._note_times(buffer), buffer.get_frame_id()
        missing = self._count.missing_before(frame_id)
        if self._shot_ns is not None and captured_ns - self._exposure_ns < self._shot_ns - _EARLY_NS:
            self._stream.push_buffer(buffer)
            self._count.forget()
            return
        overrun = self._overrun_since()
        if self._shot_ns is None:
            for index, missed_ns in enumerate(spread(self._last_ns, captured_ns, missing)):
                reason: ErrorReason = "camera_overrun" if index < overrun else "frame_missing"
                self._came.append(_Waiting(missed_ns, None, reason))
        self._last_ns = captured_ns
        if buffer.get_status() == self._bindings.aravis.BufferStatus.SUCCESS:
            self._came.append(_Waiting(captured_ns, frame_id, None, buffer))
        else:
            self._stream.push_buffer(buffer)
            self._came.append(_Waiting(captured_ns, frame_id, "frame_incomplete"))

    def _note_times(self, buffer: Any) -> int:
        camera_ns, wall_ns = buffer.get_timestamp(), buffer.get_system_timestamp()
        return self._clock.captured_ns(camera_ns, wall_ns, time.time_ns(), monotonic_ns())

    def _overrun_since(self) -> int:
        """Frames for which there was no free buffer: we were too slow, not the network."""
        before, self._overruns = self._overruns, self._bindings.aravis.Stream.get_statistics(self._stream)[2]
        return self._overruns - before

    def _data(self, buffer: Any) -> Pixels:
        """Its bytes, where they are: PyGObject would copy them."""
        size = ctypes.c_size_t()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        start = self._library.arv_buffer_get_data(pointer(buffer.__gpointer__, None), ctypes.byref(size))
        if not start:
            raise Undecodable(f"{self._plan.label}: an empty buffer")
        return np.ctypeslib.as_array((ctypes.c_uint8 * size.value).from_address(start))

    def _recycle(self) -> None:
        if self._current is not None:
            self._stream.push_buffer(self._current)
            self._current = None

    def _look_after(self) -> None:
        assert self._heartbeat is not None
        if self._heartbeat.trouble is not None:
            raise CameraLost(f"{self._plan.label}: {self._heartbeat.trouble}")


def _let_go(parts: list[Any], is_there: bool, glib_error: Any) -> None:
    """Stop and free camera and stream; each answer that a dead camera owes takes seconds."""
    if parts and is_there:
        with contextlib.suppress(glib_error):
            parts[0].stop_acquisition()
    while parts:
        parts.pop()


def _row_padding(buffer: Any) -> int:
    """In bytes. Aravis before 0.8.23, which Ubuntu 22.04 has, does not tell it."""
    tell = getattr(buffer, "get_image_padding", None)
    return 0 if tell is None else int(tell().x_padding)


def _wall(captured_ns: int) -> datetime:
    return utc_now() - timedelta(microseconds=(monotonic_ns() - captured_ns) / 1000)
