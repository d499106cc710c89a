"""The machine, as its kernel tells it: without root, without other programs, and without ever waiting for long."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, Mapping

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.telemetry import readings
from defectd.telemetry.clock_sync import clock_synchronised, kernel_says_synchronised
from defectd.telemetry.files import Abandoned, Files, Silent
from defectd.telemetry.layout import Layout, find_layout
from defectd.telemetry.platforms import platform_of
from defectd.telemetry.power_mode import read_power_mode
from defectd.telemetry.processes import Processes
from defectd.telemetry.sample import DeviceSample, Roots, ThrottleSigns

log = logging.getLogger(__name__)

_LOOK_AGAIN_NS = 60 * NS_PER_S
_LOOK_AGAIN_SOON_NS = 5 * NS_PER_S
_MAX_LEFT_BEHIND = 8


class Surveyor:
    """Reads everything, on the caller's thread, for as long as it takes. Sysfs is what a daemon uses."""

    def __init__(
        self, roots: Roots, state_directory: Path, names: Callable[[], Mapping[int, str]] = dict, *,
        files: Files | None = None, pause: Callable[[float], None] = time.sleep,
        ask_kernel: Callable[[], bool | None] = kernel_says_synchronised, root_pid: int | None = None,
    ) -> None:  # fmt: skip
        self.files = files or Files()
        self.known: dict[str, Any] = {}
        """The fields of the sample that are read already; for another thread that cannot wait."""
        self._roots, self._state_directory = roots, state_directory
        self._pause, self._ask_kernel = pause, ask_kernel
        self._processes = Processes(roots, root_pid or os.getpid(), names)
        self._layout: Layout | None = None
        self._looked_ns = 0

    def read(self) -> DeviceSample:
        """Now; what matters most comes first."""
        known: dict[str, Any] = {"at_ns": monotonic_ns()}
        self.known = known
        self._survey(known, known["at_ns"])
        return DeviceSample(**known)

    def _survey(self, known: dict[str, Any], now_ns: int) -> None:
        roots, files = self._roots, self.files
        layout = self._current_layout(now_ns)
        known["temps_c"] = readings.temperatures_c(layout, files)
        known["hottest_c"] = max(known["temps_c"].values(), default=None)
        known.update(readings.memory(roots, files))
        known["uptime_s"] = readings.uptime_s(roots, files)
        known["clock_synced"] = clock_synchronised(roots, files, self._ask_kernel)
        mode = read_power_mode(roots, files, layout.modes)
        known["power_mode"] = None if mode is None else mode.name
        gpu = known["gpu"] = None if layout.gpu is None else readings.gpu_frequency(layout.gpu, files)
        cpus = readings.cpu_frequencies(layout, files)
        known["cpu"] = readings.slowest(cpus, files)
        known["throttle"] = ThrottleSigns(
            alerts=readings.active_alerts(layout, files),
            oc_events=readings.over_current_events(layout, files),
            capped=readings.capped(mode, layout, gpu, cpus),
            crit_alarms=readings.crit_alarms(layout, files),
        )
        known["gpu_load"] = readings.gpu_load(layout, files, self._pause)
        known["power_w"] = readings.power_w(layout, files)
        known["total_power_w"] = readings.total_power_w(layout, known["power_w"])
        known["emc_mhz"] = readings.emc_mhz(layout, files)
        known["fan_rpm"] = readings.fan_rpm(layout, files)
        known["fan_share"] = readings.fan_share(layout, files)
        known["rss_mb"] = self._processes.resident_mb(files, now_ns)
        known["disk_wear"] = readings.disk_wear(layout, files)
        known.update(readings.disk(self._state_directory, files))

    def _current_layout(self, now_ns: int) -> Layout:
        """Looked up again every minute, and soon after something has vanished."""
        age_ns = now_ns - self._looked_ns
        due_ns = _LOOK_AGAIN_SOON_NS if self.files.vanished else _LOOK_AGAIN_NS
        if self._layout is None or age_ns >= due_ns:
            platform = self._layout.platform if self._layout else platform_of(self._roots, self.files)
            self._layout = find_layout(self._roots, self._state_directory, platform, self.files)
            self._looked_ns = now_ns
            self.files.vanished = False
        return self._layout


class Sysfs:
    """Samples, each read on a thread of its own, because a driver may never answer: then that thread is left behind,
    the file is left out (for good if it happens three times), and the sample lacks what had not been read yet.
    *names* (see Processes) is called on such a thread."""

    def __init__(
        self, roots: Roots | None = None, state_directory: Path = Path("/"),
        names: Callable[[], Mapping[int, str]] = dict, *, patience_s: float = 0.5, total_s: float = 2.0,
    ) -> None:  # fmt: skip
        self._silent = Silent()
        self._new_surveyor: Callable[[], Surveyor] = lambda: Surveyor(
            roots or Roots(), state_directory, names, files=Files(self._silent)
        )
        self._surveyor = self._new_surveyor()
        self._patience_s, self._total_ns = patience_s, int(total_s * NS_PER_S)
        self._left_behind: list[threading.Thread] = []
        self._complained = False

    @property
    def silent(self) -> tuple[str, ...]:
        """Files that did not answer and are left out."""
        return self._silent.paths()

    def read(self) -> DeviceSample:
        """Now. Never raises, and takes at most *total_s*, or *patience_s* for a single file. From one thread only."""
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        if len(self._left_behind) >= _MAX_LEFT_BEHIND:
            return DeviceSample(at_ns=monotonic_ns())
        surveyor = self._surveyor
        surveyor.known = {"at_ns": monotonic_ns()}
        thread = threading.Thread(target=self._run, args=(surveyor,), name="telemetry-read", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had just now
            return DeviceSample(**surveyor.known)
        self._wait(thread, surveyor)
        if thread.is_alive():
            surveyor.files.abandon()
            self._left_behind.append(thread)
            self._surveyor = self._new_surveyor()
        return DeviceSample(**dict(surveyor.known))

    def _run(self, surveyor: Surveyor) -> None:
        try:
            surveyor.read()
        except Abandoned:
            pass
        except Exception:
            if not self._complained:  # once: it is read every second
                self._complained = True
                log.exception("the machine's state cannot be read in full")

    def _wait(self, thread: threading.Thread, surveyor: Surveyor) -> None:
        """Until the thread has ended, or it hangs in a file, or time is up."""
        now_ns = monotonic_ns()
        end_ns, patience_ns = now_ns + self._total_ns, int(self._patience_s * NS_PER_S)
        while now_ns < end_ns:
            waiting = surveyor.files.waiting()
            since_ns = now_ns if waiting is None else waiting[1]
            if waiting is not None and now_ns - since_ns >= patience_ns:
                surveyor.files.blame(waiting)
                return
            thread.join(max(0, min(end_ns, since_ns + patience_ns) - now_ns) / NS_PER_S)
            if not thread.is_alive():
                return
            now_ns = monotonic_ns()
