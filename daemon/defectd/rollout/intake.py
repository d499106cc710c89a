"""Commands as they arrive, and what the station says of itself: the report is the answer to every command."""

from __future__ import annotations

import hashlib
import logging

from defectd.clock import NS_PER_S, monotonic_ns, utc_now
from defectd.errors import ModelError, StateError
from defectd.inspection.rollout_wire import CommandReport, ModelProgress, ModelRef, ModelReported, RolloutReport
from defectd.models.catalog import Pointer
from defectd.models.envelope import TrustError
from defectd.models.store import Store
from defectd.rollout.admission import Active, Admission, Known, admit
from defectd.rollout.command import Command, SignedCommand, read_command
from defectd.rollout.ledger import Busy, Ledger, Rollout
from defectd.rollout.ports import Ports
from defectd.rollout.states import FINAL, State

log = logging.getLogger(__name__)

_PROGRESS_EVERY_NS = NS_PER_S // 2
_REPORT_EVERY_NS = 10 * NS_PER_S
_UNTIMELY = ("expired", "not_yet")
_MAX_REPORTED = 2000  # characters of what a stranger's bytes make us say


class Intake:
    """Used by the journey's thread. `reported` may be read by any."""

    def __init__(self, ports: Ports, store: Store, ledger: Ledger) -> None:
        self._ports, self._store, self._ledger = ports, store, ledger
        self.reported: ModelReported | None = None
        self.rollout: Rollout | None = ledger.last()
        self.percent: float | None = None
        self.waits_for: str | None = None
        self.end_asked: str | None = None
        self._last_command: CommandReport | None = None
        self._untimely = b""
        self._told_ns = self._reported_ns = 0

    def take(self, envelope: bytes) -> None:
        """One message from `model/desired`. A cleared one changes nothing."""
        if not envelope:
            self._untimely = b""
            return
        command: Command | None = None
        try:
            signed = read_command(envelope, self._ports.root(), None)
            command = signed.command
            admission = self._decide(signed)
            self._obey(signed, admission)
        except Busy as error:
            admission = Admission("refuse", "busy", str(error))
        except TrustError as error:
            admission = Admission("refuse", "signature", str(error))
        except ModelError as error:
            admission = Admission("refuse", "unreadable", str(error))
        except StateError as error:
            admission = Admission("refuse", "disk", str(error))
        self._untimely = envelope if admission.code in _UNTIMELY else b""
        log.warning("command %s: %s: %s", command and command.request_id, admission.code, admission.detail)
        self._last_command = CommandReport(
            request_id=command and command.request_id,
            seq=command and command.seq,
            accepted=admission.kind != "refuse",
            code=admission.code,
            detail=admission.detail[:_MAX_REPORTED],
            ts=utc_now(),
        )
        self.report()

    def reconsider(self) -> None:
        """A command that came at the wrong time, because the clock was wrong: it has been set since, perhaps. Raises
        StateError."""
        if not self._untimely:
            return
        try:
            still = self._decide(read_command(self._untimely, self._ports.root(), None)).code in _UNTIMELY
        except ModelError:
            still = True
        if not still:
            self.take(self._untimely)

    def say(self, detail: str, share: float | None) -> None:
        """Progress of the present state, for a bar; rarely enough for a network."""
        rollout, now_ns = self.rollout, monotonic_ns()
        if rollout is None or now_ns - self._told_ns < _PROGRESS_EVERY_NS:
            return
        self._told_ns = now_ns
        self.percent = None if share is None else round(min(1.0, max(0.0, share)) * 100, 1)
        if now_ns - self._reported_ns > _REPORT_EVERY_NS:
            self.report()
        self._ports.progress(
            ModelProgress(
                request_id=rollout.request_id, state=rollout.state.value, percent=self.percent, detail=detail,
                ts=utc_now(),
            )
        )  # fmt: skip

    def wait_for(self, what: str | None) -> None:
        """What a person would want to know while nothing moves."""
        if self.waits_for != what:
            self.waits_for = what
            self.report()

    def show(self, rollout: Rollout) -> None:
        """It has moved."""
        if rollout != self.rollout:
            self.rollout = rollout
            self.report()

    def report(self) -> None:
        """Say anew what holds now; if the disk cannot be read, what was said before stands."""
        self._reported_ns = monotonic_ns()
        try:
            self.reported = self._state()
        except StateError as error:
            log.warning("nothing new is reported: %s", error)
            return
        self._ports.changed()

    def _state(self) -> ModelReported:
        pointers, floors = self._store.pointers(), self._ledger.floors()
        place = self._ports.place
        return ModelReported(
            station="/".join(place[:4]),
            groups=list(place.groups),
            boot_id=self._ports.boot_id,
            ts=utc_now(),
            current=self._ref(pointers.get("current")),
            previous=self._ref(pointers.get("previous")),
            candidate=self._ref(pointers.get("candidate")),
            factory=self._ref(pointers.get("factory")),
            floor_release_seq=floors.release_seq,
            floor_command_seq=floors.command_seq,
            rollout=None if self.rollout is None else self._rollout_report(self.rollout),
            last_command=self._last_command,
        )

    def _decide(self, signed: SignedCommand) -> Admission:
        command, pointers, floors = signed.command, self._store.pointers(), self._ledger.floors()
        active, sha256 = self._ledger.active(), hashlib.sha256(signed.payload).hexdigest()
        pointer: Pointer = "previous"
        wanted = command.target.manifest_sha256 if command.target is not None else pointers.get(pointer)
        known = Known(
            floor_release_seq=floors.release_seq,
            floor_command_seq=floors.command_seq,
            signed_time_s=floors.signed_time,
            active=None if active is None else Active(active.request_id, active.state),
            same_id=self._ledger.known_command(command.request_id),
            quarantined=None if wanted is None else self._ledger.quarantined(wanted),
            current=pointers.get("current"),
            previous=pointers.get("previous"),
            committed=self._ledger.committed_by(pointers.get("current")),
            sources=tuple(self._ports.sources),
            state_lost=self._ports.lost_marker.exists(),
        )
        admission = admit(command, sha256, self._ports.place, known, utc_now())
        refused = self._ledger.refusal(command.request_id) if admission.kind == "again" else None
        return admission if refused is None else Admission("refuse", *refused)

    def _obey(self, signed: SignedCommand, admission: Admission) -> None:
        """Raises StateError; nothing has changed then."""
        command, sha256 = signed.command, hashlib.sha256(signed.payload).hexdigest()
        if admission.kind == "new":
            target = command.target
            wanted = target.manifest_sha256 if target is not None else self._store.pointers().get("previous")
            release = None if wanted is None else self._store.release(wanted)
            seq = target.release_seq if target is not None else release.release_seq if release is not None else None
            self.rollout = self._ledger.begin(
                command.request_id, command.seq, command.action, signed.payload, command.created, wanted, seq
            )
        elif admission.kind in ("approve", "cancel", "go_back"):
            active = self._ledger.active()
            if active is not None:  # first, so that a crash in between means that it is obeyed when it comes again
                gate = "approval" if admission.kind == "approve" else "end"
                self.rollout = self._ledger.keep_gate(active, gate, {"by": command.request_id})
            if admission.kind != "approve":
                self.end_asked = command.request_id
            self._ledger.note_command(command.request_id, sha256, command.seq, command.created)
        elif admission.kind == "refuse" and admission.lasting and admission.code != "conflict":
            self._ledger.note_refusal(command.request_id, sha256, admission.code, admission.detail)

    def _ref(self, manifest_sha256: str | None) -> ModelRef | None:
        release = None if manifest_sha256 is None else self._store.release(manifest_sha256)
        if release is None:
            return None
        return ModelRef(
            name=release.name, version=release.version, release_seq=release.release_seq,
            manifest_sha256=release.manifest_sha256,
        )  # fmt: skip

    def _rollout_report(self, rollout: Rollout) -> RolloutReport:
        return RolloutReport(
            request_id=rollout.request_id,
            seq=rollout.seq,
            action="rollback" if rollout.action == "rollback" else "deploy",
            state=rollout.state.value,
            successful=rollout.state is State.COMMITTED,
            finished=rollout.state in FINAL,
            code=rollout.code,
            detail=rollout.detail,
            waits_for=self.waits_for,
            percent=self.percent,
            attempts=rollout.attempts,
            target=self._ref(rollout.manifest_sha256),
            gates={gate: dict(numbers) for gate, numbers in rollout.gates.items()},
            received_at=rollout.received_at,
            changed_at=rollout.changed_at,
        )
