"""The rollout's half of the composition root: what it needs of the house, as plain callables."""

from __future__ import annotations

from typing import Callable

from defectd.clock import monotonic_ns
from defectd.committed import Committed, check_usable, lost_marker, served_bundle
from defectd.download.download import Limits
from defectd.download.fetching import Source
from defectd.download.sources import open_source
from defectd.engine.serving import Engines
from defectd.faults import Faults
from defectd.inspection.recipe import Recipe
from defectd.inspection.rollout_wire import ModelProgress, RolloutEvent
from defectd.model_planner import ModelPlanner
from defectd.model_source import store_directory, trusted_root
from defectd.models.store import Store
from defectd.rollout.admission import Place
from defectd.rollout.ports import Ports
from defectd.rollout.rollouts import Rollouts
from defectd.rollout.vitals import vitals_of
from defectd.rollout_settings import RolloutSource
from defectd.settings import Settings
from defectd.telemetry.sample import DeviceSample

_BITS_PER_BYTE = 8


def place_of(settings: Settings) -> Place:
    """Where the station stands, and which groups it belongs to."""
    station = settings.station
    return Place(station.site, station.area, station.line, station.station, tuple(settings.rollout.groups))


def build_rollouts(
    settings: Settings,
    recipe: Recipe,
    committed: Committed,
    boot_id: str,
    engines: Engines,
    faults: Faults,
    busy: Callable[[], str],
    latest_sample: Callable[[], DeviceSample | None],
    record: Callable[[RolloutEvent], None],
    progress: Callable[[ModelProgress], None],
    changed: Callable[[], None],
) -> Rollouts | None:
    """None for a station without a source of bundles, or without a store to keep them in."""
    rollout, state = settings.rollout, settings.state.directory
    if not rollout.source or committed.store is None:
        return None
    ports = Ports(
        place=place_of(settings),
        boot_id=boot_id,
        deadline_ms=settings.inspection.deadline_ms,
        incoming=state / "incoming",
        lost_marker=lost_marker(state),
        limits=Limits(
            max_bytes=rollout.max_bundle_mb * 1_000_000,
            rate_bytes_per_s=rollout.download_rate_mbps * 1e6 / _BITS_PER_BYTE,
            total_s=rollout.download_s,
        ),
        sources={source.alias: _opener(source) for source in rollout.source},
        open_store=lambda: Store(store_directory(state)),
        root=lambda: trusted_root(settings),
        check_usable=lambda bundle: check_usable(served_bundle(bundle), recipe),
        planner=lambda bundle, store: ModelPlanner(served_bundle(bundle), store, settings, recipe),
        engines=engines,
        faults=faults,
        busy=busy,
        vitals=lambda: vitals_of(latest_sample(), monotonic_ns()),
        record=record,
        progress=progress,
        changed=changed,
    )
    return Rollouts(ports, after_clean_stop=committed.after_clean_stop)


def _opener(source: RolloutSource) -> Callable[[], Source]:
    return lambda: open_source(source)
