"""What is done in each state. A step ends by moving to the next one, or raises why it cannot."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime, time
from pathlib import Path
from typing import Mapping

from defectd.clock import NS_PER_S, monotonic_ns, utc_now
from defectd.download.download import DownloadError, Stopped, download
from defectd.errors import ModelError
from defectd.models.bundle import Bundle, open_bundle
from defectd.models.envelope import PAYLOAD_MANIFEST, TrustError
from defectd.models.manifest import MANIFEST, Manifest, parse_manifest
from defectd.models.trust import Root, verify
from defectd.rollout.admission import AHEAD_S
from defectd.rollout.baseline import Baseline
from defectd.rollout.journey import Journey, Step
from defectd.rollout.ledger import Rollout
from defectd.rollout.policy import Policy
from defectd.rollout.ports import Failed
from defectd.rollout.probation_gate import ProbationGate
from defectd.rollout.shadow_gate import ShadowGate
from defectd.rollout.states import State
from defectd.storage import sync_directory

log = logging.getLogger(__name__)

_ROUND_S = 0.5
_CHECK_EVERY_NS = 2 * NS_PER_S
_SWITCH_WITHIN_S = 30.0
_NOT_THE_BUNDLE = frozenset({"memory", "heat", "no_data"})
"""Verdicts of a gate about the station or the line: the bundle may be tried again."""


def receive(journey: Journey, rollout: Rollout) -> Rollout:
    """It was admitted; a release to go back to is here already."""
    return journey.move(rollout, State.VERIFYING if rollout.action == "rollback" else State.DOWNLOADING)


def fetch(journey: Journey, rollout: Rollout) -> Rollout:
    """Manifest and signatures first, then every file that they vouch for."""
    target = journey.command_of(rollout).target
    if target is None:
        return journey.move(rollout, State.VERIFYING)
    if (here := _whole_release(journey, target.manifest_sha256)) is not None:
        if here != target.release_seq:
            raise Failed("wrong_target", f"this release has the number {here}, the command says {target.release_seq}")
        return journey.move(rollout, State.VERIFYING, detail="this release is here already")
    opened = journey.ports.sources.get(target.source)
    if opened is None:
        raise Failed("unknown_source", f"this station has no source called {target.source} any more: configure it")

    def vouch(data: bytes, envelope: bytes) -> Manifest:
        if verify(envelope, PAYLOAD_MANIFEST, journey.ports.root(), "release", None).payload != data:
            raise TrustError("the manifest is not the one that was signed")
        manifest = parse_manifest(data, MANIFEST)
        if manifest.release_seq != target.release_seq:
            raise ModelError(f"release_seq: is {manifest.release_seq}, the command says {target.release_seq}")
        return manifest

    try:
        directory = journey.ports.incoming
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(directory.parent)
        download(
            opened(), target.path, target.manifest_sha256, directory, vouch, journey.ports.limits,
            lambda share, text: journey.say(text, share), journey.poll,
        )  # fmt: skip
    except Stopped:
        journey.breathe()
        raise
    except DownloadError as error:
        raise Failed(error.code, str(error)) from error
    return journey.move(rollout, State.VERIFYING)


def verify_bundle(journey: Journey, rollout: Rollout) -> Rollout:
    """Every byte, who signed it, and whether it is for this station; then it is the candidate."""
    assert rollout.manifest_sha256 is not None, "receive and fetch know what it is about"
    release = journey.store.release(rollout.manifest_sha256)
    incoming = journey.ports.incoming / rollout.manifest_sha256
    directory = release.directory if release is not None and not incoming.exists() else incoming
    root = journey.ports.root()
    # A release that was verified here before may have expired since: going back must be possible.
    now = utc_now() if journey.store.accepted(rollout.manifest_sha256) is None else None
    try:
        bundle = _opened(directory, root, now, rollout.manifest_sha256)
        journey.ports.check_usable(bundle)
    except TrustError as error:
        raise Failed("signature", str(error)) from error
    except ModelError as error:
        raise Failed("unusable", str(error)) from error
    if (ahead_s := _ahead_s(journey, bundle.manifest.created)) > AHEAD_S:
        raise Failed(
            "not_yet",
            f"the bundle says that it was made {ahead_s / 3600:.0f} h from now: set this station's clock, or that of "
            "the computer that exports, and make a new release",
        )
    journey.store.import_bundle(bundle, "candidate")
    journey.store.accept(bundle.manifest_sha256, bundle.signed_by)
    journey.ledger.raise_signed_time(bundle.manifest.created)
    shutil.rmtree(incoming, ignore_errors=True)
    return journey.move(rollout, State.STAGED)


def await_leave(journey: Journey, rollout: Rollout) -> Rollout:
    """All is on disk; it begins when it is approved, in the window, while the line is idle."""
    return journey.move(_leave(journey, rollout), State.BUILDING)


def build(journey: Journey, rollout: Rollout) -> Rollout:
    """What the runtimes need is built, and tried on the golden pictures, in processes of low priority."""
    rollout = _leave(journey, rollout)  # again: after a restart the window may be over
    planner = journey.ports.planner(_candidate(journey, rollout), journey.store)
    if planner.undecided:
        choice = planner.choose(journey.say, journey.poll)
        journey.breathe()
        tried = "; ".join(choice.lines())
        rollout = journey.keep_gate(rollout, "golden", {"runtime": choice.runtime, "tried": tried})
        if choice.runtime is None and choice.settled:
            raise Failed("golden", f"no runtime answers like the original model on this device: {tried}", blame=True)
    journey.plans = planner.first_plans()
    policy = journey.policy_of(rollout)
    needed_mb, free_mb = planner.memory_mb(journey.plans[0]), journey.ports.vitals().free_mb
    journey.beside = free_mb is None or free_mb - needed_mb >= policy.min_free_mb
    if not journey.beside and not policy.allow_pause:
        raise Failed(
            "memory",
            f"two models at once need {needed_mb} MB more, {free_mb} MB are available and {policy.min_free_mb} MB must "
            "stay so: free some memory, or let the line pause for the change (--allow-pause)",
        )
    return journey.move(rollout, State.LOADING)


def load(journey: Journey, rollout: Rollout) -> Rollout:
    """An engine for the candidate starts: beside the serving one, or, in a declared pause, in its place."""
    journey.forget_outcomes()
    if not journey.beside:
        journey.ports.faults.begin("rollout", "line_paused", "two models do not fit: no unit is judged until one is in")
    journey.engines.stage(journey.plans, beside=journey.beside)
    journey.await_outcome("warming", within_s=_start_within_s(journey))
    return journey.move(rollout, State.WARMING)


def warm(journey: Journey, rollout: Rollout) -> Rollout:
    """Until its latency is steady."""
    journey.await_outcome("golden", within_s=_start_within_s(journey))
    return journey.move(rollout, State.GOLDEN)


def check_golden(journey: Journey, rollout: Rollout) -> Rollout:
    """The engine that will serve sees in the golden pictures what the original model saw; or it does not start."""
    journey.await_outcome("ready", within_s=_start_within_s(journey))
    journey.watch.take_shadowed()
    return journey.move(rollout, State.SHADOW)


def shadow(journey: Journey, rollout: Rollout) -> Rollout:
    """Both judge the same units; the serving one decides."""
    policy = journey.policy_of(rollout)
    if not journey.beside:
        rollout = journey.keep_gate(rollout, "shadow", {"skipped": "memory does not allow two models"})
        return journey.move(rollout, State.SWITCHING)
    gate = ShadowGate(policy, journey.ports.deadline_ms, _baseline(journey))
    ends_ns = monotonic_ns() + policy.shadow_s * NS_PER_S
    verdict = gate.verdict()
    while verdict is None:
        journey.breathe(_ROUND_S)
        for unit in journey.watch.take_shadowed():
            gate.add(unit)
        journey.say(f"{gate.units} of {policy.shadow_units} units judged by both", gate.share)
        verdict = gate.verdict() or (gate.timed_out() if monotonic_ns() > ends_ns else None)
        journey.check_candidate()
    rollout = journey.keep_gate(rollout, "shadow", gate.numbers())
    if not verdict.passed:
        raise Failed(verdict.code, f"shadow: {verdict.detail}", blame=verdict.code not in _NOT_THE_BUNDLE)
    return journey.move(rollout, State.SWITCHING, detail=verdict.detail)


def switch(journey: Journey, rollout: Rollout) -> Rollout:
    """Between two units. From here on a crash leads back to the model before."""
    journey.baseline = _baseline(journey)
    journey.watch.take_judged()
    journey.engines.promote()
    journey.await_outcome("serves", within_s=_SWITCH_WITHIN_S)
    journey.ports.faults.end("rollout", "line_paused", "the candidate judges")
    return journey.move(rollout, State.PROBATION)


def watch_probation(journey: Journey, rollout: Rollout) -> Rollout:
    """The candidate decides; the old engine is warm beside it. Then the change is final."""
    assert rollout.manifest_sha256 is not None
    policy = journey.policy_of(rollout)
    gate = ProbationGate(policy, journey.ports.deadline_ms, journey.baseline, rollout.manifest_sha256)
    verdict, due_ns, decides = None, 0, False
    while verdict is None:
        for unit in journey.watch.take_judged():
            decides = decides or unit.model_sha256 == rollout.manifest_sha256
            if decides or unit.model_sha256 is None:  # else it was decided before the switch
                gate.add(unit)
        if monotonic_ns() >= due_ns:
            verdict, due_ns = gate.check(monotonic_ns(), journey.ports.vitals()), monotonic_ns() + _CHECK_EVERY_NS
        journey.say(f"{gate.units} units decided by the candidate", gate.share)
        journey.check_candidate()
        journey.breathe(_ROUND_S if verdict is None else 0.0)
    rollout = journey.keep_gate(rollout, "probation", gate.numbers())
    if not verdict.passed:
        raise Failed(verdict.code, f"probation: {verdict.detail}", blame=verdict.code not in _NOT_THE_BUNDLE)
    committed = journey.commit(rollout, verdict.detail)
    journey.engines.settle()
    journey.ports.faults.note("rollout", "committed", f"{rollout.request_id}: {verdict.detail}")
    if journey.await_outcome("settled", "reverted", within_s=_SWITCH_WITHIN_S).kind == "reverted":
        _serve_again(journey)  # its engine died in the very moment; a committed model gets another one
    return committed


def _serve_again(journey: Journey) -> None:
    journey.ports.faults.begin("rollout", "committed_waits", "the committed model's engine died: another one starts")
    journey.forget_outcomes()
    journey.engines.stage(journey.plans, beside=journey.beside)
    journey.await_outcome("ready", within_s=_start_within_s(journey))
    journey.engines.promote()
    journey.await_outcome("serves", within_s=_SWITCH_WITHIN_S)
    journey.engines.settle()
    journey.ports.faults.end("rollout", "committed_waits", "the committed model serves")


STEPS: Mapping[State, Step] = {
    State.RECEIVED: receive,
    State.DOWNLOADING: fetch,
    State.VERIFYING: verify_bundle,
    State.STAGED: await_leave,
    State.BUILDING: build,
    State.LOADING: load,
    State.WARMING: warm,
    State.GOLDEN: check_golden,
    State.SHADOW: shadow,
    State.SWITCHING: switch,
    State.PROBATION: watch_probation,
}


def in_window(window: str, now: time) -> bool:
    """Whether *now* is in *window*, such as 22:00-04:30, which may go over midnight."""
    begins, ends = (time.fromisoformat(each) for each in window.split("-"))
    return begins <= now < ends if begins <= ends else now >= begins or now < ends


def _leave(journey: Journey, rollout: Rollout) -> Rollout:
    """Wait until it may begin; with the approval that came meanwhile."""
    policy = journey.policy_of(rollout)
    while True:
        active = journey.ledger.find(rollout.request_id)
        assert active is not None
        busy = journey.ports.busy()
        reason = _waits_for(policy, active.gates, journey.watch.idle_s(), datetime.now().time(), busy)
        journey.waits_for(reason)
        if reason is None:
            return active
        journey.breathe(_ROUND_S)


def _start_within_s(journey: Journey) -> float:
    """The worker has a limit of its own; this one is for an engine that cannot even begin."""
    return journey.plans[0].start_timeout_s + _SWITCH_WITHIN_S


def _whole_release(journey: Journey, manifest_sha256: str) -> int | None:
    """Its release_seq if it is in the store, and nothing of it is damaged."""
    release = journey.store.release(manifest_sha256)
    if release is None:
        return None
    try:
        return _opened(release.directory, journey.ports.root(), None, manifest_sha256).manifest.release_seq
    except ModelError as error:
        log.warning("%s: is fetched again: %s", release.directory, error)
        return None


def _waits_for(
    policy: Policy, gates: Mapping[str, object], idle_s: float, now: time, busy: str
) -> str | None:  # fmt: skip
    """Why a staged rollout does not begin yet."""
    if policy.approval and "approval" not in gates:
        return "approve"
    if policy.window is not None and not in_window(policy.window, now):
        return f"window {policy.window}"
    if policy.idle_s and idle_s < policy.idle_s:
        return f"idle: {idle_s:.0f} of {policy.idle_s} s without a unit"
    if busy:
        return f"the trials of the serving model: {busy}"
    return None


def _candidate(journey: Journey, rollout: Rollout) -> Bundle:
    """As it lies in the store, every file hashed again. Raises Failed."""
    assert rollout.manifest_sha256 is not None
    release = journey.store.release(rollout.manifest_sha256)
    if release is None:
        raise Failed("state", "the candidate is no longer in the store: send the command again under a new id")
    return _opened(release.directory, journey.ports.root(), None, rollout.manifest_sha256)


def _opened(directory: Path, root: Root, now: datetime | None, manifest_sha256: str) -> Bundle:
    """Raises ModelError."""
    bundle = open_bundle(directory, root, now=now)
    if bundle.manifest_sha256 != manifest_sha256:
        raise ModelError(f"{directory}: holds another manifest than the command names: send it again under a new id")
    return bundle


def _ahead_s(journey: Journey, created: datetime) -> float:
    """How far in the future it lies, by this station's clock or by what was signed before."""
    now_s = max(utc_now().timestamp(), journey.ledger.floors().signed_time)
    return created.timestamp() - now_s


def _baseline(journey: Journey) -> Baseline:
    current = journey.store.pointers().get("current")
    return Baseline.of([] if current is None else journey.watch.recent(current))
