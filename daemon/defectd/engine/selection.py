"""From a bundle to the runtime that serves it best on this device: build what must be built, try each, take the
fastest of those that answer like the original. Every trial is a process of its own; see background.py.

For the daemon's side: no torch here. Whatever a candidate does is a reason in words, never an exception.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping

from pydantic import ValidationError

from defectd.clock import NS_PER_S, monotonic_ns
from defectd.engine.background import Answer, Patience, ask
from defectd.engine.choice import (
    BuildOptions,
    Candidate,
    Choice,
    Trial,
    TrialResult,
    candidates,
    choose,
    memory_for_build_mb,
    memory_for_trial_mb,
)  # fmt: skip
from defectd.errors import DefectdError
from defectd.models.bundle import Bundle
from defectd.models.fingerprint import fingerprint, installed_versions
from defectd.models.manifest import MANIFEST
from defectd.models.store import Store

__all__ = [
    "BuildOptions", "Candidate", "Choice", "Prepared", "Terms", "Trial", "TrialResult",
    "candidates", "choose", "decision_key", "engine_body", "known_choice", "memory_for_trial_mb", "prepare", "prove",
    "select",
]  # fmt: skip

_ENGINE_FILES = {"tensorrt": "model.plan", "torch-tensorrt": "model.trt.ts"}
_DISK_FACTOR = 3  # of the source: an engine, its temporary file, the timing cache

Say = Callable[[str, "float | None"], None]


def _unheard(stage: str, share: float | None) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Terms:
    """How a model is to be served, and how long trying it may take. Thresholds that are None are the bundle's."""

    device: str = "auto"
    precision: str = "fp16"
    threads: int | None = None
    max_detections: int = 300
    calls: int = 200
    batches: tuple[int, ...] = ()
    trial_s: float = 900.0
    build_s: float = 3600.0
    nice: int = 19
    build: BuildOptions = field(default_factory=BuildOptions)
    trial_command: tuple[str, ...] = (sys.executable, "-m", "defectd.engine.trial")
    build_command: tuple[str, ...] = (sys.executable, "-m", "defectd.engine.build")


@dataclass(frozen=True)
class Prepared:
    """The file that an engine loads, or the problem that it could not be made."""

    path: Path | None = None
    sha256: str = ""
    cache: Path | None = None
    build_s: float | None = None
    problem: str | None = None
    passing: bool = False


def select(
    bundle: Bundle, store: Store, terms: Terms, say: Say = _unheard, stop: Callable[[], bool] = _never,
) -> Choice:  # fmt: skip
    """What was decided for this bundle on a device like this, or else is decided now, and kept. Raises StateError."""
    known = known_choice(bundle, store, terms)
    if known is not None and known.settled and known.runtime is not None:
        return known
    versions = installed_versions()
    possible = candidates(
        bundle, device=terms.device, precision=terms.precision, versions=versions, build=terms.build
    )  # fmt: skip
    choice = choose([prove(one, bundle, store, terms, _about(one, say), stop) for one in possible])
    store.record_decision(bundle.manifest_sha256, decision_key(bundle, terms, versions), choice.to_json())
    return choice


def known_choice(bundle: Bundle, store: Store, terms: Terms) -> Choice | None:
    """What was found for this bundle on a device like this; None if nothing was. Raises StateError."""
    fields = store.decision(bundle.manifest_sha256, decision_key(bundle, terms, installed_versions()))
    try:
        return None if fields is None else Choice.of(fields)
    except (KeyError, TypeError):  # of another version of defectd
        return None


def decision_key(bundle: Bundle, terms: Terms, versions: Mapping[str, str]) -> str:
    """The fingerprint under which a choice is kept: another bundle, version, device or order needs another one."""
    flags = {
        "device": terms.device,
        "threads": terms.threads,
        "compiler": shutil.which("g++") is not None,
        **vars(terms.build),
    }
    return fingerprint(bundle.manifest_sha256, "auto", terms.precision, flags, versions)


def prove(
    candidate: Candidate, bundle: Bundle, store: Store | None, terms: Terms, say: Say = _unheard,
    stop: Callable[[], bool] = _never,
) -> Trial:  # fmt: skip
    """Build *candidate* if need be, and try it. Without a store nothing can be built, and compilers begin anew."""
    prepared = prepare(candidate, bundle, store, terms, say, stop)
    if prepared.path is None:
        return Trial(candidate, problem=prepared.problem, passing=prepared.passing, build_s=prepared.build_s)
    request = {
        "engine": engine_body(candidate, prepared, bundle, terms),
        "calls": terms.calls,
        "batches": list(terms.batches),
        "nice": terms.nice,
        "seconds": terms.trial_s,
    }
    needs_mb = memory_for_trial_mb(candidate, bundle.manifest)
    answer = ask(
        terms.trial_command, request, Patience(terms.trial_s, needs_mb, nice=terms.nice), _progress(say), stop
    )  # fmt: skip
    problem, passing = _problem(answer, "the trial")
    if problem is not None:
        return Trial(candidate, problem=problem, passing=passing, build_s=prepared.build_s)
    try:
        result = TrialResult.model_validate(answer.last.get("result"))
    except ValidationError as error:
        first = error.errors()[0]
        words = f"the trial's answer makes no sense: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        return Trial(candidate, problem=words, build_s=prepared.build_s)
    return Trial(candidate, result, build_s=prepared.build_s)


def prepare(
    candidate: Candidate, bundle: Bundle, store: Store | None, terms: Terms, say: Say = _unheard,
    stop: Callable[[], bool] = _never,
) -> Prepared:  # fmt: skip
    """The file to load: the bundle's own, or the engine that was built of it before, or is built now. An engine that
    was built before is hashed; one that has changed is never used, but built again."""
    if candidate.obstacle is not None or candidate.source is None:
        return Prepared(problem=candidate.obstacle or "the bundle does not have it")
    try:
        if not candidate.builds:
            caches = candidate.runtime == "compiled" and store is not None
            cache = store.engine_cache(candidate.fingerprint, candidate.source_sha256) if caches and store else None
            return Prepared(candidate.source, candidate.source_sha256, cache)
        if store is None:
            return Prepared(problem="must be built, and there is no state directory to keep it in")
        built = store.engine(candidate.fingerprint)
        if built is not None:
            return Prepared(built.path, built.sha256)
        return _build(candidate, bundle, store, terms, say, stop)
    except (DefectdError, OSError) as error:
        return Prepared(problem=str(error), passing=True)


def _build(
    candidate: Candidate, bundle: Bundle, store: Store, terms: Terms, say: Say, stop: Callable[[], bool]
) -> Prepared:
    """Raises StateError, ModelError."""
    assert candidate.source is not None
    directory = store.engine_cache(candidate.fingerprint, candidate.source_sha256)
    out = directory / _ENGINE_FILES[candidate.runtime]
    needed, free = _DISK_FACTOR * candidate.source.stat().st_size, _free_bytes(directory)
    if free < needed:
        shortage = f"building needs {needed / 1e6:.0f} MB in {directory}, {free / 1e6:.0f} MB are free"
        return Prepared(problem=shortage, passing=True)
    calibration = [str(bundle.directory / one.image) for one in bundle.manifest.golden.pictures]
    order = {
        "kind": candidate.runtime,
        "source": str(candidate.source),
        "out": str(out),
        "precision": candidate.precision,
        "workspace_mb": candidate.build.workspace_mb,
        "timing_cache": str(store.timing_cache(_timing_key())),
        "calibration": calibration if candidate.precision == "int8" else [],
        "dla": candidate.build.dla,
        "input_hw": list(bundle.manifest.network.input_hw),
    }
    needs_mb = memory_for_build_mb(candidate, bundle.manifest)
    _clear(directory)  # of what a build left that was killed
    begun_ns = monotonic_ns()
    answer = ask(
        terms.build_command, order, Patience(terms.build_s, needs_mb, nice=terms.nice), _progress(say), stop
    )  # fmt: skip
    build_s = round((monotonic_ns() - begun_ns) / NS_PER_S, 1)
    problem, passing = _problem(answer, "the build")
    if problem is not None:
        _clear(directory)
        return Prepared(problem=problem, passing=passing, build_s=build_s)
    done = answer.last.get("done")
    built = store.record_engine(candidate.fingerprint, out.name, str(done["sha256"] if isinstance(done, dict) else ""))
    return Prepared(built.path, built.sha256, build_s=build_s)


def engine_body(candidate: Candidate, prepared: Prepared, bundle: Bundle, terms: Terms) -> dict[str, Any]:
    """The `engine` part of what a worker is configured with (EngineOrder), at the bundle's thresholds."""
    network, golden = bundle.manifest.network, bundle.manifest.golden
    known = {"manifest": str(bundle.directory / MANIFEST), "sha256": bundle.manifest_sha256}
    return {
        "runtime": candidate.runtime,
        "path": str(prepared.path),
        "sha256": prepared.sha256,
        "cache": None if prepared.cache is None else str(prepared.cache),
        "device": candidate.device,
        "precision": "fp32" if candidate.precision == "fp32" else "fp16",  # around an int8 engine, all else is fp16
        "confidence": network.confidence,
        "nms_iou": network.nms_iou,
        "max_detections": terms.max_detections,
        "names": list(network.classes),
        "metadata": {
            "names": list(network.classes),
            "input_hw": list(network.input_hw),
            "stride": network.stride,
            "end2end": network.end2end,
            "dla": candidate.build.dla,
        },
        "threads": terms.threads,
        "golden": known if golden.pictures else None,
    }


def _problem(answer: Answer, who: str) -> tuple[str | None, bool]:
    """Why there is no result, in words, and whether that may pass."""
    if answer.problem is not None:
        return f"{who} {answer.problem}", answer.passing
    error = answer.last.get("error")
    if isinstance(error, dict):
        kind = str(error.get("kind"))
        detail = str(error.get("detail"))[:1000]
        return f"{who} failed: {detail}", kind == "out_of_memory" or "space" in detail.lower()
    if "result" in answer.last or "done" in answer.last:
        return None, False
    return f"{who} ended without an answer", False


def _timing_key() -> str:
    """Of the device and its TensorRT alone, whatever the model."""
    return fingerprint("", "tensorrt", "", {}, installed_versions())


def _clear(directory: Path) -> None:
    """What a failed build has left there."""
    for path in directory.iterdir():
        with suppress(OSError):
            path.unlink()


def _free_bytes(directory: Path) -> int:
    file_system = os.statvfs(directory)
    return file_system.f_bavail * file_system.f_frsize


def _about(candidate: Candidate, say: Say) -> Say:
    return lambda stage, share: say(f"{candidate.label}: {stage}", share)


def _progress(say: Say) -> Callable[[Mapping[str, Any]], None]:
    def heard(line: Mapping[str, Any]) -> None:
        share = line.get("share")
        say(str(line.get("stage", ""))[:200], float(share) if isinstance(share, (int, float)) else None)

    return heard
