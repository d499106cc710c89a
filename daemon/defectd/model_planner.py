"""From a verified model to what engines are told: which runtimes it can have here, and which of them serves best."""

from __future__ import annotations

import logging
from typing import Any, Callable

from defectd.engine.selection import (
    BuildOptions,
    Candidate,
    Choice,
    Say,
    Terms,
    candidates,
    choose,
    engine_body,
    known_choice,
    memory_for_trial_mb,
    prepare,
    prove,
    select,
)
from defectd.engine.server import EnginePlan
from defectd.errors import ModelError
from defectd.inspection.recipe import Recipe
from defectd.model_source import ServedModel, is_engine
from defectd.models.bundle import Bundle
from defectd.models.catalog import Release
from defectd.models.fingerprint import installed_versions
from defectd.models.manifest import MANIFEST, parse_manifest
from defectd.models.store import Store
from defectd.settings import Settings

log = logging.getLogger(__name__)

PORTABLE = ("torchscript", "compiled")
"""Runtimes that need nothing built: they serve until it is known what does so best, and when that fails."""

_NMS_IOU = 0.7
"""Of a single file, which does not say; Ultralytics' default."""
_COMPILATION = 4
"""How much longer an engine may take to start that compiles what it runs; it says nothing meanwhile."""


def terms_of(settings: Settings) -> Terms:
    """How this station serves a model."""
    model = settings.model
    return Terms(
        device=model.device,
        precision=model.precision,
        threads=model.threads,
        max_detections=model.max_detections,
        trial_s=model.trial_s,
        build=BuildOptions(model.workspace_mb, model.dla_core),
    )


class ModelPlanner:
    """Plans for the engines that may serve one model on this device. Used by one thread at a time."""

    def __init__(self, model: ServedModel, store: Store | None, settings: Settings, recipe: Recipe) -> None:
        """*model* as *store* has it; without a store nothing can be built, and no runtime is chosen."""
        self.model, self._store, self._settings, self._recipe = model, store, settings, recipe
        self._bundle = model.bundle
        self._terms = terms_of(settings)

    def first_plans(self) -> list[EnginePlan]:
        """The engine to start with, then its spares. What must be built first, or is undecided, waits for a trial.
        Raises ModelError if nothing can be served before one."""
        if self._bundle is None:
            return [self._single_plan()]
        known = self._known()
        for line in known.lines() if known is not None else ():
            log.info("known of runtime %s", line)
        wanted = self._settings.model.runtime
        first = wanted if wanted != "auto" else None if known is None else known.runtime
        order = [first] if first is not None else []
        plans = [plan for runtime in dict.fromkeys([*order, *PORTABLE]) if (plan := self.plan(runtime)) is not None]
        if not plans:
            obstacles = [
                f"{one.label}: {one.obstacle}" for one in self._candidates(self._bundle) if one.obstacle is not None
            ]
            raise ModelError(f"{self.model.path}: nothing can serve before a trial; {'; '.join(obstacles)}")
        return plans

    @property
    def undecided(self) -> bool:
        """It is not known what serves best on this device, or it is not built: `choose` would have to work."""
        if self._bundle is None or self._store is None:
            return False
        wanted = self._settings.model.runtime
        if wanted != "auto":
            return self.plan(wanted) is None
        possible = [one for one in self._candidates(self._bundle) if one.obstacle is None]
        if len(possible) == 1 and not possible[0].builds:
            return False  # there is nothing to choose from
        known = self._known()
        return known is None or not known.settled or known.runtime is None or self.plan(known.runtime) is None

    def choose(self, say: Say, stop: Callable[[], bool]) -> Choice:
        """Build and try what might serve, in processes of low priority; minutes. Raises StateError."""
        assert self._bundle is not None and self._store is not None
        wanted, known = self._settings.model.runtime, self._known()
        lost = known.runtime if known is not None and known.settled else None  # chosen before, and not built any more
        runtime = lost if wanted == "auto" else wanted
        if runtime is None:
            return select(self._bundle, self._store, self._terms, say, stop)
        return choose([prove(self._candidate(runtime), self._bundle, self._store, self._terms, say, stop)])

    def plan(self, runtime: str) -> EnginePlan | None:
        """An engine of that runtime; None if this device or this bundle cannot have it, or it is not built yet."""
        assert self._bundle is not None
        candidate = self._candidate(runtime)
        if candidate.obstacle is not None or (candidate.builds and not self._is_built(candidate)):
            return None
        prepared = prepare(candidate, self._bundle, self._store, self._terms)
        if prepared.path is None:
            log.warning("%s: %s", runtime, prepared.problem)
            return None
        return self._plan(engine_body(candidate, prepared, self._bundle, self._terms))

    def memory_mb(self, plan: EnginePlan) -> int:
        """What must be available before that engine starts."""
        assert self._bundle is not None
        return memory_for_trial_mb(self._candidate(str(plan.configuration["runtime"])), self._bundle.manifest)

    def sweep(self) -> None:
        """Delete what no pointer needs, and engines of another JetPack. Not while something is built. Raises
        StateError, ModelError."""
        if self._store is not None:
            releases = [_as_stored(release) for release in self._store.releases()]
            self._store.collect_garbage({one.fingerprint for each in releases for one in self._candidates(each)})

    def _candidates(self, bundle: Bundle) -> list[Candidate]:
        terms = self._terms
        versions = installed_versions()
        return candidates(
            bundle, device=terms.device, precision=terms.precision, versions=versions, build=terms.build
        )  # fmt: skip

    def _candidate(self, runtime: str) -> Candidate:
        assert self._bundle is not None
        return next(candidate for candidate in self._candidates(self._bundle) if candidate.runtime == runtime)

    def _is_built(self, candidate: Candidate) -> bool:
        return self._store is not None and self._store.engine(candidate.fingerprint) is not None

    def _known(self) -> Choice | None:
        """What was found before, settled or not."""
        if self._bundle is None or self._store is None:
            return None
        return known_choice(self._bundle, self._store, self._terms)

    def _single_plan(self) -> EnginePlan:
        model = self._settings.model
        return self._plan(
            {
                "path": str(model.path),
                "sha256": self.model.sha256,
                "runtime": "tensorrt" if is_engine(model.path) else "torchscript",
                "device": model.device,
                "precision": "fp32" if model.precision == "fp32" else "fp16",
                "max_detections": model.max_detections,
                "names": list(self.model.names),
                "threads": model.threads,
            }
        )

    def _plan(self, body: dict[str, Any]) -> EnginePlan:
        model = self._settings.model
        configuration = {
            **body,
            "confidence": self._recipe.lowest_confidence,
            "nms_iou": body.get("nms_iou", _NMS_IOU) if model.nms_iou is None else model.nms_iou,
            "warmup_min": model.warmup_min,
            "warmup_max": model.warmup_max,
            "keep_warm_s": model.keep_warm_s,
        }
        slower = _COMPILATION if body["runtime"] == "compiled" else 1
        start_timeout_s = slower * model.start_timeout_s
        return EnginePlan(
            self.model.name, self.model.version, self.model.sha256, start_timeout_s, model.hang_s, configuration
        )


def _as_stored(release: Release) -> Bundle:
    """Raises ModelError."""
    path = release.directory / MANIFEST
    return Bundle(release.directory, parse_manifest(path.read_bytes(), str(path)), release.manifest_sha256, ())
