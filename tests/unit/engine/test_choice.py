from __future__ import annotations

import dataclasses
import json

import pytest

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
    percentile,
)  # fmt: skip
from support.releases import release

JETSON = {"machine": "aarch64", "gpu": "sm_87", "l4t": "36.4.3", "torch": "2.5.0", "tensorrt": "10.3.0"}
LAPTOP = {"machine": "x86_64", "torch": "2.13.0"}
AGREES = {
    "pictures": 8, "expected": 20, "found": 20, "matched": 20, "recall": 1.0, "precision": 1.0,
    "confidence_drift": 0.001, "lowest_iou": 0.99, "missed_critical": 0, "reasons": [],
}  # fmt: skip


@pytest.fixture
def bundle(tmp_path):
    artifacts = {
        "model.torchscript": ("torchscript", b"T" * 3_000_000),
        "model.pt2": ("exported_program", b"P"),
        "model.onnx": ("onnx", b"O" * 2_000_000),
        "golden-0001.png": ("golden_image", b"G"),
    }
    return release(
        tmp_path / "bundle", artifacts, golden={"pictures": [{"image": "golden-0001.png", "boxes": []}]},
        requires={"mem_mb": 600},
    )  # fmt: skip


def listed(bundle, device="auto", precision="fp16", versions=JETSON, **build) -> dict[str, Candidate]:
    found = candidates(
        bundle, device=device, precision=precision, versions=versions, build=BuildOptions(**build)
    )  # fmt: skip
    return {candidate.runtime: candidate for candidate in found}


def trial(runtime: str, latency_ms: list[float] | float | None, golden=AGREES, **changes) -> Trial:
    candidate = Candidate(runtime, "fp16", "auto", None, "ab" * 32, False, "cd" * 16, True, BuildOptions())
    if latency_ms is None:
        return Trial(candidate, **changes)
    samples = latency_ms if isinstance(latency_ms, list) else [latency_ms] * 100
    result = {
        "runtime": f"{runtime}-fp16-cuda", "device": "cuda", "device_name": "Orin", "notes": [], "start_s": 3.5,
        "warmup": {}, "curve_ms": [], "golden": golden, "latency_ms": samples, "inference_ms": [],
        "peak_rss_mb": 900.0,
    }  # fmt: skip
    return Trial(candidate, TrialResult.model_validate(result), **changes)


def test_a_jetson_tries_what_it_has_the_portable_one_first(bundle):
    found = listed(bundle)
    assert list(found) == ["torchscript", "compiled", "tensorrt", "torch-tensorrt"]
    assert {name: candidate.obstacle for name, candidate in found.items()} == {
        "torchscript": None,
        "compiled": None,
        "tensorrt": None,
        "torch-tensorrt": "torch-tensorrt is not installed",
    }
    assert found["tensorrt"].source == bundle.directory / "model.onnx"
    assert [name for name, candidate in found.items() if candidate.builds] == ["tensorrt", "torch-tensorrt"]
    assert {candidate.precision for candidate in found.values()} == {"fp16"}


def test_a_machine_without_a_gpu_runs_only_what_needs_none_and_in_fp32(bundle):
    for found in (listed(bundle, versions=LAPTOP), listed(bundle, device="cpu")):
        assert found["torchscript"].obstacle is found["compiled"].obstacle is None
        assert found["torchscript"].precision == found["compiled"].precision == "fp32"
        assert found["tensorrt"].obstacle == "needs an NVIDIA GPU, and none is to be used here"


def test_what_the_bundle_does_not_have_is_said(tmp_path):
    found = listed(release(tmp_path / "bundle", {"model.onnx": ("onnx", b"O")}))
    assert found["torchscript"].obstacle == "the bundle has no torchscript"
    assert found["torch-tensorrt"].obstacle == "the bundle has no torch_tensorrt and no torchscript"
    assert found["tensorrt"].obstacle is None


def test_torchscript_with_engines_inside_is_not_built_and_needs_no_compiler(tmp_path):
    found = listed(release(tmp_path / "bundle", {"model.trt.ts": ("torch_tensorrt", b"E")}))["torch-tensorrt"]
    assert (found.builds, found.obstacle) == (False, None)


def test_int8_is_for_tensorrt_alone_and_needs_golden_pictures(bundle, tmp_path):
    found = listed(bundle, precision="int8")
    assert {name: each.precision for name, each in found.items()} == {
        "torchscript": "fp16", "compiled": "fp16", "tensorrt": "int8", "torch-tensorrt": "fp16",
    }  # fmt: skip
    bare = release(tmp_path / "bare", {"model.onnx": ("onnx", b"O")})
    assert "calibrated on the golden pictures" in (listed(bare, precision="int8")["tensorrt"].obstacle or "")


def test_a_missing_package_is_an_obstacle(bundle):
    found = listed(bundle, versions={"machine": "aarch64", "gpu": "sm_87"})
    assert found["torchscript"].obstacle == "torch is not installed"
    assert found["tensorrt"].obstacle == "torch and tensorrt is not installed"


def test_the_fingerprint_knows_how_an_engine_was_to_be_built(bundle):
    one = listed(bundle)
    assert one["tensorrt"].fingerprint == listed(bundle)["tensorrt"].fingerprint
    assert one["tensorrt"].fingerprint != listed(bundle, dla=0)["tensorrt"].fingerprint
    assert one["compiled"].fingerprint == listed(bundle, dla=0)["compiled"].fingerprint
    assert one["compiled"].fingerprint != listed(bundle, device="cpu")["compiled"].fingerprint


def test_memory_is_what_the_manifest_requires_or_what_is_usual(bundle):
    gpu, cpu = listed(bundle), listed(bundle, versions=LAPTOP)
    assert memory_for_trial_mb(cpu["torchscript"], bundle.manifest) == 600
    assert memory_for_trial_mb(gpu["torchscript"], bundle.manifest) == 1500 + 4 * 3
    assert memory_for_trial_mb(cpu["compiled"], bundle.manifest) == 500 + 4 + 1500
    assert memory_for_build_mb(gpu["tensorrt"], bundle.manifest) == 1500 + 1024 + 4 * 2


def test_the_lowest_p99_wins_not_the_lowest_median():
    spiky = trial("compiled", [1.0] * 98 + [50.0] * 2)
    choice = choose([trial("torchscript", 9.0), spiky, trial("tensorrt", 4.0)])
    assert (choice.runtime, choice.precision, choice.settled) == ("tensorrt", "fp16", True)
    assert choice.lines() == [
        "torchscript fp16: p99 9.00 ms, p50 9.00 ms on Orin; recall 1.0000, precision 1.0000 on 8 golden pictures; "
        "2.25 times the p99 of tensorrt fp16",
        "compiled fp16: p99 50.00 ms, p50 1.00 ms on Orin; recall 1.0000, precision 1.0000 on 8 golden pictures; "
        "12.50 times the p99 of tensorrt fp16",
        "tensorrt fp16: chosen: p99 4.00 ms, p50 4.00 ms on Orin; recall 1.0000, precision 1.0000 on 8 golden pictures",
    ]


def test_of_equals_the_first_wins():
    assert choose([trial("torchscript", 4.0), trial("compiled", 4.0)]).runtime == "torchscript"


def test_one_that_fails_the_golden_pictures_is_never_chosen():
    wrong = {**AGREES, "recall": 0.5, "reasons": ["recall 0.5000, at least 0.98 is required"]}
    choice = choose([trial("torchscript", 90.0), trial("tensorrt", 1.0, golden=wrong)])
    assert choice.runtime == "torchscript"
    refused = choice.judgements[1]
    assert (refused.acceptable, refused.p99_ms) == (False, 1.0)
    assert refused.reason == "does not answer like the original: recall 0.5000, at least 0.98 is required"
    assert choose([trial("tensorrt", 1.0, golden=wrong)]).runtime is None


def test_one_that_hung_or_crashed_is_a_reason():
    choice = choose([trial("compiled", None, problem="the trial took longer than 900 s"), trial("torchscript", 9.0)])
    assert choice.runtime == "torchscript" and choice.settled
    assert choice.lines()[0] == "compiled fp16: the trial took longer than 900 s"


def test_a_problem_that_may_pass_leaves_the_choice_open():
    short = trial("tensorrt", None, problem="needs 2500 MB of memory, 900 MB are available", passing=True)
    assert not choose([trial("torchscript", 9.0), short]).settled


def test_without_golden_pictures_the_reason_says_so():
    choice = choose([trial("torchscript", 9.0, golden=None)])
    assert choice.runtime == "torchscript"
    assert "not compared with the original: the bundle has no golden pictures" in choice.lines()[0]


def test_nothing_to_choose_from_is_no_choice():
    assert choose([]) == Choice(None, None, True, ())


def test_a_choice_survives_being_written_down():
    choice = choose([trial("torchscript", 9.0), trial("compiled", None, problem="crashed", passing=True)])
    assert Choice.of(json.loads(json.dumps(choice.to_json()))) == choice
    with pytest.raises((KeyError, TypeError)):
        Choice.of({"runtime": "torchscript"})


def test_a_result_with_nonsense_in_it_is_none():
    good = trial("torchscript", 9.0).result.model_dump()
    good["golden"] = AGREES
    for nonsense in ({"latency_ms": [-1.0] * 50}, {"latency_ms": [float("nan")] * 50}, {"latency_ms": []},
                     {"golden": {"recall": 1}}, {"device": None}):  # fmt: skip
        with pytest.raises(ValueError):
            TrialResult.model_validate({**good, **nonsense})


def test_a_percentile_is_one_of_the_samples():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
    assert percentile(list(range(200)), 0.99) == 198


def test_candidates_are_values(bundle):
    candidate = listed(bundle)["tensorrt"]
    assert candidate.label == "tensorrt fp16"
    assert dataclasses.replace(candidate) == candidate
