"""Which runtimes a bundle could have on a device, and which it should have. Pure: selection.py does the work."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Annotated

from defectd.models.bundle import Bundle
from defectd.models.fingerprint import fingerprint
from defectd.models.golden import GoldenReport
from defectd.models.manifest import Artifact, Manifest, Role

_ROLES: dict[str, tuple[Role, ...]] = {  # what a runtime runs, or is built from; the first that a bundle has
    "torchscript": ("torchscript",),
    "compiled": ("exported_program",),
    "tensorrt": ("onnx",),
    "torch-tensorrt": ("torch_tensorrt", "torchscript"),
}
_TORCH_MB = {"cpu": 500, "cuda": 1500}
_COMPILER_MB = 1500
_COPIES = 4  # of the file: its bytes, weights, a second layout, activations
_LEAST_SAMPLES = 10


@dataclass(frozen=True)
class BuildOptions:
    """What a builder on this device is told. `dla` is the number of a core, None for the GPU."""

    workspace_mb: int = 1024
    dla: int | None = None


@dataclass(frozen=True)
class Candidate:
    """One runtime that might serve. `obstacle` says why it cannot even be tried; `builds` is true if `source`, of
    `source_sha256`, must first be made into an engine for this very device."""

    runtime: str
    precision: str
    device: str
    source: Path | None
    source_sha256: str
    builds: bool
    fingerprint: str
    on_gpu: bool
    build: BuildOptions
    obstacle: str | None = None

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.runtime} {self.precision}"


Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Reply(BaseModel):
    """Parsed from what a trial says; unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), arbitrary_types_allowed=True)


class BatchResult(Reply):
    """`latency_ms` of the network alone, for all pictures of a batch together; empty if there is an `error`."""

    batch: int
    latency_ms: list[Milliseconds]
    error: str | None = None


class TrialResult(Reply):
    """What a trial measured. `latency_ms` is of whole inferences, from pixels to boxes; `curve_ms` of the first ones,
    from the cold call on; `golden` is None if the bundle has no golden pictures."""

    runtime: str
    device: str
    device_name: str
    notes: list[str]
    start_s: float
    warmup: dict[str, Any]
    curve_ms: list[Milliseconds]
    golden: GoldenReport | None
    latency_ms: list[Milliseconds] = Field(min_length=_LEAST_SAMPLES)
    inference_ms: list[Milliseconds]
    batches: list[BatchResult] = []
    peak_rss_mb: float
    peak_gpu_mb: float | None = None

    @property
    def p50_ms(self) -> float:
        """Of whole inferences."""
        return percentile(self.latency_ms, 0.5)

    @property
    def p99_ms(self) -> float:
        """Of whole inferences."""
        return percentile(self.latency_ms, 0.99)


@dataclass(frozen=True)
class Trial:
    """A candidate that was tried: a result, or the problem that it had. `passing`: it may not have it another time."""

    candidate: Candidate
    result: TrialResult | None = None
    problem: str | None = None
    passing: bool = False
    build_s: float | None = None


@dataclass(frozen=True)
class Judgement:
    """Why a candidate was taken or not, in words; the milliseconds are None if it never ran."""

    runtime: str
    precision: str
    p50_ms: float | None
    p99_ms: float | None
    acceptable: bool
    reason: str


@dataclass(frozen=True)
class Choice:
    """`runtime` and `precision` are None if nothing may serve. Not `settled`: another time, candidates that could not
    be tried just now may well be better."""

    runtime: str | None
    precision: str | None
    settled: bool
    judgements: tuple[Judgement, ...]

    def to_json(self) -> dict[str, Any]:
        """For the store."""
        return asdict(self)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Choice:
        """From `to_json`. Raises KeyError or TypeError if it is of another version."""
        judgements = tuple(Judgement(**judgement) for judgement in fields["judgements"])
        return cls(fields["runtime"], fields["precision"], bool(fields["settled"]), judgements)

    def lines(self) -> list[str]:
        """For people, one per candidate, in the order in which they were tried."""
        return [f"{one.runtime} {one.precision}: {one.reason}" for one in self.judgements]


def candidates(
    bundle: Bundle, *, device: str, precision: str, versions: Mapping[str, str], build: BuildOptions | None = None
) -> list[Candidate]:
    """Every runtime, the portable one first, with the obstacle if there is one. *device* is auto, cuda or cpu,
    *precision* fp16, fp32 or int8 (which only TensorRT has), *versions* are `fingerprint.installed_versions`."""
    return [
        _candidate(bundle, runtime, device, precision, versions, build or BuildOptions()) for runtime in _ROLES
    ]  # fmt: skip


def _candidate(
    bundle: Bundle, runtime: str, device: str, precision: str, versions: Mapping[str, str], build: BuildOptions
) -> Candidate:
    on_gpu = device != "cpu" and "gpu" in versions
    accelerated = runtime in ("tensorrt", "torch-tensorrt")
    artifacts = [found for role in _ROLES[runtime] if (found := bundle.manifest.artifact(role)) is not None]
    artifact = artifacts[0] if artifacts else None
    builds = accelerated and artifact is not None and artifact.role != "torch_tensorrt"
    if precision == "int8" and runtime != "tensorrt":
        precision = "fp16"
    if not (on_gpu or accelerated):
        precision = "fp32"
    flags: dict[str, object] = {"device": "cuda" if on_gpu else "cpu"}
    if builds:
        flags.update(asdict(build), input_hw=list(bundle.manifest.network.input_hw))
    if precision == "int8":
        flags["calibration"] = [one.sha256 for one in bundle.manifest.artifacts if one.role == "golden_image"]
    sha256 = "" if artifact is None else artifact.sha256
    return Candidate(
        runtime, precision, device,
        None if artifact is None else bundle.directory / artifact.name,
        sha256, builds, fingerprint(sha256, runtime, precision, flags, versions), on_gpu, build,
        _obstacle(runtime, artifact, bundle.manifest, precision, on_gpu, versions),
    )  # fmt: skip


def _obstacle(
    runtime: str, artifact: Artifact | None, manifest: Manifest, precision: str, on_gpu: bool,
    versions: Mapping[str, str],
) -> str | None:  # fmt: skip
    if artifact is None:
        return f"the bundle has no {' and no '.join(_ROLES[runtime])}"
    if runtime in ("tensorrt", "torch-tensorrt") and not on_gpu:
        return "needs an NVIDIA GPU, and none is to be used here"
    packages = ["torch"] if runtime != "torch-tensorrt" else ["torch", "torch-tensorrt"]
    if runtime == "tensorrt":
        packages.append("tensorrt")
    if runtime == "torch-tensorrt" and artifact.role == "torch_tensorrt":
        packages = ["torch"]  # its runtime library will do, wherever it comes from
    missing = [name for name in packages if name not in versions]
    if missing:
        return f"{' and '.join(missing)} is not installed"
    if precision == "int8" and not manifest.golden.pictures:
        return "int8 is calibrated on the golden pictures, and the bundle has none"
    return None


def memory_for_trial_mb(candidate: Candidate, manifest: Manifest) -> int:
    """What must be available before a trial starts: what the manifest requires, or what is usual."""
    size_mb = _size_mb(candidate, manifest)
    usual = _TORCH_MB["cuda" if candidate.on_gpu else "cpu"] + _COPIES * size_mb
    usual += _COMPILER_MB if candidate.runtime == "compiled" else 0
    return max(usual, manifest.requires.mem_mb)


def memory_for_build_mb(candidate: Candidate, manifest: Manifest) -> int:
    """The same for a build, which keeps the workspace beside several copies of the weights."""
    return max(
        _TORCH_MB["cuda"] + candidate.build.workspace_mb + _COPIES * _size_mb(candidate, manifest),
        manifest.requires.mem_mb,
    )


def _size_mb(candidate: Candidate, manifest: Manifest) -> int:
    sizes = (artifact.size for artifact in manifest.artifacts if artifact.sha256 == candidate.source_sha256)
    return max(sizes, default=0) // (1 << 20) + 1


def choose(trials: Sequence[Trial]) -> Choice:
    """The fastest of those that answer like the original: the lowest p99 of whole inferences; of equals, the first."""
    fit = [(trial.result.p99_ms, index) for index, trial in enumerate(trials) if trial.result and not _refusal(trial)]
    best = min(fit)[1] if fit else None
    judgements = tuple(_judge(trial, None if best is None else trials[best]) for trial in trials)
    chosen = None if best is None else trials[best].candidate
    return Choice(
        None if chosen is None else chosen.runtime, None if chosen is None else chosen.precision,
        settled=not any(trial.passing for trial in trials), judgements=judgements,
    )  # fmt: skip


def _refusal(trial: Trial) -> str | None:
    """Why it may not serve, whatever its speed."""
    if trial.result is None:
        return trial.problem or "no result"
    if trial.result.golden is not None and not trial.result.golden.passed:
        return f"does not answer like the original: {'; '.join(trial.result.golden.reasons)}"
    return None


def _judge(trial: Trial, best: Trial | None) -> Judgement:
    result, refusal = trial.result, _refusal(trial)
    if result is None or refusal is not None:
        reason = refusal or "no result"
    else:
        reason = f"p99 {result.p99_ms:.2f} ms, p50 {result.p50_ms:.2f} ms on {result.device_name}; {_agreement(result)}"
        if trial is best:
            reason = f"chosen: {reason}"
        elif best is not None and best.result is not None:
            reason += f"; {result.p99_ms / max(best.result.p99_ms, 1e-6):.2f} times the p99 of {best.candidate.label}"
    return Judgement(
        trial.candidate.runtime, trial.candidate.precision,
        None if result is None else round(result.p50_ms, 3), None if result is None else round(result.p99_ms, 3),
        refusal is None, reason,
    )  # fmt: skip


def _agreement(result: TrialResult) -> str:
    golden = result.golden
    if golden is None:
        return "not compared with the original: the bundle has no golden pictures"
    return f"recall {golden.recall:.4f}, precision {golden.precision:.4f} on {golden.pictures} golden pictures"


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that is not below *share* of them."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
