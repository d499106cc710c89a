"""Telemetry's half of the composition root."""

from __future__ import annotations

from typing import Callable, Mapping

from defectd.faults import Faults
from defectd.inspection.telemetry_wire import DeviceTelemetry, SlowDownEvent
from defectd.messaging.outbox import Outbox
from defectd.rollout.rollouts import Rollouts
from defectd.settings import Settings
from defectd.telemetry.jtop_source import JtopSource
from defectd.telemetry.platforms import read_board
from defectd.telemetry.sample import DeviceSample, Roots
from defectd.telemetry.sampler import Ears, Sampler
from defectd.telemetry.sysfs import Sysfs
from defectd.telemetry.thermal import ThermalLimits
from defectd.web.metrics import Metrics


def build_sampler(
    settings: Settings,
    boot_id: str,
    faults: Faults,
    observe: Callable[[DeviceSample, bool], None],
    publish: Callable[[DeviceTelemetry], None],
    record: Callable[[SlowDownEvent], None],
    outbox_pending: Callable[[], int],
    names: Callable[[], Mapping[int, str]],
    roots: Roots | None = None,
) -> Sampler:
    """*observe* gets each look, and whether the machine is held back; *names* are those of our processes, by pid.
    Without *roots* they are those of the environment."""
    roots = roots or Roots.of_environment()
    thermal, telemetry = settings.thermal, settings.telemetry
    limits = ThermalLimits(warn_c=thermal.warn_c, shed_c=thermal.shed_c, slow_c=thermal.slow_c, alarm_c=thermal.alarm_c)
    return Sampler(
        settings.station.station,
        boot_id,
        read_board(roots),
        Sysfs(roots, settings.state.directory, names),
        JtopSource() if telemetry.jtop else None,
        limits,
        Ears(faults, publish, record, observe),
        settings.inspection.deadline_ms,
        telemetry.every_s,
        outbox_pending,
        roots,
    )


def refresh(
    metrics: Metrics, sample: DeviceSample, throttled: bool, outbox: Outbox, rollouts: Rollouts | None,
    exits: Mapping[str, Mapping[str, int]],
) -> None:  # fmt: skip
    """What is not told unit by unit; *exits* are those of each worker, by reason."""
    depth = outbox.depth()
    reported = rollouts.reported() if rollouts is not None else None
    metrics.sampled(sample, throttled=throttled)
    metrics.set_outbox(depth.pending, depth.oldest_s, depth.bytes, depth.dropped, depth.dead_letters)
    metrics.set_rollout(reported.rollout if reported is not None else None)
    for worker, by_reason in exits.items():
        metrics.set_worker_exits(worker, by_reason)
