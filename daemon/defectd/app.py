"""The composition root: from Settings to a Daemon. The one module that knows every part."""

from __future__ import annotations

import fcntl
import logging
import os
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Mapping, Sequence

from defectd.birth import birth
from defectd.camera.feed import CameraFeed
from defectd.camera_plans import opening_positions, plan_cameras, plan_lines
from defectd.checked import Checked, build_recipe
from defectd.chooser import RuntimeChooser
from defectd.clock import utc_now
from defectd.committed import Committed, committed_model
from defectd.daemon import Condition, Daemon
from defectd.decided import Decided, Observer, plan_webs
from defectd.engine.server import EngineServer
from defectd.engine.serving import Engines, Outcome
from defectd.errors import ModelError, StateError
from defectd.evidence.keeper import CollectPlan, EvidenceKeeper, EvidencePlan
from defectd.faults import Faults
from defectd.inspection import events
from defectd.inspection.recipe import Recipe
from defectd.inspection.record import StationIdentity
from defectd.loop import InspectionLoop
from defectd.messaging.client import Broker
from defectd.messaging.outbox import Outbox
from defectd.messaging.publisher import Notice, Publisher
from defectd.messaging.tls import Tls
from defectd.messaging.topics import Topics
from defectd.model_planner import ModelPlanner
from defectd.rollout.rollouts import Rollouts
from defectd.rollout.starts import start_is_good
from defectd.rollout_parts import build_rollouts
from defectd.settings import Settings
from defectd.telemetry_parts import build_sampler, refresh
from defectd.web.metrics import Metrics
from defectd.web.server import WebServer

log = logging.getLogger(__name__)

_DEVICE_EXPIRES_S = 10  # twice the usual interval


def build(checked: Checked) -> Daemon:
    """Wire all parts. The outbox is open when this returns. Raises StateError."""
    settings = checked.settings
    _claim(settings.state.directory)
    recipe = build_recipe(settings)
    committed = committed_model(checked.model, settings, recipe)
    try:
        return _wire(checked, recipe, committed)
    except BaseException:
        if committed.store is not None:
            with suppress(StateError):
                start_is_good(committed.store)  # at least, no model is to blame
        raise


def _wire(checked: Checked, recipe: Recipe, committed: Committed) -> Daemon:
    settings = checked.settings
    planner = ModelPlanner(committed.model, committed.store, settings, recipe)
    try:
        planner.sweep()
    except (StateError, ModelError, OSError) as error:
        committed.warnings.append(f"what no model needs any more was not deleted: {error}")
    engine_plans, undecided = planner.first_plans(), planner.undecided
    boot_id, station = str(uuid.uuid4()), settings.station.station
    outbox = Outbox(
        settings.state.directory / "outbox.db",
        boot_id=boot_id,
        station=station,
        max_bytes=settings.state.outbox_max_mb * 1_000_000,
        keep_acked_s=settings.state.keep_delivered_h * 3600,
        on_commit=lambda: publisher.wake(),  # noqa: PLW0108 - each needs the other; made below
    )
    faults = Faults(_fault_sink(outbox, station, boot_id), changed=lambda: publisher.announce())  # noqa: PLW0108
    condition = Condition(boot_id, faults.active)
    identity = StationIdentity(
        station, boot_id, settings.sha256(), events.Recipe(name=recipe.name, revision=recipe.revision)
    )
    topics = topics_of(settings)
    rollouts: Rollouts | None = None  # made below: it needs what needs it
    publisher = Publisher(
        broker_of(settings),
        topics,
        outbox,
        [
            Notice(topics.status, condition.status),
            Notice(topics.birth, lambda: birth(settings, identity, recipe, outbox, feeds, engines)),
            Notice(topics.model_reported, lambda: rollouts.reported() if rollouts else None),
        ],
        condition.last_words,
        faults,
        subscriptions=_wanted(settings, topics),
        on_message=lambda topic, payload: _hand_on(topic, payload, topics, loop, rollouts),
    )
    outbox.report_to(faults)
    with ExitStack() as undo:  # the outbox has a thread, which would outlive a failure below
        outbox.start()
        undo.callback(outbox.close, 1.0)
        positions = outbox.positions()
        state = settings.state.directory
        plans = plan_cameras(settings.camera, positions, settings.inspection.deadline_ms, state)
        outbox.set_positions(opening_positions(settings.camera, plans))
        feeds = [CameraFeed(plan, index, settings.log.level) for index, plan in enumerate(plans)]
        lines = plan_lines(settings.inspection, settings.camera, positions)
        rings = tuple(feed.ring for feed in feeds)
        engines = Engines(engine_plans, lambda plan: EngineServer(plan, rings, settings.log.level))
        keeper = EvidenceKeeper(_evidence_plan(settings), rings, settings.log.level)
        metrics = Metrics([feed.name for feed in feeds])
        sampler = build_sampler(
            settings, boot_id, faults,
            observe=lambda sample, throttled: refresh(
                metrics, sample, throttled, outbox, rollouts, _exits(feeds, loop.tally.counts)
            ),
            publish=lambda message: publisher.tell(topics.device, message, expires_s=_DEVICE_EXPIRES_S),
            record=outbox.put,
            outbox_pending=lambda: outbox.depth().pending,
            names=lambda: {feed.worker.pid: f"camera/{feed.name}" for feed in feeds if feed.worker.pid is not None},
        )  # fmt: skip
        observers: list[Observer] = [metrics.inspected, sampler.inspected]
        decided = Decided(outbox, plan_webs(settings.camera, positions), observers, faults)
        loop = InspectionLoop(
            identity,
            recipe,
            [(line, [feed for feed in feeds if feed.plan.unit == line.name]) for line in lines],
            engines,
            keeper if settings.evidence.enabled else None,
            store=decided.store,
            faults=faults,
            on_change=publisher.announce,
            on_swap=lambda outcome: _tell_swap(outcome, faults, rollouts),
            on_shadow=lambda unit: rollouts.shadowed(unit) if rollouts else None,
            conditions=lambda: sampler.conditions,
            sheds=lambda: sampler.sheds,
            keeps=decided.keeps,
            on_turn=decided.tend,
            on_end=decided.close,
        )
        undo.pop_all()
        chooser = None
        if undecided:
            chooser = RuntimeChooser(planner, engines, str(engine_plans[0].configuration["runtime"]), faults)
    rollouts = build_rollouts(
        settings, recipe, committed, boot_id, engines, faults,
        busy=lambda: chooser.doing if chooser is not None else "",
        latest_sample=lambda: sampler.latest,
        record=outbox.put,
        progress=lambda message: publisher.tell(topics.model_progress, message),
        changed=publisher.announce,
    )  # fmt: skip
    if committed.warnings:
        faults.begin("model", "warning", "; ".join(committed.warnings))
    if committed.boot_loop is not None:
        faults.note("model", "boot_loop", committed.boot_loop)
    if rollouts is not None:
        observers.append(rollouts.inspected)
    daemon = Daemon(outbox, publisher, loop, faults, condition, sampler, chooser, rollouts)
    if settings.web is not None:
        daemon.web = WebServer(settings.web.host, settings.web.port, metrics, daemon.is_ready, daemon.is_alive)
    return daemon


def _wanted(settings: Settings, topics: Topics) -> list[str]:
    """What the station listens to."""
    by_message = settings.inspection.announced_ids or any(camera.trigger == "message" for camera in settings.camera)
    return [topics.model_desired] * bool(settings.rollout.source) + [topics.unit] * by_message


def _hand_on(topic: str, payload: bytes, topics: Topics, loop: InspectionLoop, rollouts: Rollouts | None) -> None:
    if topic == topics.unit:
        loop.births.announce(payload)
    elif rollouts is not None:
        rollouts.command(payload)


def _evidence_plan(settings: Settings) -> EvidencePlan:
    evidence = settings.evidence
    return EvidencePlan(
        directory=settings.state.directory / "evidence",
        jpeg_quality=evidence.jpeg_quality,
        max_bytes=evidence.max_mb * 1_000_000,
        max_age_s=evidence.max_age_days * 86_400,
        collect=CollectPlan(
            policy=evidence.collect,
            directory=settings.state.directory / "collected",
            picture_format=evidence.collect_as,
            max_bytes=evidence.collect_max_mb * 1_000_000,
        ),
    )


def broker_of(settings: Settings) -> Broker:
    """The broker as the publisher wants it; reads the password file."""
    mqtt = settings.mqtt
    password = mqtt.password.get_secret_value() if mqtt.password else None
    if mqtt.password_file is not None:
        password = mqtt.password_file.read_text().strip()
    tls = mqtt.tls
    return Broker(
        host=mqtt.host,
        port=mqtt.port,
        username=mqtt.username,
        password=password,
        client_id=mqtt.client_id or f"defectd-{settings.station.station}",
        keepalive_s=mqtt.keepalive_s,
        protocol=mqtt.protocol,
        tls=Tls(tls.ca, tls.cert, tls.key) if tls.ca else None,
        window=mqtt.window,
        rate_limit_hz=mqtt.backlog_rate_hz,
        reconnect_max_s=mqtt.reconnect_max_s,
    )


def topics_of(settings: Settings) -> Topics:
    """The station's place in the topic tree."""
    return Topics(**settings.station.model_dump())


def _exits(feeds: Sequence[CameraFeed], counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """How often each worker ended, by reason; engines as one, whichever it was."""
    engine = {name[len("engine_") :]: count for name, count in dict(counts).items() if name.startswith("engine_")}
    return {"engine": engine, **{f"camera/{feed.name}": dict(feed.worker.exits) for feed in feeds}}


def _tell_swap(outcome: Outcome, faults: Faults, rollouts: Rollouts | None) -> None:
    """Which runtime serves from now on, or why it does not: the serving engine goes on."""
    if outcome.staged:
        if rollouts is not None:
            rollouts.outcome(outcome)
        return
    runtime = outcome.plan.configuration["runtime"]
    if outcome.serves:
        faults.end("engine", "swap_failed", f"{runtime} serves")
        faults.note("engine", "swapped", f"{outcome.plan.name} {outcome.plan.version} is served by {runtime} now")
    else:
        faults.begin("engine", "swap_failed", f"{runtime} does not start: {outcome.detail}; the old engine serves on")


def _fault_sink(outbox: Outbox, station: str, boot_id: str) -> Any:
    def sink(component: str, code: str, state: str, detail: str, data: dict[str, Any]) -> None:
        event = events.FaultEvent(
            station=station,
            boot_id=boot_id,
            created_at=utc_now(),
            component=component,
            code=code,
            state=state,
            detail=detail,
            data=data,
        )
        outbox.put(event)

    return sink


def _claim(directory: Path) -> None:
    """Keep a second daemon out of *directory*: both would number the same events. The claim ends with this process,
    however it ends; workers do not inherit it. Raises StateError."""
    try:
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)  # open for the life of the process
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StateError(
            f"{directory}: another defectd uses it; expected a state directory of its own: stop the other one, "
            "or set state.directory"
        ) from error
    except OSError as error:
        raise StateError(f"{directory}: {error.strerror}; expected a directory that this user may write") from error
