"""Power cuts: a rollout's every write is recorded, and after each of them the daemon's own code must find its way.

    python -m acceptance.rollout_crash DIRECTORY     what is recorded: a station's life, without engines

It goes by the real steps as far as they touch the disk: a download, an import, a commit; a second bundle that is put
into quarantine; a third one; the way back; garbage collection; and starts that lead nowhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from queue import SimpleQueue
from shutil import rmtree
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, Sequence, cast

from defectd.download.download import Limits
from defectd.download.sources import open_source
from defectd.errors import ModelError, StateError
from defectd.faults import Faults
from defectd.models.bundle import open_bundle
from defectd.models.envelope import PAYLOAD_MANIFEST
from defectd.models.manifest import ENVELOPE, MANIFEST
from defectd.models.store import Store
from defectd.models.trust import Root, read_root
from defectd.rollout.admission import Place
from defectd.rollout.command import Command
from defectd.rollout.journey import Journey
from defectd.rollout.ledger import Ledger, Rollout
from defectd.rollout.ports import Failed, Ports
from defectd.rollout.starts import begin_start, clean_stop, start_is_good
from defectd.rollout.states import FINAL, MAX_ATTEMPTS, State
from defectd.rollout.steps import fetch, receive, verify_bundle
from defectd.rollout.watching import LineWatch
from defectd.rollout_settings import RolloutSource
from support.bundles import RELEASE_KEY, ROOT_KEY, make_root, sign, signed_root
from support.disk import Disk, Tree, laid_out
from support.proving import Proof, Setting, Short
from support.recorded import Call, await_recorder, record
from support.releases import small

Snapshot = Dict[str, Any]
_WAY = (
    State.STAGED, State.BUILDING, State.LOADING, State.WARMING, State.GOLDEN, State.SHADOW, State.SWITCHING,
    State.PROBATION,
)  # fmt: skip
_BUNDLES = 4
_STARTS_IN_VAIN = 4
_QUICK_EVERY = 20
"""After so many calls one reading of the third kind; otherwise after each."""
_TOLD_PROBLEMS = 5


# -- what is recorded ----------------------------------------------------------------------------------------------


def prepare(directory: Path) -> None:
    """Bundles on a stick, a root to trust, and a place for the station's state."""
    (directory / "state").mkdir()
    (directory / "root.json").write_bytes(signed_root(make_root(), ROOT_KEY))
    for seq in range(1, _BUNDLES + 1):
        bundle = small(directory / "usb" / str(seq), seq).directory
        payload = (bundle / MANIFEST).read_bytes()
        (bundle / ENVELOPE).write_bytes(sign(payload, PAYLOAD_MANIFEST, RELEASE_KEY).to_json())


@dataclass
class Life:
    """A station in *state*, which tells *mark* after each thing that it has done."""

    state: Path
    home: Path
    mark: Callable[[Snapshot], None] = lambda _: None

    def __post_init__(self) -> None:
        self.root: Root = read_root(self.home / "root.json")

    @property
    def models(self) -> Path:
        """As the daemon calls it."""
        return self.state / "models"

    def journey(self) -> Journey:
        """The real one, with a disk, and without a line."""
        place = Place("prove", "smt", "line1", "aoi1", ())
        usb = RolloutSource(alias="usb", directory=self.home / "usb")
        ports = Ports(
            place=place, boot_id="boot", deadline_ms=1000.0, incoming=self.state / "incoming",
            lost_marker=self.state / "models.lost", limits=Limits(1 << 30), sources={"usb": lambda: open_source(usb)},
            open_store=lambda: Store(self.models), root=lambda: self.root, check_usable=lambda _: None,
            planner=cast(Any, None), engines=cast(Any, SimpleNamespace(revert=lambda _: None)),
            faults=Faults(lambda *_: None, changed=lambda: None), busy=lambda: "", record=lambda _: None,
            progress=lambda _: None, changed=lambda: None,
        )  # fmt: skip
        journey = Journey(ports, {}, LineWatch(), SimpleQueue(), lambda: False, clean=False)
        journey._open()
        return journey

    def told(self, store: Store) -> None:
        """It is so from now on, whatever happens."""
        self.mark(snapshot(store))

    def live(self) -> None:
        """From an empty disk on."""
        store = Store(self.models)
        self.told(store)
        begin_start(store, _NOW)
        self.told(store)
        factory = open_bundle(self.home / "usb" / "1", self.root, now=None)
        store.import_bundle(factory, "factory")
        self.told(store)
        store.set_pointers({"current": factory.manifest_sha256})
        store.accept(factory.manifest_sha256, factory.signed_by)
        start_is_good(store)
        self.told(store)
        store.close()
        journey = self.journey()
        self.roll(journey, 2)
        self.collect(journey)
        self.roll(journey, 3, fails=True)
        self.collect(journey)
        self.roll(journey, 4)
        self.collect(journey)
        self.roll(journey, None)
        clean_stop(journey.store)
        self.told(journey.store)
        journey.store.close()
        for _ in range(_STARTS_IN_VAIN):
            with closing(Store(self.models)) as store:
                begin_start(store, _NOW)
                self.told(store)

    def roll(self, journey: Journey, bundle: int | None, *, fails: bool = False) -> None:
        """From command to end; back to `previous` without a *bundle*."""
        fields = _command(self.home, bundle, seq=journey.ledger.floors().command_seq + 1)
        target = fields.get("target") or {"manifest_sha256": journey.store.pointers()["previous"], "release_seq": 2}
        payload = Command.model_validate_json(json.dumps(fields)).to_json()
        rollout = journey.ledger.begin(
            fields["request_id"], fields["seq"], fields["action"], payload, _NOW, target["manifest_sha256"],
            target["release_seq"],
        )  # fmt: skip
        self.told(journey.store)
        self.go_on(journey, rollout, fails=fails)

    def go_on(self, journey: Journey, rollout: Rollout, *, fails: bool = False) -> None:
        """Wherever it is."""
        journey.intake.rollout = rollout
        while rollout.state not in FINAL:
            rollout = self._step(journey, rollout, fails=fails)
            self.told(journey.store)

    def _step(self, journey: Journey, rollout: Rollout, *, fails: bool) -> Rollout:
        steps = {State.RECEIVED: receive, State.DOWNLOADING: fetch, State.VERIFYING: verify_bundle}
        if rollout.state in steps:
            return steps[rollout.state](journey, rollout)
        if rollout.state is State.PROBATION:
            return journey.commit(rollout, "it is good")
        if rollout.state is State.SHADOW:
            if fails:
                return journey.ledger.move(rollout, State.FAILED, "disagreement", "it is bad", quarantine="it is bad")
            rollout = journey.keep_gate(rollout, "shadow", {"units": 300})
        return journey.move(rollout, dict(zip(_WAY, _WAY[1:]))[rollout.state])

    def collect(self, journey: Journey) -> None:
        """What a start does: no pointer changes."""
        journey.store.collect_garbage(())
        self.told(journey.store)


_NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)


def _command(home: Path, bundle: int | None, seq: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "schema": "defectd.command/1.0",
        "request_id": f"request-{seq}",
        "seq": seq,
        "created": _NOW.isoformat(),
        "expires": (_NOW + timedelta(hours=1)).isoformat(),
        "audience": {"kind": "site", "value": "prove"},
        "action": "rollback" if bundle is None else "deploy",
    }
    if bundle is not None:
        manifest = (home / "usb" / str(bundle) / MANIFEST).read_bytes()
        sha256 = hashlib.sha256(manifest).hexdigest()
        fields["target"] = {"manifest_sha256": sha256, "release_seq": bundle, "source": "usb", "path": str(bundle)}
    return fields


def snapshot(store: Store) -> Snapshot:
    """What a power cut must not take."""
    ledger = Ledger(store)
    last, floors = ledger.last(), ledger.floors()
    return {
        "pointers": dict(sorted(store.pointers().items())),
        "rollout": None if last is None else [last.request_id, last.state.value, last.attempts],
        "floors": [floors.release_seq, floors.command_seq, floors.signed_time],
        "quarantine": [row[0] for row in store.rows("SELECT manifest_sha256 FROM quarantine ORDER BY 1")],
        "starts": [list(row) for row in store.rows("SELECT bad, clean FROM starts")],
    }


def _at_once(found: Snapshot) -> list[Any]:
    """What one transaction changes, if one step does; that a station is set up is more than one."""
    return [found[key] for key in ("pointers", "rollout", "floors", "quarantine") if found["rollout"] is not None]


_IN_STEPS = "staged"
"""The bundle is the candidate before the rollout says so."""
_NOTHING: Snapshot = {"pointers": {}, "rollout": None, "floors": [0, 0, 0], "quarantine": [], "starts": []}


# -- what must hold ------------------------------------------------------------------------------------------------


@dataclass
class Check:
    """Disks after a power cut, held against what was told before it and what was told next."""

    home: Path
    scratch: Path
    opened: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def look(self, reading: str, tree: Tree, after: str, before: Snapshot, next_: Snapshot) -> None:
        """One disk. The same one between the same two marks is looked at once."""
        self.opened[f"{reading} read"] += 1
        key = hashlib.sha256(repr((sorted(tree.items()), before, next_)).encode()).digest()
        if key in self.seen:
            return
        self.seen.add(key)
        self.opened[f"{reading} differ"] += 1
        state = laid_out(tree, self.scratch)
        try:
            for problem in self._problems(Life(state, self.home), before, next_):
                self.problems.append(f"{reading}, after {after}: {problem}")
        except (StateError, ModelError, Failed, OSError, AssertionError, KeyError) as error:
            self.problems.append(f"{reading}, after {after}: {error!r}")
        finally:
            rmtree(self.scratch)

    def _problems(self, life: Life, before: Snapshot, next_: Snapshot) -> Iterator[str]:
        with closing(Store(life.models)) as store:
            found = snapshot(store)
            for key, value in found.items():
                if value not in (before[key], next_[key]):
                    yield f"{key} is {value}; was {before[key]}, would be {next_[key]}"
            if _at_once(found) not in (_at_once(before), _at_once(next_)) and next_["rollout"][1] != _IN_STEPS:
                yield f"half of it: {found}; was {before}, would be {next_}"
            self._verify(store, life.root)
        if found["rollout"] is None:
            return
        journey = life.journey()
        with closing(journey.store):
            rollout = journey.ledger.active()
            if rollout is not None:
                self.opened["carried on"] += 1
                rollout = journey.ledger.resume(rollout, clean=False)
                life.go_on(journey, rollout)
                yield from self._after(journey, rollout, found)
            journey.store.collect_garbage(())
            self._verify(journey.store, life.root)

    @staticmethod
    def _after(journey: Journey, resumed: Rollout, found: Snapshot) -> Iterator[str]:
        end, pointers, floors = journey.ledger.last(), journey.store.pointers(), journey.ledger.floors()
        assert end is not None
        committed = end.manifest_sha256 if end.state is State.COMMITTED else found["pointers"].get("current")
        if pointers.get("current") != committed or "candidate" in pointers:
            yield f"went on from {resumed.state.value} to {end.state.value}, and the pointers are {pointers}"
        if end.attempts > MAX_ATTEMPTS:
            yield f"{end.attempts} attempts"
        now = [floors.release_seq, floors.command_seq, floors.signed_time]
        if any(after < before for before, after in zip(found["floors"], now)):
            yield f"a floor fell: {found['floors']}, then {now}"

    def _verify(self, store: Store, root: Root) -> None:
        """Every release that a pointer names is there, and every byte of it is signed for."""
        for pointer, sha256 in store.pointers().items():
            release = store.release(sha256)
            assert release is not None, f"{pointer} names a release that is not there"
            bundle = open_bundle(release.directory, root, now=None)
            assert bundle.manifest_sha256 == sha256, f"{pointer}: {release.directory} is another release"
            self.opened["bundles verified"] += 1


def power_cuts(setting: Setting) -> str:
    """Every moment of it, under three readings of what a file system may lose."""
    setting.directory.mkdir(parents=True, exist_ok=True)
    prepare(setting.directory)
    calls = record("acceptance.rollout_crash", setting.directory)
    told = [_NOTHING, *(json.loads(line) for line in (setting.directory / "told").read_text().splitlines())]
    memory = Path("/dev/shm")  # thousands of small disks; the recorded one is a real one
    scratch = Path(mkdtemp(prefix="power-cut-", dir=memory if os.access(memory, os.W_OK) else setting.directory))
    try:
        return _judged(setting, calls, told, Check(setting.directory, scratch / "state"))
    finally:
        rmtree(scratch)


def _judged(setting: Setting, calls: Sequence[Call], told: Sequence[Snapshot], check: Check) -> str:
    disk, number, writes = Disk(setting.directory / "state"), 0, 0
    marks = None  # the descriptor of `told`, whose lines say how far it was
    for call in calls:
        if call.name == "openat" and call.data(1).endswith(b"/told"):
            marks = call.result
        if call.name == "write" and call.fd() == marks:
            number += 1
        if not disk.apply(call):
            continue
        writes += 1
        before, next_ = told[number], told[min(number + 1, len(told) - 1)]
        where = f"call {writes} ({call.name})"
        check.look("synchronised only", disk.nothing_more(), where, before, next_)
        check.look("all", disk.everything(), where, before, next_)
        if not setting.quick or writes % _QUICK_EVERY == 0:
            check.look("some", disk.something(writes), where, before, next_)
    if number != len(told) - 1:
        raise Short(f"{number} of {len(told) - 1} marks were seen")
    figure = f"{writes} calls that change the disk, {number} things done; " + ", ".join(
        f"{count} {what}" for what, count in sorted(check.opened.items())
    )
    if check.problems:
        raise Short(f"{len(check.problems)} problems: {'; '.join(check.problems[:_TOLD_PROBLEMS])}; {figure}")
    return figure


_CLAIM = "whatever is lost of unsynchronised writes, the committed model is there, floors stay, and rollouts end"
CRASHES = (Proof("crash.power_cut", _CLAIM, power_cuts),)


def _main(directory: Path) -> None:
    await_recorder()
    with (directory / "told").open("a", buffering=1) as told:
        Life(directory / "state", directory, lambda found: print(json.dumps(found), file=told)).live()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
