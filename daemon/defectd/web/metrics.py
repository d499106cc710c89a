"""What Prometheus sees. Other threads tell facts as they happen; a scrape only reads, and calls no other part.

Names and units are Prometheus' own (seconds, bytes, hertz, celsius, ratios 0..1). What nobody knows has no series:
a gauge that is missing is honest, one that is zero or old is not. Labels come from the settings and the models that
served, so that the number of series is bounded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from typing import Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from defectd import __version__
from defectd.clock import NS_PER_S, monotonic_ns
from defectd.inspection.events import ErrorReason, InspectionEvent, Verdict
from defectd.inspection.rollout_wire import RolloutReport
from defectd.telemetry.sample import DeviceSample, Frequency

# fmt: off
BUCKETS_S = (
    0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3,
    0.5, 0.75, 1.0, 1.5, 2.0,
)
# fmt: on
_NOT_A_JUDGEMENT = ("aborted", "skipped")
_SERVED_KEPT = 64  # cameras times models with a latency; the one that was not seen for longest goes first
_STALE_S = 30.0  # a machine that was not looked at for so long has no gauges
_BYTES_PER_MB = 1 << 20
_HZ_PER_MHZ = 1_000_000


class Metrics:
    """Everything that is counted and measured, in a registry of its own. Thread-safe; nothing here blocks or raises
    because of what it is told."""

    def __init__(self, cameras: Sequence[str] = (), now_ns: Callable[[], int] = monotonic_ns) -> None:
        """The counters of *cameras* begin at 0, so that the first error is an increase, too."""
        registry = _Registry()
        self._registry = registry
        self._units = Counter("defectd_units", "Units by verdict.", ["camera", "verdict"], registry=registry)
        self._errors = Counter(
            "defectd_unit_errors", "Units with the verdict error, by reason.", ["camera", "reason"], registry=registry
        )
        self._dropped = Counter(
            "defectd_frames_dropped", "Free-run frames given up for a newer one.", ["camera"], registry=registry
        )
        served = ["camera", "model", "version", "runtime"]
        self._capture_to_verdict = Histogram(
            "defectd_capture_to_verdict_seconds",
            "From the moment of capture to the verdict, of passed, failed and error units.",
            served,
            registry=registry,
            buckets=BUCKETS_S,
        )
        self._inference = Histogram(
            "defectd_inference_seconds",
            "Inference of one unit, as its engine measured it.",
            served,
            registry=registry,
            buckets=BUCKETS_S,
        )
        self._served: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._lock = threading.Lock()
        self._facts = _Facts(now_ns)
        registry.register(self._facts)
        ProcessCollector(registry=registry)
        for camera in cameras:
            self._dropped.labels(camera)
            for verdict in get_args(Verdict):
                self._units.labels(camera, verdict)
            for reason in get_args(ErrorReason):
                self._errors.labels(camera, reason)

    def inspected(self, event: InspectionEvent) -> None:
        """One unit has its verdict."""
        camera = _text(event.frame.camera)
        self._units.labels(camera, event.verdict).inc()
        if event.error is not None:
            self._errors.labels(camera, event.error).inc()
        if event.frame.dropped_before:
            self._dropped.labels(camera).inc(event.frame.dropped_before)
        if event.verdict in _NOT_A_JUDGEMENT:
            return
        model, timing = event.model, event.timing_ms
        by = (camera, *(map(_text, (model.name, model.version, model.runtime)) if model else ("", "", "")))
        with self._lock:
            self._keep(by)
            self._capture_to_verdict.labels(*by).observe(timing.capture_to_verdict / 1000)
            if timing.inference is not None:
                self._inference.labels(*by).observe(timing.inference / 1000)

    def sampled(self, sample: DeviceSample, *, throttled: bool | None = None) -> None:
        """How the machine is; *throttled* as decided over time, None if nobody decides."""
        self._facts.device = _Device(sample, throttled)

    def set_outbox(self, pending: int, oldest_s: float, size_bytes: int, dropped: int, dead_letters: int) -> None:
        """How full the outbox is; *dropped* only ever grows."""
        self._facts.outbox = _Outbox(pending, oldest_s, size_bytes, dropped, dead_letters)

    def set_rollout(self, report: RolloutReport | None) -> None:
        """Where the rollout is, or how the last one ended; None: there was none."""
        self._facts.rollout = report

    def set_worker_exits(self, worker: str, exits: Mapping[str, int]) -> None:
        """How often *worker* ("engine", "camera/top") ended by itself or was replaced, by reason, since the start."""
        with self._lock:
            self._facts.exits = {**self._facts.exits, worker: dict(exits)}

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)

    def _keep(self, by: tuple[str, ...]) -> None:
        self._served[by] = None
        self._served.move_to_end(by)
        if len(self._served) > _SERVED_KEPT:
            oldest, _ = self._served.popitem(last=False)
            for histogram in (self._capture_to_verdict, self._inference):
                with suppress(KeyError):  # there was no inference
                    histogram.remove(*oldest)


class _Registry(CollectorRegistry):
    """Without the moment of creation of each series, which tells nothing here, and without what is empty then."""

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            if family.samples:
                yield family


class _Device(NamedTuple):
    sample: DeviceSample
    throttled: bool | None


class _Outbox(NamedTuple):
    pending: int
    oldest_s: float
    size_bytes: int
    dropped: int
    dead_letters: int


class _Facts(Collector):
    """The latest of what is told as a whole. Each attribute is replaced, never changed, so that no lock is needed."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.device: _Device | None = None
        self.outbox: _Outbox | None = None
        self.rollout: RolloutReport | None = None
        self.exits: Mapping[str, Mapping[str, int]] = {}
        self._now_ns = now_ns

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("defectd_build", "The daemon's version.", {"version": __version__})
        yield from _of_outbox(self.outbox)
        yield _of_exits(self.exits)
        if self.rollout is not None:
            yield _of_rollout(self.rollout)
        if self.device is not None:
            yield from self._of_device(*self.device)

    def _of_device(self, sample: DeviceSample, throttled: bool | None) -> Iterator[Metric]:
        age_s = max(0, self._now_ns() - sample.at_ns) / NS_PER_S
        yield _gauge("device_sample_age_seconds", "Time since the machine was looked at.", age_s)
        if age_s > _STALE_S:
            return
        yield _gauge("device_throttled", "1 while the machine holds itself back.", throttled)
        for name, help_, value in _DEVICE_GAUGES:
            yield _gauge(name, help_, value(sample))
        for name, help_, label, values in _DEVICE_GAUGES_BY_LABEL:
            yield _gauges(name, help_, label, values(sample))
        over_current = CounterMetricFamily(
            "defectd_device_over_current_events", "Over-current events since the machine started.", labels=["counter"]
        )
        for counter, count in sample.throttle.oc_events.items():
            over_current.add_metric([_text(counter)], count)
        yield over_current
        if sample.power_mode is not None:
            yield InfoMetricFamily(
                "defectd_device_power_mode", "The power mode in force.", {"mode": _text(sample.power_mode)}
            )


def _of_outbox(outbox: _Outbox | None) -> Iterator[Metric]:
    if outbox is None:
        return
    yield _gauge("outbox_pending_events", "Events that the broker has not taken yet.", outbox.pending)
    yield _gauge("outbox_oldest_pending_seconds", "How long the oldest pending event has waited.", outbox.oldest_s)
    yield _gauge("outbox_size_bytes", "Space that the outbox takes on disk.", outbox.size_bytes)
    yield CounterMetricFamily(
        "defectd_outbox_dropped_events", "Events lost since the outbox was created.", outbox.dropped
    )
    yield _gauge(
        "outbox_dead_letter_events", "Events kept on disk that the broker will never take.", outbox.dead_letters
    )


def _of_exits(exits: Mapping[str, Mapping[str, int]]) -> Metric:
    family = CounterMetricFamily(
        "defectd_worker_exits", "Workers that ended or had to be replaced.", labels=["worker", "reason"]
    )
    for worker, by_reason in exits.items():
        for reason, count in by_reason.items():
            family.add_metric([_text(worker), _text(reason)], count)
    return family


def _of_rollout(report: RolloutReport) -> Metric:
    target = report.target
    return InfoMetricFamily(
        "defectd_rollout",
        "Where the rollout is, or how the last one ended.",
        {
            "action": report.action,
            "state": _text(report.state),
            "model": _text(target.name) if target else "",
            "version": _text(target.version) if target else "",
        },
    )


def _gauge(name: str, help_: str, value: float | None) -> Metric:
    """Without a sample if the value is None."""
    family = GaugeMetricFamily(f"defectd_{name}", help_)
    if value is not None:
        family.add_metric([], float(value))
    return family


def _gauges(name: str, help_: str, label: str, values: Mapping[str, float | None]) -> Metric:
    family = GaugeMetricFamily(f"defectd_{name}", help_, labels=[label])
    for key, value in values.items():
        if value is not None:
            family.add_metric([_text(key)], float(value))
    return family


def _text(value: str) -> str:
    """As a label: what a broken file held must not break the whole page."""
    return value.encode("utf-8", "replace").decode()


def _times(value: float | None, factor: int) -> float | None:
    return None if value is None else value * factor


def _in_bytes(value_mb: float | None) -> float | None:
    return _times(value_mb, _BYTES_PER_MB)


def _in_hertz(value_mhz: float | None) -> float | None:
    return _times(value_mhz, _HZ_PER_MHZ)


def _clocks(sample: DeviceSample, value: Callable[[Frequency], float | None]) -> dict[str, float | None]:
    clocks = {"gpu": sample.gpu, "cpu": sample.cpu, "emc": Frequency(sample.emc_mhz)}
    return {name: _in_hertz(value(clock)) for name, clock in clocks.items() if clock is not None}


# fmt: off
_DEVICE_GAUGES: tuple[tuple[str, str, Callable[[DeviceSample], float | None]], ...] = (
    ("device_hottest_celsius", "Temperature of the hottest zone.", lambda s: s.hottest_c),
    ("device_gpu_utilization_ratio", "Share of time in which the GPU was busy.", lambda s: s.gpu_load),
    ("device_input_power_watts", "Power that the whole board draws.", lambda s: s.total_power_w),
    ("device_fan_rpm", "The fan's revolutions per minute.", lambda s: s.fan_rpm),
    ("device_fan_ratio", "Share of the fan's full drive.", lambda s: s.fan_share),
    ("device_memory_size_bytes", "Memory of the machine.", lambda s: _in_bytes(s.mem_total_mb)),
    ("device_memory_available_bytes", "Memory that programs can still get.", lambda s: _in_bytes(s.mem_available_mb)),
    ("device_gpu_memory_bytes", "Memory that the GPU of a Jetson holds.", lambda s: _in_bytes(s.nvmap_mb)),
    ("device_swap_used_bytes", "Memory that was put into swap.", lambda s: _in_bytes(s.swap_used_mb)),
    ("device_disk_size_bytes", "Size of the state directory's disk.", lambda s: _in_bytes(s.disk_total_mb)),
    ("device_disk_free_bytes", "Free space on the state directory's disk.", lambda s: _in_bytes(s.disk_free_mb)),
    ("device_disk_wear_ratio", "Share of the flash's rated life that is used up.", lambda s: s.disk_wear),
    ("device_clock_synchronized", "1 if the wall clock follows a time server.", lambda s: s.clock_synced),
    ("device_uptime_seconds", "Time since the machine started.", lambda s: s.uptime_s),
)
_DEVICE_GAUGES_BY_LABEL: tuple[
    tuple[str, str, str, Callable[[DeviceSample], Mapping[str, float | None]]], ...
] = (
    ("device_temperature_celsius", "Temperature by thermal zone.", "zone", lambda s: s.temps_c),
    ("device_power_watts", "Power by rail.", "rail", lambda s: s.power_w),
    ("device_clock_hertz", "Clock frequency.", "clock", lambda s: _clocks(s, lambda clock: clock.current_mhz)),
    ("device_clock_limit_hertz", "Upper limit in force.", "clock",
     lambda s: _clocks(s, lambda clock: clock.max_mhz)),
    ("device_clock_hardware_limit_hertz", "Highest frequency of the silicon.", "clock",
     lambda s: _clocks(s, lambda clock: clock.hardware_max_mhz)),
    ("worker_resident_memory_bytes", "Resident memory of the daemon and of each of its workers.", "worker",
     lambda s: {name: _in_bytes(mb) for name, mb in s.rss_mb.items()}),
)
# fmt: on
