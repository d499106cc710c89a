"""What it costs that clocks go down between units: measured, because no setting tells."""

from __future__ import annotations

import os
from typing import Any, Iterator, Mapping

from defectd.checked import build_recipe
from defectd.committed import as_stored
from defectd.doctor.asking import told_by
from defectd.doctor.checks.model import brought
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, ok, skipped, warning
from defectd.errors import DefectdError
from defectd.model_planner import ModelPlanner
from defectd.model_source import ServedModel, store_directory, trusted_root
from defectd.models.store import Store
from defectd.settings import Settings

_PAUSE_S = 2.0
_ROUNDS, _BUSY_CALLS = 6, 10
_MEASURE_S, _LIMIT_S = 45.0, 240.0
_WORTH_IT, _WORTH_IT_MS = 1.25, 2.0
_FIRST_SURE = 3


def check_pauses(patient: Patient) -> Iterator[Finding]:
    """With the model of this station. Takes the machine for half a minute."""
    if patient.quick:
        yield skipped("pauses", "left out by --quick")
    elif patient.busy:
        yield skipped("pauses", f"{patient.busy}: it would feel this, and this would feel it")
    elif patient.settings is None or patient.checked is None:
        yield skipped("pauses", "needs the model; see the lines about settings above first")
    else:
        yield _measure(patient)


def _measure(patient: Patient) -> Finding:
    assert patient.settings is not None and patient.checked is not None
    settings = patient.settings
    try:
        engine = _engine(patient.checked.model, settings)
    except (DefectdError, OSError) as problem:
        return warning("pauses", f"not measured: {problem}", "see 'runtimes' above")
    pause_s = min(settings.model.keep_warm_s or _PAUSE_S, _PAUSE_S)
    request = {
        "engine": engine, "pause_s": pause_s, "rounds": _ROUNDS, "busy_calls": _BUSY_CALLS, "seconds": _MEASURE_S,
    }  # fmt: skip
    told = told_by("after_a_pause", request, _LIMIT_S, needs_mb=512, nice=0)
    if told.trouble is not None:
        return warning("pauses", f"not measured: {told.trouble}", "see torch above")
    return pause_finding(told.facts, pause_s, settings.inspection.deadline_ms, is_jetson=patient.is_jetson)


def _engine(configured: ServedModel, settings: Settings) -> Mapping[str, Any]:
    """As the daemon would start it now. Only the state's owner may look into the store, where files would else become
    somebody else's. Raises StateError, ModelError."""
    recipe, directory = build_recipe(settings), store_directory(settings.state.directory)
    database = directory / "models.db"
    if configured.bundle is None or not database.exists() or database.stat().st_uid != os.geteuid():
        return ModelPlanner(configured, None, settings, recipe).first_plans()[0].configuration
    store = Store(directory)
    try:
        release = brought(store, configured)
        root = None if settings.model.trust is None else trusted_root(settings)
        model = configured if release is None else as_stored(release, root)
        return ModelPlanner(model, store, settings, recipe).first_plans()[0].configuration
    finally:
        store.close()


def pause_finding(facts: Mapping[str, Any], pause_s: float, deadline_ms: float, *, is_jetson: bool) -> Finding:
    """Whether an inference after a pause takes longer than one among others, and by how much. Pure."""
    busy, rested = sorted(facts["busy_ms"]), sorted(facts["rested_ms"])
    busy_ms, rested_ms, worst_ms = busy[len(busy) // 2], rested[len(rested) // 2], max(rested)
    figures = {
        "busy_p50_ms": round(busy_ms, 2), "rested_p50_ms": round(rested_ms, 2), "rested_max_ms": round(worst_ms, 2),
        "pause_s": pause_s, "runtime": facts["runtime"],
    }  # fmt: skip
    found = (
        f"{facts['runtime']} on {facts['device_name']}: {busy_ms:.1f} ms per inference without a pause, "
        f"{rested_ms:.1f} ms after {pause_s:g} s of rest (p50 of {len(busy)} and {len(rested)})"
    )
    sleeps = rested_ms > _WORTH_IT * busy_ms and rested_ms - busy_ms > _WORTH_IT_MS and len(rested) >= _FIRST_SURE
    if max(busy_ms, rested_ms) > deadline_ms:
        return warning("pauses", f"{found}; the deadline is {deadline_ms:g} ms: every unit would be an error",
                       "bring a smaller model or a faster runtime (defectd bench), or raise "
                       "inspection.deadline_ms if the line allows", **figures)  # fmt: skip
    if not sleeps:
        return ok("pauses", found, **figures)
    cost = f"{found}: clocks that sleep cost {rested_ms - busy_ms:.1f} ms"
    return warning("pauses", cost, _keep_awake(facts, pause_s, is_jetson=is_jetson), **figures)


def _keep_awake(facts: Mapping[str, Any], pause_s: float, *, is_jetson: bool) -> str:
    warm = f"model.keep_warm_s = {pause_s / 4:g} keeps the engine awake between units"
    if is_jetson:
        return f"sudo jetson_clocks pins the clocks until the next start (more heat and power); or {warm}"
    if facts["device"] == "cuda":
        return f"sudo nvidia-smi -lgc MHZ pins the GPU's clock (nvidia-smi -q -d SUPPORTED_CLOCKS has them); or {warm}"
    return f"sudo cpupower frequency-set -g performance; or {warm}"
