"""What is wrong with the station right now. One event when a fault begins, one when it ends; never a storm."""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Protocol

from defectd.clock import NS_PER_S, monotonic_ns, utc_now
from defectd.inspection.events import ActiveFault

log = logging.getLogger(__name__)


class FaultSink(Protocol):
    """Takes each transition on its way to `evt/fault`; must not block."""

    def __call__(self, component: str, code: str, state: str, detail: str, data: dict[str, Any]) -> None: ...


class Faults:
    """The register of active faults. Thread-safe; *sink* and *changed* are called without the lock held."""

    def __init__(self, sink: FaultSink, changed: Callable[[], None] = lambda: None) -> None:
        self._sink, self._changed = sink, changed
        self._lock = threading.Lock()
        self._active: dict[tuple[str, str], tuple[ActiveFault, int]] = {}

    def begin(self, component: str, code: str, detail: str, **data: Any) -> None:
        """The fault holds from now on; saying it again while it holds does nothing."""
        with self._lock:
            if (component, code) in self._active:
                return
            fault = ActiveFault(component=component, code=code, detail=detail, since=utc_now())
            self._active[component, code] = fault, monotonic_ns()
        log.warning("%s: %s: %s", component, code, detail, extra=_fields(component, code))
        self._sink(component, code, "raised", detail, data)
        self._changed()

    def end(self, component: str, code: str, detail: str = "", **data: Any) -> None:
        """The fault is over; without one active this does nothing."""
        with self._lock:
            active = self._active.pop((component, code), None)
        if active is None:
            return
        fault, since_ns = active
        lasted_s = round((monotonic_ns() - since_ns) / NS_PER_S, 1)
        log.info("%s: %s is over after %.1f s: %s", component, code, lasted_s, detail, extra=_fields(component, code))
        self._sink(component, code, "cleared", detail or fault.detail, {"lasted_s": lasted_s, **data})
        self._changed()

    def note(self, component: str, code: str, detail: str, **data: Any) -> None:
        """Something happened once, such as a restart: an event without an end."""
        log.warning("%s: %s: %s", component, code, detail, extra=_fields(component, code))
        self._sink(component, code, "noted", detail, data)

    def active(self) -> list[ActiveFault]:
        """The faults that hold now, oldest first."""
        with self._lock:
            return [fault for fault, _ in self._active.values()]


def _fields(component: str, code: str) -> dict[str, str]:
    """For the journal: `journalctl DEFECTD_FAULT=camera_lost`."""
    return {"DEFECTD_COMPONENT": component, "DEFECTD_FAULT": code}
