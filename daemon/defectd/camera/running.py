"""One GStreamer pipeline, from its text to its end: made, started, listened to, stopped."""

from __future__ import annotations

import importlib
import time
from typing import Any, Mapping

from defectd.camera.appsink import NewestPicture, Stamp
from defectd.camera.pipelines import BINDINGS, DEPAYLOADER, INSTEAD, PICTURES, STREAM, PipelinePlan, missing_element
from defectd.camera.typelibs import has_bindings, has_typelib
from defectd.clock import NS_PER_S
from defectd.errors import CameraError, CameraLost
from defectd.settings import without_password

_LOOK_EVERY_S = 0.01
_MAX_ON_THE_WAY_NS = 5 * NS_PER_S
_REMEDY = (
    f"sudo apt-get install {BINDINGS}, and a virtual environment made with --system-site-packages by the same Python; "
    f"{INSTEAD}"
)


class Ended(Exception):
    """The pipeline has come to its end."""


def why_no_gstreamer() -> str | None:
    """The package that is missing, without loading any of it into this process; None if the bindings are there."""
    if not has_bindings():
        return f"GStreamer's Python bindings are missing: {_REMEDY}"
    if not has_typelib("Gst-1.0"):
        return "GStreamer's description for Python is missing: sudo apt-get install gir1.2-gstreamer-1.0"
    return None


def load_gstreamer() -> Any:
    """The module `gi.repository.Gst`, initialised. Raises CameraError, which names the packages."""
    try:
        importlib.import_module("gi").require_version("Gst", "1.0")
        gst = importlib.import_module("gi.repository.Gst")
        gst.init(None)
    except (ImportError, ValueError, AttributeError) as error:
        raise CameraError(f"GStreamer's Python bindings cannot be loaded ({error}): {_REMEDY}") from error
    return gst


def has_element(gst: Any, name: str) -> bool:
    """True if this GStreamer has an element of that name."""
    return gst.ElementFactory.find(name) is not None


def make_pipeline(gst: Any, plan: PipelinePlan) -> Any:
    """The elements of *plan*, not started: no device is opened yet. Raises CameraError."""
    glib_error = importlib.import_module("gi.repository.GLib").Error
    try:
        pipeline = gst.parse_launch_full(plan.text, None, gst.ParseFlags.FATAL_ERRORS)
    except glib_error as error:
        if error.matches(gst.parse_error_quark(), gst.ParseError.NO_SUCH_ELEMENT):
            raise CameraError(missing_element(error.message.rpartition(" ")[2].strip('"“”„»«'))) from error
        text = without_password(f"{error.message}, in: {plan.text}")
        raise CameraError(f"GStreamer does not understand the pipeline: {text}") from error
    for name, properties in plan.properties.items():
        _set(pipeline.get_by_name(name), properties)
    for name, properties in plan.wishes.items():
        element = pipeline.get_by_name(name)
        _set(element, {key: value for key, value in properties.items() if element.find_property(key) is not None})
    return pipeline


class RunningPipeline:
    """`pictures` are what comes out of it. Nothing in here repairs anything: make another one."""

    def __init__(self, gst: Any, plan: PipelinePlan, open_s: float) -> None:
        """Start it, and wait until its source delivers or is known to be there. Raises CameraLost, CameraError."""
        self._gst, self._plan = gst, plan
        self._offered: list[str] = []
        self._end: Exception | None = None
        self._pipeline = make_pipeline(gst, plan)
        if plan.encoding is not None:
            self._pipeline.get_by_name(STREAM).connect("select-stream", self._selects)
        self._bus = self._pipeline.get_bus()
        try:
            self.pictures = NewestPicture(self._pipeline.get_by_name(PICTURES))
        except OSError as error:
            raise CameraError(f"{error}: sudo apt-get install libgstreamer-plugins-base1.0-0") from error
        try:
            self._pipeline.use_clock(gst.SystemClock.obtain())  # CLOCK_MONOTONIC, as ours
            self._pipeline.set_state(gst.State.PLAYING)
            self._await_source(open_s)
        except BaseException:
            self.close()
            raise

    def is_live(self) -> bool:
        """True if its source keeps its own time, as a camera does and a file does not. Ask when pictures come."""
        latency = self._gst.Query.new_latency()
        sink = self._pipeline.get_by_name(PICTURES).get_static_pad("sink")  # it itself keeps no time at all
        return self._plan.own_clock or (sink.peer_query(latency) and latency.parse_latency()[0])

    def exposed_ns(self, stamp: Stamp) -> int | None:
        """When the source has taken the picture (CLOCK_MONOTONIC), if its time is ours and makes sense."""
        if self._plan.own_clock or stamp.pts_ns is None:
            return None
        exposed_ns = int(self._pipeline.get_base_time()) + stamp.pts_ns
        return exposed_ns if 0 <= stamp.arrival_ns - exposed_ns < _MAX_ON_THE_WAY_NS else None

    def hear(self) -> None:
        """Take note of what the elements say: only its end matters, and all of it would pile up."""
        types = self._gst.MessageType
        message = self._bus.pop_filtered(types.ERROR | types.EOS)
        if message is None or self._end is not None:
            return
        if message.type == types.EOS:
            self._end = Ended()
            return
        error, debug = message.parse_error()
        detail = (debug or "").strip().rpartition("\n")[2]
        words = f"{message.src.get_name()}: {error.message}{f' ({detail})' if detail else ''}"
        self._end = CameraLost(without_password(words))

    def listen(self) -> None:
        """No more pictures are there to take. Raises CameraLost with the elements' words, Ended."""
        self.hear()
        if self._end is not None:
            raise self._end

    def close(self) -> None:
        """Stop it. May be called twice."""
        self._pipeline.set_state(self._gst.State.NULL)
        self.pictures.close()  # nothing comes any more

    def _selects(self, _stream: Any, _number: int, caps: Any) -> bool:
        """Called for each stream of the server, in a thread of GStreamer's: sound is not fetched at all."""
        structure = caps.get_structure(0)
        if structure.get_string("media") != "video":
            return False
        self._offered.append(structure.get_string("encoding-name") or "unknown")
        return self._offered[-1] == self._plan.encoding

    def _await_source(self, open_s: float) -> None:
        due_s = time.monotonic() + open_s
        while not self._is_there():
            try:
                self.listen()
            except CameraLost:
                self._check_encoding()
                raise
            except Ended:
                raise CameraLost("the stream ended before its first picture") from None
            if time.monotonic() > due_s:
                self._check_encoding()
                raise CameraLost(f"no answer within {open_s:g} s")
            time.sleep(_LOOK_EVERY_S)

    def _is_there(self) -> bool:
        if self.pictures.waiting:
            return True
        if self._plan.encoding is not None:  # a server may agree to everything, and then send nothing
            return bool(self._pipeline.get_by_name(DEPAYLOADER).get_static_pad("sink").is_linked())
        result, state, _ = self._pipeline.get_state(0)
        done = (self._gst.StateChangeReturn.SUCCESS, self._gst.StateChangeReturn.NO_PREROLL)
        return result in done and state == self._gst.State.PLAYING

    def _check_encoding(self) -> None:
        if self._offered and self._plan.encoding not in self._offered:
            offered = ", ".join(self._offered)
            raise CameraError(f"the server offers video in {offered}, expected {self._plan.encoding}: see camera.codec")


def _set(element: Any, properties: Mapping[str, Any]) -> None:
    for key, value in properties.items():
        element.set_property(key, value)
