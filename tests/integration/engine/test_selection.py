"""Bundles on trial in real processes, and processes that misbehave in place of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import textwrap
import time

import pytest

pytest.importorskip("torch")

from defectd.engine import selection
from defectd.engine.base import EngineOrder
from defectd.engine.build_order import BuildOrder
from defectd.engine.selection import Terms, candidates, engine_body, known_choice, prepare, prove, select
from defectd.models.fingerprint import installed_versions
from defectd.models.store import Store
from support import models
from support.releases import release
from support.tried import Endless, served

TERMS = Terms(device="cpu", threads=1, calls=30, trial_s=150)
JETSON = {"machine": "aarch64", "gpu": "sm_87", "l4t": "36.4.3", "torch": "2.5.0", "tensorrt": "10.3.0"}


@pytest.fixture
def store(tmp_path):
    with_store = Store(tmp_path / "models")
    yield with_store
    with_store.close()


def candidate(bundle, runtime="torchscript", device="cpu", versions=None):
    found = candidates(bundle, device=device, precision="fp16", versions=versions or installed_versions())
    return next(each for each in found if each.runtime == runtime)


def instead(code: str, **changes) -> Terms:
    """Terms under which this program runs in place of the trial, or of the builder."""
    command = (sys.executable, "-c", textwrap.dedent(code))
    return dataclasses.replace(TERMS, trial_command=command, build_command=command, **changes)


def test_a_good_runtime_passes_its_trial(tmp_path):
    bundle = served(tmp_path / "bundle", tmp_path)
    said = []
    trial = prove(candidate(bundle), bundle, None, TERMS, lambda stage, share: said.append((stage, share)))
    assert trial.problem is None and trial.result.golden.passed
    assert trial.result.runtime == "torchscript-fp32-cpu"
    assert {stage for stage, _ in said} == {"loading", "warming", "golden", "measuring"}


def test_one_that_hangs_is_killed_when_its_time_is_over(tmp_path):
    bundle = served(tmp_path / "bundle", tmp_path, module=Endless())
    begun = time.monotonic()
    trial = prove(candidate(bundle), bundle, None, dataclasses.replace(TERMS, trial_s=8))
    assert (trial.problem, trial.passing) == ("the trial took longer than 8 s", False)
    assert time.monotonic() - begun < 14


def test_one_that_is_stopped_is_killed_when_its_time_is_over(tmp_path):
    bundle = served(tmp_path / "bundle", tmp_path)
    trial = prove(candidate(bundle), bundle, None, instead("import os; os.kill(os.getpid(), 19)", trial_s=1))
    assert trial.problem == "the trial took longer than 1 s"


def test_one_that_crashes_is_a_reason(tmp_path):
    bundle = served(tmp_path / "bundle", tmp_path)
    trial = prove(candidate(bundle), bundle, None, instead("import os; os.kill(os.getpid(), 11)"))
    assert trial.problem == "the trial was killed by SIGSEGV"


@pytest.mark.parametrize("answer", [{"result": {}}, {"result": 7}, {"stage": "loading", "share": 0}, {"done": {}}])
def test_an_answer_that_makes_no_sense_is_a_reason(tmp_path, answer):
    bundle = served(tmp_path / "bundle", tmp_path)
    trial = prove(candidate(bundle), bundle, None, instead(f"print({json.dumps(answer)!r})"))
    assert trial.result is None and trial.problem


def test_one_that_fails_the_golden_pictures_is_not_chosen(tmp_path, store):
    bundle = served(tmp_path / "bundle", tmp_path, boxes=[[40, 40, 56, 56, 0.9, 1]])
    choice = select(bundle, store, TERMS)
    assert choice.runtime is None
    assert "torchscript fp32: does not answer like the original: recall 0.0000" in choice.lines()[0]
    assert known_choice(bundle, store, TERMS) == choice and choice.settled


def test_one_that_needs_more_memory_than_there_is_does_not_start(tmp_path):
    bundle = served(tmp_path / "bundle", tmp_path, requires={"mem_mb": 100_000_000})
    trial = prove(candidate(bundle), bundle, None, TERMS)
    assert trial.problem.startswith("the trial needs 100000000 MB of memory, ") and trial.passing


def test_the_choice_and_its_reasons_are_kept_until_something_changes(tmp_path, store, monkeypatch):
    bundle = served(tmp_path / "bundle", tmp_path)
    said = []
    choice = select(bundle, store, TERMS, lambda stage, share: said.append(stage))
    assert choice.runtime == "torchscript" and choice.lines()[0].startswith("torchscript fp32: chosen: p99 ")
    assert choice.lines()[1] == "compiled fp32: the bundle has no exported_program"
    assert "torchscript fp32: measuring" in said
    refuses = instead("raise SystemExit('tried again')")
    assert select(bundle, store, refuses) == known_choice(bundle, store, TERMS) == choice
    upgraded = {**installed_versions(), "l4t": "99.0"}
    monkeypatch.setattr(selection, "installed_versions", lambda: upgraded)
    assert known_choice(bundle, store, TERMS) is None
    assert select(bundle, store, refuses).runtime is None


@pytest.mark.torch
def test_of_torchscript_and_compiled_the_faster_is_chosen(tmp_path, store):
    bundle = served(tmp_path / "bundle", tmp_path, module=models.Convolving(), exported=True)
    choice = select(bundle, store, dataclasses.replace(TERMS, trial_s=300))
    ran = [judgement for judgement in choice.judgements if judgement.p99_ms is not None]
    assert [judgement.runtime for judgement in ran] == ["torchscript", "compiled"], choice.lines()
    assert choice.runtime == min(ran, key=lambda judgement: judgement.p99_ms).runtime
    cache = store.engine_cache(candidate(bundle, "compiled").fingerprint, "00" * 32)
    assert any(cache.iterdir())  # the compiler's, for the next start


def test_what_a_worker_is_told_is_what_was_tried(tmp_path):
    bundle = served(tmp_path / "bundle", tmp_path)
    one = candidate(bundle)
    order = EngineOrder.of(engine_body(one, prepare(one, bundle, None, TERMS), bundle, TERMS))
    assert (order.path, order.sha256) == (bundle.path("torchscript"), one.source_sha256)
    assert (order.runtime, order.device, order.precision) == ("torchscript", "cpu", "fp32")
    assert order.metadata == {**models.DECLARED, "dla": None} and order.names == models.NAMES


BUILDER = """
    import hashlib, json, os, sys
    order = json.load(sys.stdin)
    print(json.dumps({"stage": "parsing", "share": None}), flush=True)
    data = b"a plan for " + os.fsencode(order["precision"])
    open(order["out"], "wb").write(data)
    open(order["timing_cache"], "wb").write(b"timings")
    open(order["out"] + ".order", "w").write(json.dumps(order))
    print(json.dumps({"done": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "seconds": 1}}))
"""


def plan_of(bundle):
    return candidate(bundle, "tensorrt", "auto", JETSON)


def network(tmp_path):
    return release(
        tmp_path / "bundle", {"model.onnx": ("onnx", b"O" * 1000), "model.torchscript": ("torchscript", b"T")}
    )


def test_what_must_be_built_is_built_once_and_kept(tmp_path, store):
    bundle = network(tmp_path)
    one, said = plan_of(bundle), []
    built = prepare(one, bundle, store, instead(BUILDER), lambda stage, share: said.append((stage, share)))
    assert built.path.read_bytes() == b"a plan for fp16" and built.build_s is not None
    assert built.sha256 == hashlib.sha256(b"a plan for fp16").hexdigest()
    assert said == [("parsing", None)]
    order = json.loads((built.path.parent / "model.plan.order").read_text())
    assert BuildOrder.of(order).input_hw == (64, 96) and order["source"] == str(bundle.path("onnx"))
    again = prepare(one, bundle, store, instead("raise SystemExit('built again')"))
    assert (again.path, again.sha256, again.build_s) == (built.path, built.sha256, None)


def test_a_flipped_byte_in_an_engine_is_refused_and_it_is_built_again(tmp_path, store):
    bundle = network(tmp_path)
    one = plan_of(bundle)
    built = prepare(one, bundle, store, instead(BUILDER))
    built.path.chmod(0o600)
    built.path.write_bytes(b"a plan for fp17")
    again = prepare(one, bundle, store, instead(BUILDER))
    assert again.build_s is not None and again.path.read_bytes() == b"a plan for fp16"


def test_after_an_upgrade_the_old_engine_is_never_loaded(tmp_path, store):
    bundle = network(tmp_path)
    built = prepare(plan_of(bundle), bundle, store, instead(BUILDER))
    upgraded = candidate(bundle, "tensorrt", "auto", {**JETSON, "l4t": "36.5.0"})
    other = prepare(upgraded, bundle, store, instead(BUILDER))
    assert other.build_s is not None and other.path != built.path


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os; os.kill(os.getpid(), 19)", "the build took longer than 2 s"),
        ("import os; os.kill(os.getpid(), 11)", "the build was killed by SIGSEGV"),
        ("print('{}')", "the build ended without an answer"),
        (
            """
            import json, sys
            open(json.load(sys.stdin)["out"], "wb").write(b"half")
            print(json.dumps({"error": {"kind": "unusable", "detail": "no such layer: Magic"}}))
            raise SystemExit(3)
            """,
            "the build failed: no such layer: Magic",
        ),
    ],
)
def test_a_build_that_fails_is_a_reason_and_leaves_nothing(tmp_path, store, code, problem):
    bundle = network(tmp_path)
    one = plan_of(bundle)
    prepared = prepare(one, bundle, store, instead(code, build_s=2))
    assert (prepared.path, prepared.problem) == (None, problem)
    assert list((store.directory / "engines" / one.fingerprint).iterdir()) == []
    assert store.engine(one.fingerprint) is None


def test_a_disk_that_is_full_is_worth_another_try(tmp_path, store, monkeypatch):
    bundle = network(tmp_path)
    code = """
        import json
        detail = "model.plan: 90000000 bytes could not be written: No space left on device; free space"
        print(json.dumps({"error": {"kind": "unusable", "detail": detail}}))
        raise SystemExit(3)
    """
    prepared = prepare(plan_of(bundle), bundle, store, instead(code))
    assert "No space left on device" in prepared.problem and prepared.passing
    monkeypatch.setattr(selection, "_free_bytes", lambda _: 2999)
    prepared = prepare(plan_of(bundle), bundle, store, instead(BUILDER))
    assert prepared.problem.startswith("building needs 0 MB in") and prepared.passing and prepared.path is None


def test_a_builder_that_lies_about_its_file_is_not_believed(tmp_path, store):
    bundle = network(tmp_path)
    lie = BUILDER.replace("hashlib.sha256(data)", "hashlib.sha256(b'')")
    prepared = prepare(plan_of(bundle), bundle, store, instead(lie))
    assert prepared.path is None and "something else wrote it" in prepared.problem


def test_without_a_state_directory_nothing_is_built(tmp_path):
    bundle = network(tmp_path)
    prepared = prepare(plan_of(bundle), bundle, None, TERMS)
    assert prepared.problem == "must be built, and there is no state directory to keep it in"


def test_the_real_builder_says_what_it_lacks(tmp_path, store):
    bundle = network(tmp_path)
    prepared = prepare(plan_of(bundle), bundle, store, TERMS)
    assert prepared.path is None and prepared.problem.startswith("the build ")
