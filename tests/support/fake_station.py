"""A station that takes commands and rolls out nothing: real wire models, a real connection, scripted events."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from defectd.clock import utc_now
from defectd.errors import ModelError
from defectd.inspection.events import Status
from defectd.inspection.rollout_wire import CommandReport, ModelProgress, ModelRef, ModelReported, RolloutReport
from defectd.messaging.topics import ROOT
from defectd.models.trust import Root
from defectd.rollout.command import Command, read_command
from support.brokers import hang_up

LIFE = (
    "downloading", "verifying", "staged", "building", "loading", "warming", "golden", "shadow", "switching",
    "probation",
)  # fmt: skip
WITH_PERCENT = ("downloading", "building", "shadow", "probation")
FIRST = ModelRef(name="boards", version="1.4", release_seq=4, manifest_sha256="a4" * 32)
OLDER = ModelRef(name="boards", version="1.3", release_seq=3, manifest_sha256="a3" * 32)


@dataclass(frozen=True)
class Script:
    """What happens to a rollout here, if not that all goes well. `hold` is a state that it does not leave by itself."""

    refuses: tuple[str, str] | None = None
    fails_at: str | None = None
    failure: tuple[str, str] = ("golden", "finds 3 of 40 golden boxes no more; export the bundle again")
    hold: str | None = None
    vanishes_at: str | None = None
    mute: bool = False
    name: str = "boards"
    version: str = "1.5"


@dataclass
class _Work:
    command: Command
    state: str = "received"
    code: str = ""
    detail: str = ""
    waits_for: str | None = None
    target: ModelRef | None = None
    ending: str | None = None
    approved: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class FakeStation:
    """Online while the `with` lasts; at *levels* (site/area/line/station), each step of a rollout taking *step_s*."""

    def __init__(
        self, host: str, port: int, root: Root, levels: str = "plant1/smt/line1/aoi1", script: Script = Script(), *,
        groups: tuple[str, ...] = (), current: ModelRef = FIRST, previous: ModelRef | None = OLDER,
        floor_command_seq: int = 0, step_s: float = 0.02,
    ) -> None:  # fmt: skip
        self.script = script
        self.commands: list[Command] = []
        self._host, self._port, self._root, self._levels, self._groups = host, port, root, levels, groups
        self._current, self._previous, self._floor, self._step_s = current, previous, floor_command_seq, step_s
        self._work: _Work | None = None
        self._last: CommandReport | None = None
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._subscribed = threading.Event()

    def __enter__(self) -> FakeStation:
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"fake-{self._levels}", protocol=MQTTv311)
        self._client.will_set(self._topic("status"), self._status("offline", "lost"), qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect(self._host, self._port)
        self._client.loop_start()
        assert self._subscribed.wait(10), "no SUBACK"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in list(self._threads):  # one more may just be beginning; it sees that it must stop
            thread.join(5)
        if self._client.is_connected():
            self._client.publish(self._topic("status"), self._status("offline", "stopped"), 1, True).wait_for_publish(5)
        hang_up(self._client)

    @property
    def is_at(self) -> str | None:
        """The state of its last rollout."""
        return self._work.state if self._work else None

    def say(self, suffix: str, payload: bytes) -> None:
        """Anything, retained, in the station's name."""
        self._client.publish(self._topic(suffix), payload, qos=1, retain=True).wait_for_publish(5)

    def vanish(self) -> None:
        """As if the power were cut: the broker publishes the will."""
        opened = self._client.socket()
        with suppress(OSError, AttributeError):
            opened.shutdown(2)  # type: ignore[union-attr]
        self._client.loop_stop()

    # -- the wire --------------------------------------------------------------------------------------------------

    def _topic(self, suffix: str) -> str:
        return f"{ROOT}/{self._levels}/{suffix}"

    def _status(self, state: Any, condition: Any) -> bytes:
        detail = {"lost": "the connection was lost", "stopped": "stopped as asked"}.get(condition, condition)
        return Status(state=state, condition=condition, detail=detail, boot_id="b", ts=utc_now()).to_json()

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.publish(self._topic("status"), self._status("online", "inspecting"), qos=1, retain=True)
        self._report()
        client.subscribe(self._topic("model/desired"), qos=1)

    def _on_message(self, _c: Client, _u: Any, message: MQTTMessage) -> None:
        if not message.payload or self.script.mute:
            return
        try:
            command = read_command(bytes(message.payload), self._root, None).command
        except ModelError as error:
            self._answer(None, "signature", str(error))
            return
        with self._lock:
            if any(one.request_id == command.request_id for one in self.commands):
                self._answer(command, "again", "had it before", accepted=True)
            elif self.script.refuses is not None:
                self._answer(command, *self.script.refuses)
            elif command.seq <= self._floor:
                self._answer(command, "stale", f"seq {command.seq} is not above {self._floor}; send it anew")
            else:
                self.commands.append(command)
                self._floor = command.seq
                self._obey(command)

    def _obey(self, command: Command) -> None:
        work = self._work
        if command.action in ("deploy", "rollback") and (work is None or work.ended.is_set()):
            self._work = _Work(command)
            self._answer(command, "accepted", "", accepted=True)
            thread = threading.Thread(target=self._roll_out, args=(self._work,), daemon=True)
            thread.start()
            self._threads.append(thread)
        elif work is None or work.ended.is_set() or work.command.request_id != command.of:
            self._answer(command, f"nothing_to_{command.action}", "no such rollout is going on here")
        else:
            if command.action == "approve":
                work.approved.set()
            else:
                work.ending = "rolled_back" if work.state in ("switching", "probation") else "cancelled"
            self._answer(command, "accepted", "", accepted=True)

    # -- what happens ----------------------------------------------------------------------------------------------

    def _roll_out(self, work: _Work) -> None:
        target = work.command.target
        life = LIFE if target else ("building", "loading", "warming", "golden", "switching")
        for state in life:
            self._go(work, state)
            if state == "verifying" and target is not None:
                work.target = ModelRef(
                    name=self.script.name, version=self.script.version, release_seq=target.release_seq,
                    manifest_sha256=target.manifest_sha256,
                )  # fmt: skip
            if state == "staged" and work.command.policy.approval:
                self._wait(work, "approve", work.approved)
            for percent in (0.0, 35.0, 70.0, 100.0) if state in WITH_PERCENT else ():
                self._progress(work, percent)
                self._pause(work)
            self._pause(work)
            if state == self.script.vanishes_at:
                self.vanish()
                return
            if state == self.script.hold:
                self._wait(work, None, threading.Event())
            if work.ending or self._stop.is_set() or state == self.script.fails_at:
                break
        self._end(work, state)

    def _end(self, work: _Work, state: str) -> None:
        if self._stop.is_set():
            return
        with self._lock:
            if work.ending:
                work.state, work.code, work.detail = work.ending, "operator", "as the technician asked"
            elif state == self.script.fails_at:
                work.state = "rolled_back" if state in ("switching", "probation") else "failed"
                work.code, work.detail = self.script.failure
            else:
                work.state = "committed"
                self._previous, self._current = self._current, work.target or self._previous or self._current
            work.ended.set()
            self._report()

    def _go(self, work: _Work, state: str) -> None:
        with self._lock:
            work.state = state
            self._report()

    def _wait(self, work: _Work, reason: str | None, until: threading.Event) -> None:
        work.waits_for = reason
        self._report()
        while not (until.wait(0.01) or work.ending or self._stop.is_set()):
            pass
        work.waits_for = None
        self._report()

    def _pause(self, work: _Work) -> None:
        if not work.ending:
            self._stop.wait(self._step_s)

    def _progress(self, work: _Work, percent: float) -> None:
        progress = ModelProgress(
            request_id=work.command.request_id, state=work.state, percent=percent, detail="", ts=utc_now()
        )
        self._client.publish(self._topic("model/progress"), progress.to_json(), qos=1)

    def _answer(self, command: Command | None, code: str, detail: str, *, accepted: bool = False) -> None:
        self._last = CommandReport(
            request_id=command and command.request_id, seq=command and command.seq, accepted=accepted, code=code,
            detail=detail, ts=utc_now(),
        )  # fmt: skip
        self._report()

    def _report(self) -> None:
        reported = ModelReported(
            station=self._levels, groups=list(self._groups), boot_id="b", ts=utc_now(), current=self._current,
            previous=self._previous, candidate=None, factory=None, floor_release_seq=self._current.release_seq,
            floor_command_seq=self._floor, rollout=self._rollout(), last_command=self._last,
        )  # fmt: skip
        self._client.publish(self._topic("model/reported"), reported.to_json(), qos=1, retain=True)

    def _rollout(self) -> RolloutReport | None:
        work = self._work
        if work is None:
            return None
        finished = work.ended.is_set()
        return RolloutReport(
            request_id=work.command.request_id, seq=work.command.seq,
            action="rollback" if work.command.action == "rollback" else "deploy", state=work.state,
            successful=finished and work.state == "committed", finished=finished, code=work.code, detail=work.detail,
            waits_for=work.waits_for, percent=None, attempts=1, target=work.target, gates={}, received_at=utc_now(),
            changed_at=utc_now(),
        )  # fmt: skip
